"""Compiles a job's pipeline to YAML: the same bytes every time, the image named by the hash of what is inside it."""

from __future__ import annotations

import hashlib
import inspect
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.step import IMAGE, TRIALS_IMAGE
from core import names, storage
from core.errors import UserError
from core.storage import scratches
from factory.job import AnyJob, ImageTrainingJob, TextTrainingJob
from pipelines.custom_job import VertexOptions
from pipelines.dataflow import uses_beam
from pipelines.jobs import sections
from pipelines.machines import Machine, load_machines
from pipelines.placement import Placement, Target
from pipelines.sampling import define_sampling
from pipelines.training import define_training

ROOT = Path(__file__).parents[1]
INSIDE = ("core", "factory", "report", "components", "serving", "containers", "requirements.lock")  # of the image
BUILD = Path("build") / "pipelines"
DEFINITIONS: Mapping[str, Callable[[Any, Placement], Any]] = {"training": define_training, "sampling": define_sampling}
TARGETS: Mapping[Target, str] = {"local": ".yaml", "vertex": ".vertex.yaml"}


def content_tag(root: Path = ROOT, inside: Sequence[str] = INSIDE) -> str:
    """16 hex digits of the SHA-256 over names and bytes of all that goes into the image."""
    digest = hashlib.sha256()
    for path in _files(root, inside):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def image_name(repository: str = "textdiffusion", *, to_run: bool = True, root: Path = ROOT) -> str:
    """The image that steps run in: `repository` (without a tag) and the content's tag. An own tag is left as it is.

    Args:
        repository: where it is.
        to_run: it is to be pulled or built, and does not only stand for the code.
        root: of the code.

    Raises:
        UserError: it is to run, and this installation lacks what it would be made of.
    """
    if "@" in repository or ":" in repository.rpartition("/")[2]:
        return repository
    missing = [name for name in INSIDE if not names.inside(root, name).exists()]
    if to_run and missing:
        raise UserError(
            f"image: this installation has no {' and no '.join(missing)}, so nobody can build the image of its code;"
            " work in a clone of the repository, or set `image:` to one with a tag"
        )
    return f"{repository}:{content_tag(root)}"


def compile_job(
    job: AnyJob,
    target: Target = "local",
    *,
    image: str | None = None,
    machines: Mapping[str, Machine] | None = None,
    options: VertexOptions | None = None,
    definition: Callable[[AnyJob, Placement], Any] | None = None,
    nodes: str = "",
    beam: str | None = None,
) -> str:
    """The job's pipeline as the YAML text of its specification.

    Args:
        job: its sections become the defaults of the pipeline's parameters.
        target: "local" (the local runner and Kubeflow) or "vertex".
        image: full name of the image with its tag; None: textdiffusion:<hash of its content>.
        machines: rows of resources.yaml; None: as the file has them.
        options: for Vertex custom jobs.
        definition: makes the pipeline; None: the one of the job's kind. Retraining has its own.
        nodes: the TrainJob by which trainings run on several nodes of a Kubernetes cluster; empty: in the step's pod.
        beam: options of Apache Beam for a job that uses it, as `pipelines.dataflow.beam_options` says; None: the step's
            own machine.

    Raises:
        UserError: a machine that the job names is not there.
    """
    from kfp import compiler

    definition = definition or DEFINITIONS[job.kind]
    place = Placement(target, machines or load_machines(), job.resources, options or VertexOptions(), nodes,
                      beam or ("{}" if uses_beam(job) else None))  # fmt: skip
    defaults: dict[str, Any] = sections(job)
    if job.kind == "training":
        defaults["model_name"] = job.job
        _require_shares(job, place)
    with warnings.catch_warnings(), scratches.temporary_folder("compile") as folder, _quiet():
        warnings.simplefilter("ignore")
        path = folder / "pipeline.yaml"
        compiler.Compiler().compile(definition(job, place), str(path), pipeline_parameters=defaults)
        text = path.read_text(encoding="utf-8")
    # KFP's own comment at the top lists defaults in an order that changes from process to process.
    body = text[text.index("\ncomponents:") + 1 :]
    header = f"# Job {job.job}, compiled for {target}: {' '.join(job.description.split())}\n"
    name = image or image_name(to_run=target != "local")
    if "@" in name and f"{IMAGE}{TRIALS_IMAGE}" in body:
        raise UserError(
            f"image: {name} has no tag; a search on Vertex AI runs its trials in the image TAG{TRIALS_IMAGE}"
        )
    return header + body.replace(IMAGE, name)


def _require_shares(job: ImageTrainingJob | TextTrainingJob, place: Placement) -> None:
    """Raises UserError for a batch that would leave a GPU of the cluster without an example."""
    processes = place.machine("train").accelerator_count * job.resources.replicas
    for section in ("train", "autoregressive"):
        training = getattr(job, section, None)
        if training is not None and training.batch_size < processes:
            raise UserError(
                f"{section}.batch_size: {training.batch_size} is less than one example for each of the {processes} GPUs"
                f" of resources.train: {job.resources.train}, resources.replicas: {job.resources.replicas}"
            )


def compile_to(job: AnyJob, folder: Path = BUILD, **options: Any) -> list[Path]:
    """Compiles for every target, checks the results and writes them into `folder`; returns the files' paths. With a
    section `search` they are called `<job>-search`."""
    from pipelines.checks import check_spec

    texts = {target: compile_job(job, target, **options) for target in TARGETS}
    for target, text in texts.items():
        problems = check_spec(text, job)
        if problems:
            raise UserError(f"{job.job}{TARGETS[target]}: {problems[0]}")
    paths = []
    name = f"{job.job}-search" if getattr(job, "search", None) else job.job
    for target, text in texts.items():
        paths.append(names.inside(folder, f"{name}{TARGETS[target]}"))
        storage.write_bytes(paths[-1], text.encode())
    return paths


def _files(root: Path, inside: Sequence[str]) -> Iterator[Path]:
    for name in inside:
        path = names.inside(root, name)
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        for file in files:
            hidden = any(part.startswith(".") or part == "__pycache__" for part in file.relative_to(root).parts)
            if file.is_file() and not hidden and file.suffix not in (".pyc", ".tmp"):
                yield file


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the compiler's log lines (resources have no effect here, as it likes to say), and hurries it: for each
    setting of a task KFP asks for its caller's name by `inspect.stack()`, which looks up the source of every frame and
    takes more than half of the time of compiling. `_Frames` says the same without. And each custom job goes through
    YAML three times, which libyaml reads and writes ten times sooner than Python."""
    import yaml
    from kfp.dsl import pipeline_task

    level, in_python = logging.root.manager.disable, (yaml.SafeLoader, yaml.SafeDumper)
    logging.disable(logging.WARNING)
    pipeline_task.inspect = _Frames
    if yaml.__with_libyaml__:
        yaml.SafeLoader, yaml.SafeDumper = yaml.CSafeLoader, yaml.CSafeDumper  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        pipeline_task.inspect = inspect
        yaml.SafeLoader, yaml.SafeDumper = in_python  # type: ignore[misc]
        logging.disable(level)


class _Frames:
    """What `kfp.dsl.pipeline_task` uses of `inspect`."""

    @staticmethod
    def stack() -> list[inspect.FrameInfo]:
        """The frames from the caller's outwards, with their names and no source."""
        frames, frame = [], inspect.currentframe()
        while frame is not None:
            code = frame.f_code
            frames.append(inspect.FrameInfo(frame, code.co_filename, frame.f_lineno, code.co_name, None, None))
            frame = frame.f_back
        return frames[1:]
