"""Jobs: the predefined YAML files, overrides laid over them, and the parameters that a pipeline is given for one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core import storage
from core.config import merge, read_written, with_overrides
from core.errors import UserError
from core.names import inside
from core.similar import did_you_mean
from core.sources.listing import listing
from core.storage import remote
from factory.job import AnyJob, parse_job
from factory.looking import require_suitable_data
from factory.search import require_trials

CONFIGS = Path(__file__).parent / "configs"
SECTIONS = ("data", "source", "model", "train", "autoregressive", "sample", "evaluate", "gate", "search", "many")
_NOT_JOBS = ("resources",)
_EXAMPLE = "search: {parameters: {train.learning_rate: {min: 1e-4, max: 1e-2, scale: log}}, examples: 20000}"
_EXACT = 2**53  # pipeline backends carry numbers as doubles


def job_names() -> list[str]:
    """Names of the predefined jobs."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml") if path.stem not in _NOT_JOBS)


def job_path(name: str) -> Path:
    """The YAML file of a predefined job, or `name` itself if it is the path of one.

    Raises:
        UserError: there is no such job.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.exists():
            here = sorted(str(file) for file in path.parent.glob("*.y*ml") if file.name != "textdiffusion.yaml")
            known = f"{did_you_mean(name, here)}job files there: {', '.join(here[:8]) or 'none'}"
            raise UserError(f"job {name}: no such file; {known}; `textdiffusion init {path.stem}` writes one")
        return path
    if name not in job_names():
        file = f"; {name}.yaml is a file here: name it so" if Path(f"{name}.yaml").is_file() else ""
        known = f"{did_you_mean(name, job_names())}allowed: {', '.join(job_names())}, or the path of a .yaml file"
        raise UserError(f"job {name!r}: there is none; {known}{file}")
    return inside(CONFIGS, f"{name}.yaml")


def load_job(
    name: str,
    overrides: Sequence[str] = (),
    layers: Sequence[Mapping[str, Any]] = (),
    *,
    search: bool = False,
) -> AnyJob:
    """The job called `name`, or the one in a YAML file at that path.

    Args:
        name: a predefined job, or a path that ends in .yaml.
        overrides: `section.key=value` texts of the command line, laid on last.
        layers: mappings laid over the YAML first, in order: settings file, environment.
        search: keep the section `search`, with which the job's pipeline searches before it trains.

    Raises:
        UserError: there is no such job, it is not valid, or it has no section `search` where one is needed.
    """
    path = job_path(name)
    values: dict[str, Any] = read_written(path)
    for layer in layers:
        known = {key: value for key, value in layer.items() if key in values or key == "resources"}
        values = merge(values, known)
    job = parse_job(with_overrides(values, overrides), path.name if not overrides else f"{path.name} with --set")
    check_numbers(job.model_dump(mode="json"), path.name)
    if search:
        if job.kind != "training" or job.search is None:
            raise UserError(f"{path.name}: --search needs a section `search` in a training job, for example {_EXAMPLE}")
        require_trials(job.search, job.train, path.name)
        return job
    return job.model_copy(update={"search": None}) if job.kind == "training" else job


def sections(job: AnyJob) -> dict[str, Any]:
    """The sections of `job` that are parameters of its pipeline, by name, with every default written out.

    KFP parameters know no null: what is null is left out, and is null again when a step reads its section.
    """
    values = job.model_dump(mode="json", exclude_none=True)
    return {name: values[name] for name in SECTIONS if name in values}


def parameters(
    job: AnyJob, *, registry: str = "", run: str = "", work: str = "", found: str | None = None
) -> dict[str, Any]:
    """All parameters of the job's pipeline.

    Args:
        job: the job.
        registry: folder or gs:// prefix of the model registry.
        run: id of the run.
        work: folder or gs:// prefix for checkpoints; empty: what the machine that trains has set.
        found: the data's fingerprint; None: it is computed, and the data are looked at.

    Raises:
        UserError: the data are not there, or say that the job cannot be done.
    """
    if found is None:
        found = fingerprint(job)
        require_suitable_data(job)
    values = {**sections(job), "data_fingerprint": found, "registry": registry}
    if job.kind == "training":
        values |= {"model_name": job.job, "run": run, "work": work}
    elif "many" in values:
        values["work"] = work
    return values


def sent_parameters(job: AnyJob, *, registry: str, run: str, work: str, ask: bool, retraining: bool) -> dict[str, Any]:
    """The parameters of a run, or of the runs of a schedule, on a service; without `ask` no data is looked at.

    A retraining will look at the data of its own time, and one schedule starts many runs.

    Raises:
        UserError: the data are not there, or say that the job cannot be done.
    """
    if not retraining:
        return parameters(job, registry=registry, run=run, work=work, found=None if ask else "")
    values = parameters(job, registry=registry, work=work, found=fingerprint(job) if ask else "")
    values.pop("data_fingerprint")
    values["run"] = ""  # each is known by where its artifacts lie
    return values


def fingerprint(job: AnyJob) -> str:
    """A hash of names, sizes and times (remote: etags) of the source's files; "embedded" for data that is built in.

    Raises:
        UserError: data_dir is not there.
    """
    data_dir = job.data.data_dir
    if data_dir is None:
        return "embedded"
    entries = _local_entries(Path(data_dir)) if not storage.is_remote(data_dir) else _remote_entries(data_dir)
    if not entries:
        raise UserError(f"data.data_dir: no files at {data_dir}")
    return hashlib.sha256(json.dumps(sorted(entries)).encode()).hexdigest()[:16]


def absolute(job: AnyJob, base: Path) -> AnyJob:
    """`job` with local paths made absolute, so that steps find them wherever they are run."""
    values = job.model_dump(mode="json")
    data_dir = job.data.data_dir
    if data_dir and not storage.is_remote(data_dir):
        values["data"]["data_dir"] = str((base / Path(data_dir).expanduser()).resolve())
    for key, name in (values.get("source") or {}).items():
        if name and "/" in name and not storage.is_remote(name):
            values["source"][key] = str((base / Path(name).expanduser()).resolve())
    name = (values.get("many") or {}).get("out")
    if name and not storage.is_remote(name):
        values["many"]["out"] = str((base / Path(name).expanduser()).resolve())
    return parse_job(values, job.job)


def require_remote(job: AnyJob) -> None:
    """Raises UserError if a job names data or models on this machine, which a machine elsewhere cannot read."""
    data_dir = job.data.data_dir
    if data_dir and not storage.is_remote(data_dir):
        raise UserError(f"data.data_dir: {data_dir} is on this machine; copy it to gs://BUCKET/data and name that")
    for key, name in job.model_dump().get("source", {}).items():
        if name and "/" in name and not storage.is_remote(name):
            raise UserError(f"source.{key}: {name} is on this machine; name a gs:// folder or a registered model")
    out = (job.model_dump().get("many") or {}).get("out")
    if out and not storage.is_remote(out):
        raise UserError(f"many.out: {out} is on this machine; name a gs:// prefix, or leave it out")


def _local_entries(root: Path) -> list[list[Any]]:
    if root.is_file():
        return [[root.name, root.stat().st_size, root.stat().st_mtime_ns]]
    entries = []
    for name in listing(root).files:
        facts = inside(root, name, links=True).stat()
        entries.append([name, facts.st_size, facts.st_mtime_ns])
    return entries


def _remote_entries(uri: str) -> list[list[Any]]:
    entries = []
    for name, facts in remote.details(uri).items():
        stamp = facts.get("etag") or facts.get("md5Hash") or facts.get("mtime") or ""
        entries.append([name, facts.get("size"), str(stamp)])
    return entries


def check_numbers(value: Any, where: str) -> None:
    """Raises UserError for an integer that a pipeline parameter, a double, cannot carry."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            check_numbers(item, f"{where}: {key}" if ":" not in where else f"{where}.{key}")
    elif isinstance(value, list):
        for item in value:
            check_numbers(item, where)
    elif isinstance(value, int) and not isinstance(value, bool) and abs(value) > _EXACT:
        raise UserError(f"{where}: {value} is above 2^53; pipeline parameters carry numbers as doubles")
