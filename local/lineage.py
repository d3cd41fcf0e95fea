"""From an artifact of a run here back to what it was made of, by the lineage that every step writes on its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.records import or_none, parse_parents
from factory.lineage import Node, artifact_named, node, version_of
from factory.run_folder import Run, find_run, list_runs

Index = Mapping[str, tuple[Run, str, str, Mapping[str, Any]]]  # URI -> run, step, name, metadata


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
        return {**version, "parents": [_node(part, uri, index, ()) for part, uri in parents.items()]}
    run, artifact = _find(name, runs)
    return _node(artifact, run.artifacts()[artifact]["uri"], index, ())


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


def _index(runs: list[Run]) -> Index:
    """Which run made the artifact at which URI. Of runs that share it through the cache the first made it."""
    index: dict[str, tuple[Run, str, str, Mapping[str, Any]]] = {}
    for run in runs:
        for name, artifact in run.artifacts().items():
            index.setdefault(artifact["uri"], (run, artifact["step"], name, artifact["metadata"]))
    return index


def _node(name: str, uri: str, index: Index, seen: tuple[str, ...]) -> Node:
    if uri not in index or uri in seen:
        return node(name, None, None, uri, {}, [])
    run, step, own_name, metadata = index[uri]
    parents = or_none(lambda: parse_parents(metadata.get("parents"), f"{run.id}: {own_name}")) or {}
    made_of = [_node(parent, artifact.uri, index, (*seen, uri)) for parent, artifact in parents.items()]
    return node(own_name, run.id, step, uri, metadata, made_of)
