"""From an artifact back to what it was made of, by the lineage that every step writes on its outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.step import content_hash
from core.errors import UserError
from factory.registry import Registry
from factory.run_folder import Run, find_run, list_runs

Node = dict[str, Any]
Index = Mapping[str, tuple[Run, str, str, Mapping[str, Any]]]  # URI -> run, step, name, metadata
FACTS = (
    "config_hash", "config", "data_hash", "code_version", "image", "seed", "examples_seen",
    "effective_batch_size", "device", "weights_sha256", "data_fingerprint", "source", "model_name", "version",
)  # fmt: skip
MAIN = {
    "prepare-data": "dataset", "train-judge": "judge", "train": "model", "train-diffusion": "model",
    "train-autoregressive": "autoregressive", "sample": "samples", "evaluate": "evaluation", "gate": "verdict",
    "register": "registered", "keep": "kept", "import-model": "model",
}  # fmt: skip


def trace(name: str, runs: Path, registry: str) -> Node:
    """The tree of what an artifact was made of.

    Args:
        name: RUN/STEP, RUN/ARTIFACT, a path in a run folder, or MODEL@VERSION.
        runs: folder of runs.
        registry: model registry.

    Returns:
        {"artifact", "run", "step", "uri", "hash", facts..., "parents": [nodes]}

    Raises:
        UserError: there is no such artifact.
    """
    found = list_runs(runs)
    index = _index(found)
    if "@" in name and "/" not in name:
        version = Registry(registry).resolve(name)
        parents = [_node(part, uri, index, ()) for part, uri in dict(version.lineage.get("parents", {})).items()]
        facts = {key: version.lineage[key] for key in FACTS if key in version.lineage}
        return {
            "artifact": f"{version.model}@{version.version}",
            "run": version.lineage.get("run"),
            "step": "register",
            "uri": version.uri,
            "hash": version.weights_sha256,
            **facts,
            "parents": parents,
        }
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
    artifacts = run.artifacts()
    artifact = part if part in artifacts else MAIN.get(part, "")
    if artifact not in artifacts:
        raise UserError(f"{run.id}: has no artifact {part!r}; there are: {', '.join(artifacts) or 'none yet'}")
    return run, artifact


def _index(runs: list[Run]) -> Index:
    """Which run made the artifact at which URI. Of runs that share it through the cache the first made it."""
    index: dict[str, tuple[Run, str, str, Mapping[str, Any]]] = {}
    for run in runs:
        for name, artifact in run.artifacts().items():
            index.setdefault(artifact["uri"], (run, artifact["step"], name, artifact["metadata"]))
    return index


def _node(
    name: str, uri: str, index: Mapping[str, tuple[Run, str, str, Mapping[str, Any]]], seen: tuple[str, ...]
) -> Node:
    if uri not in index or uri in seen:
        return {"artifact": name, "run": None, "step": None, "uri": uri, "hash": "", "parents": []}
    run, step, own_name, metadata = index[uri]
    parents = json.loads(metadata.get("parents") or "{}")
    return {
        "artifact": own_name,
        "run": run.id,
        "step": step,
        "uri": uri,
        "hash": content_hash(metadata),
        **{key: metadata[key] for key in FACTS if key in metadata},
        "parents": [_node(parent, facts["uri"], index, (*seen, uri)) for parent, facts in parents.items()],
    }
