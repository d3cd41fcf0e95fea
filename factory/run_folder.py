"""Run folders: `runs/<pipeline>/<run id>/` with run.json, metrics.json, report.html and the artifacts of each step."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core import storage
from core.errors import UserError
from core.evaluation import METRICS, read_metrics
from core.metrics import dump
from core.names import inside, single
from core.records import or_none
from core.similar import did_you_mean
from core.storage import locks
from core.storage.locks import Holder
from factory.run_record import read_run
from factory.steps import STEPS

LOCK = "run.lock"  # held by the process that executes a run

STORE = ".store"
"""The folder of the artifacts as KFP lays them out, next to the folders of pipelines."""
LINKED_BYTES = 1 << 20  # files above this are links to the store


@dataclass
class Run:
    """One run: its folder, and the content of its run.json."""

    folder: Path
    facts: dict[str, Any] = field(repr=False)

    @property
    def id(self) -> str:
        return str(self.facts["id"])

    @property
    def status(self) -> str:
        return str(self.facts["status"])

    @property
    def steps(self) -> list[dict[str, Any]]:
        return list(self.facts["steps"])

    def step(self, name: str) -> dict[str, Any]:
        """The entry of one step.

        Raises:
            UserError: the run has no such step.
        """
        for entry in self.facts["steps"]:
            if entry["name"] == name:
                return dict(entry)
        raise UserError(f"step {name!r}: allowed in this run: {', '.join(step['name'] for step in self.steps)}")

    def update(self, name: str, **changes: Any) -> None:
        """Changes the entry of one step and writes run.json."""
        for entry in self.facts["steps"]:
            if entry["name"] == name:
                entry.update(changes)
        self.save()

    @property
    def began(self) -> bool:
        """Whether any of its steps began."""
        return bool(self.facts.get("began"))

    def begin(self, step: str) -> None:
        """Notes that a step runs. With the first one, `latest` points here unless a newer run has begun a step."""
        first = not self.began
        self.facts["began"] = True
        self.update(step, state="running")
        if not first:
            return
        root = self.folder.parent.parent
        try:
            newest = str(_read(root / "latest").facts.get("created"))
        except UserError:
            newest = ""
        if newest <= str(self.facts["created"]):
            point_latest(root, self.folder)

    def held(self) -> AbstractContextManager[int]:
        """Holds the run for this process alone, from its start to its end.

        Raises:
            LockedError: another process executes it.
        """
        return locks.held(self.folder / LOCK, f"run {self.id}")

    def save(self, **changes: Any) -> None:
        """Writes run.json, with `changes` made to it."""
        self.facts.update(changes)
        storage.write_json(self.folder / "run.json", self.facts)

    def artifacts(self) -> dict[str, dict[str, Any]]:
        """Artifacts of all finished steps by name: {"path": absolute path or None, "uri", "metadata", "step"}."""
        artifacts: dict[str, dict[str, Any]] = {}
        for entry in self.steps:
            for name, artifact in (entry.get("artifacts") or {}).items():
                path = inside(self.folder, artifact["path"]) if artifact.get("path") else None
                artifacts[name] = {**artifact, "path": path, "step": entry["name"]}
        return artifacts

    def metrics(self) -> dict[str, Any]:
        """Content of metrics.json; empty if the run was not evaluated, or with a warning if it does not parse."""
        path = self.folder / METRICS
        metrics = or_none(lambda: read_metrics(storage.read_json(path), str(path))) if path.exists() else None
        return dump(metrics or {})

    def folders(self) -> dict[str, Path | None]:
        """The folders of the artifacts that a report reads, by name."""
        from report.artifacts import FOLDERS

        artifact = {name: one["path"] for name, one in self.artifacts().items() if name in FOLDERS}
        for step in STEPS.values():
            going_on = inside(self.folder, f"steps/{step.name}")  # where a training shows what it has so far
            if step.artifact in ("model", "autoregressive") and (going_on / "train_log.jsonl").is_file():
                artifact.setdefault(step.artifact, going_on)
        return artifact

    def build_report(self) -> Path:
        """Writes report.html from what the steps left behind."""
        import report

        return report.build(self.folder / "report.html", **self.folders(), run=self.facts)

    def holder(self) -> Holder | None:
        """The living process that executes the run, None if there is none."""
        if self.status != "running":
            return None
        return locks.holder(self.folder / LOCK, Holder.parse(self.facts))


def new_run_id(job: str, now: datetime | None = None) -> str:
    """An id that sorts by time and that no other run has."""
    return f"{job}-{now or datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def new_run(root: Path, pipeline: str, job: str, steps: list[str], facts: Mapping[str, Any]) -> Run:
    """Makes the folder of a new run. `latest` points at it when its first step begins."""
    now = datetime.now(UTC)
    run_id = new_run_id(job, now)
    folder = inside(root, f"{single(pipeline, 'pipeline')}/{run_id}")
    (folder / "steps").mkdir(parents=True)
    run = Run(
        folder,
        {
            "id": run_id,
            "pipeline": pipeline,
            "job": job,
            "status": "running",
            "created": now.isoformat(timespec="seconds"),
            "seconds": 0.0,
            **Holder.here().facts(),
            **facts,
            "steps": [pending(name) for name in steps],
            "gate": None,
        },
    )
    run.save()
    return run


def pending(name: str) -> dict[str, Any]:
    """The entry of a step that has not begun."""
    return {"name": name, "state": "pending", "seconds": None, "cached": False, "error": None, "artifacts": {}}


def point_latest(root: Path, folder: Path) -> None:
    """Lets `<root>/latest` be a link to `folder`, replaced in one go; on drives without links a file with its id."""
    link = inside(root, f".latest-{secrets.token_hex(4)}")
    try:
        link.symlink_to(folder.relative_to(root), target_is_directory=True)
    except (OSError, NotImplementedError):
        storage.write_bytes(root / "latest", f"{folder.name}\n".encode())
    else:
        link.replace(root / "latest")


def list_runs(root: Path) -> list[Run]:
    """All runs below `root`, oldest first. A run.json that does not parse costs a warning and that run alone."""
    return sorted(_read_all(root), key=lambda run: (str(run.facts.get("created")), run.folder.stat().st_mtime_ns))


def find_run(root: Path, name: str) -> Run:
    """The run called `name`: an id, the beginning of one that no other shares, `latest`, or a run folder's path.

    Raises:
        UserError: there is none, or more than one.
    """
    latest = root / "latest"
    if name == "latest" and latest.is_file():  # see `point_latest`
        name = storage.read_bytes(latest, limit=1000).decode(errors="replace").strip()
    folder = latest if name == "latest" else Path(name)
    if (folder / "run.json").is_file():
        return _read(folder.resolve())
    runs = list_runs(root)
    matches = [run for run in runs if run.id == name] or [run for run in runs if run.id.startswith(name)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UserError(f"run {name!r}: {len(matches)} runs begin so: {', '.join(run.id for run in matches[:5])}")
    newest, meant = ", ".join(run.id for run in runs[-3:]) or "none", did_you_mean(name, [run.id for run in runs])
    raise UserError(f"run {name!r}: there is none in {root}; {meant}the newest: {newest}")


def unfinished_run(root: Path, job: str | None, name: str = "") -> Run:
    """The run that `--resume` goes on with.

    Args:
        root: folder of runs.
        job: whose run it is; None: any job's.
        name: of the run; left out: the newest unfinished one that began a step, else the newest unfinished one.

    Raises:
        UserError: there is none, it has ended, or another process executes it.
    """
    if name:
        run = find_run(root, name)
        if job is not None and run.facts["job"] != job:
            raise UserError(f"--resume {name}: a run of job {run.facts['job']}, not of {job}")
        if run.status == "succeeded" or len(run.steps) < 2:
            raise UserError(f"--resume {name}: run {run.id} has ended; there is nothing to go on with")
    else:
        ours = [run for run in list_runs(root) if run.facts["job"] == job]
        waiting = [run for run in ours if run.status != "succeeded" and len(run.steps) > 1]
        if not waiting:
            raise UserError(f"--resume: there is no unfinished run of {job} in {root}")
        run = ([run for run in waiting if run.began] or waiting)[-1]
    if owner := run.holder():
        raise UserError(f"run {run.id}: still running: {owner} holds it")
    return run


def place_tree(source: Path, target: Path, store: Path) -> None:
    """Puts the files of `source` (a file or a folder) at `target`, so that editing them leaves the store as it is.

    What people open and edit (metrics, descriptions, reports) is small and copied. A larger file of the store (data,
    weights) is hard-linked and read-only, else every run served from cache would cost its size again: files as large
    as MNIST's and its model's take 0.6 MB and 0.2 s so, and 61 MB and 0.6 s as copies (two busy cores). Whoever writes
    to a link all the same, as root may, is met by the cache, which verifies what it serves. Files from elsewhere are
    copied: they are not ours to lock.
    """
    pairs = [(source, target)] if source.is_file() else _pairs(source, target)
    for old, new in pairs:
        new.parent.mkdir(parents=True, exist_ok=True)
        new.unlink(missing_ok=True)
        if not (old.stat().st_size > LINKED_BYTES and old.is_relative_to(store) and _linked(old, new)):
            shutil.copyfile(old, new)  # and no more: some drives refuse to set rights and times


def _linked(old: Path, new: Path) -> bool:
    """Makes `new` another name of `old`, read-only; False where that cannot be."""
    try:
        old.chmod(old.stat().st_mode & ~0o222)
        os.link(old, new)
    except OSError:
        return False
    return True


def _pairs(source: Path, target: Path) -> Iterator[tuple[Path, Path]]:
    for path in source.rglob("*"):
        if path.is_file():
            yield path, inside(target, path.relative_to(source).as_posix())


def _read_all(root: Path) -> Iterator[Run]:
    for path in root.glob("*/*/run.json"):
        if path.parent.parent.name.startswith(".") or path.parent.parent.is_symlink():
            continue
        run = or_none(lambda folder=path.parent: _read(folder))  # type: ignore[misc]
        if run is not None:
            yield run


def _read(folder: Path) -> Run:
    facts = read_run(folder)
    run = Run(folder, facts)
    try:
        run.artifacts()  # a record that names files elsewhere is refused here, for every reader
    except (TypeError, AttributeError, KeyError, ValueError) as error:
        raise UserError(f"{folder / 'run.json'}: not the record of a run: {error}") from None
    if run.status == "running" and run.holder() is None:
        facts |= {"status": "failed", "interrupted": True}  # it was killed outright, and could not say so itself
    return run
