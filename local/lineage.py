"""From an artifact of a run here back to what it was made of, by the lineage that every step writes on its outputs."""

from __future__ import annotations

from pathlib import Path

from core.errors import UserError
from factory.lineage import Made, Node, artifact_named, grow, version_of
from factory.run_folder import Run, find_run, list_runs


def trace(name: str, runs: Path, registry: str) -> Node:
    """The tree of what an artifact was made of.

    Args:
        name: RUN/STEP, RUN/ARTIFACT, a path in a run folder, or MODEL@VERSION.
        runs: folder of runs.
        registry: model registry.

    Raises:
        UserError: there is no such artifact.
    """
    index = _index(list_runs(runs))
    registered = version_of(name, registry)
    if registered is not None:
        version, parents = registered
        return {**version, "parents": [grow(part, uri, index.get) for part, uri in parents.items()]}
    run, artifact = _find(name, runs)
    return grow(artifact, run.artifacts()[artifact]["uri"], index.get)


def _find(name: str, runs: Path) -> tuple[Run, str]:
    path = Path(name)
    for folder in (path, *path.parents):
        if (folder / "run.json").is_file() and path.exists():
            inner = path.resolve().relative_to(folder.resolve()).parts
            if len(inner) < 2 or inner[0] != "steps":
                raise UserError(f"{name}: expected a path below steps/ of a run, for example {folder}/steps/sample")
            return _in_run(find_run(runs, str(folder)), inner[1])
    run_name, _, part = name.rpartition("/")
    if not run_name:
        raise UserError(f"{name}: expected RUN/STEP, RUN/ARTIFACT, a path in a run folder, or MODEL@VERSION")
    return _in_run(find_run(runs, run_name), part)


def _in_run(run: Run, part: str) -> tuple[Run, str]:
    return run, artifact_named(part, run.artifacts(), run.id)


def _index(runs: list[Run]) -> dict[str, Made]:
    """Which run made the artifact at which URI. Of runs that share it through the cache the first made it."""
    index: dict[str, Made] = {}
    for run in runs:
        for name, artifact in run.artifacts().items():
            index.setdefault(artifact["uri"], (run.id, artifact["step"], name, artifact["metadata"]))
    return index
