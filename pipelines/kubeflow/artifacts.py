"""What a run on Kubeflow left in its pipeline root, as a run folder that the same commands read.

    ROOT/<pipeline>/<the server's id of the run>/<step>/<a number>/<artifact>     as KFP's driver lays it out

Only the setting `kubeflow_root` says where ROOT is: the API tells of no artifacts. What a step took from the cache is
in the folder of the run that made it, and is not listed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core import storage
from core.config import config_hash
from core.errors import UserError
from core.names import inside, single
from factory.lineage import Node, node, restore_ints, version_of
from factory.run_folder import Run
from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.runs import find, spec_of
from pipelines.views import ENDED, Step, View

_NUMBER = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_KFP = ("executor-logs",)  # artifacts that KFP adds


def facts(cluster: Cluster, shown: View) -> dict[str, Any]:
    """run.json of a run, made from what the server and the pipeline root know now."""
    run = find(cluster, shown.identity)
    pipeline = str(spec_of(run).get("pipelineInfo", {}).get("name", ""))
    parameters = restore_ints((run.runtime_config and run.runtime_config.parameters) or {})
    root = run.runtime_config.pipeline_root if run.runtime_config else None
    made = _made(inside(str(root), f"{pipeline}/{shown.identity}")) if root and pipeline else {}
    record = {
        "id": shown.run,
        "pipeline": pipeline,
        "job": shown.job,
        "status": shown.state if shown.state in ENDED else "running",
        "created": shown.created.isoformat(timespec="seconds") if shown.created else None,
        "seconds": round(shown.seconds, 3),
        "runner": "kubeflow",
        "config": parameters,
        "config_hash": config_hash(parameters),
        "parents": [],
        "steps": [_entry(step, made.get(step.name, {})) for step in shown.steps],
        "gate": _gate(made.get("gate", {})),
    }
    return record | ({"usd": round(shown.usd, 4)} if shown.usd is not None else {})


def peek(cluster: Cluster, shown: View, scratch: Path) -> Run:
    """A run as a folder that holds run.json and metrics.json only: enough to show and to compare it."""
    record = facts(cluster, shown)
    for step in record["steps"]:
        uri = step["artifacts"].get("evaluation", {}).get("uri")
        if uri and storage.exists(storage.join(uri, "metrics.json")):
            storage.write_bytes(scratch / "metrics.json", storage.read_bytes(storage.join(uri, "metrics.json")))
    storage.write_json(scratch / "run.json", record)
    return Run(scratch, record)


def download(cluster: Cluster, shown: View, target: Path, tell: Any) -> Run:
    """Copies a run's artifacts into the folder `target`, laid out as a local run.

    Raises:
        UserError: its pipeline root is not known or has nothing of it, or a file does not arrive whole.
    """
    record = facts(cluster, shown)
    if not any(step["artifacts"] for step in record["steps"]):
        raise UserError(f"run {shown.run}: no artifacts to be seen; set `kubeflow_root` before a run is started, and"
                        " give this account read rights to it")  # fmt: skip
    for step in record["steps"]:
        folder = inside(target, f"steps/{single(step['name'], shown.run)}")
        for name, artifact in step["artifacts"].items():
            count = len(storage.list_files(artifact["uri"]))
            if count:
                storage.copy_tree(artifact["uri"], folder)
            else:
                storage.write_bytes(inside(folder, name), storage.read_bytes(artifact["uri"]))
            artifact["path"] = f"steps/{step['name']}" if count else f"steps/{step['name']}/{name}"
            tell(f"{step['name']}/{name}: {count or 1} files")
    for source, name in (("metrics.json", "metrics.json"), ("report", "report.html")):
        path = inside(target, f"steps/evaluate/{source}")
        if path.is_file():
            storage.write_bytes(inside(target, name), path.read_bytes())
    storage.write_json(target / "run.json", record)
    return Run(target, record)


def trace(cluster: Cluster, name: str) -> Node:
    """What a registered version was made of, by what the registry keeps.

    Raises:
        UserError: `name` is not MODEL@VERSION, or there is no such version.
    """
    registered = version_of(name, cluster.settings.registry)
    if registered is None:
        raise UserError(f"{name}: on Kubeflow lineage begins at a registered version: MODEL@VERSION; of a run's own"
                        " artifacts its page tells")  # fmt: skip
    version, parents = registered
    return {**version, "parents": [node(part, None, None, str(uri), {}, []) for part, uri in parents.items()]}


def _made(folder: str) -> dict[str, dict[str, str]]:
    """URI of each artifact below a run's folder, by step and name."""
    found: dict[str, dict[str, str]] = {}
    for file in storage.list_files(folder):
        for step, name, place in _parts(file):
            found.setdefault(step, {})[name] = inside(folder, place)
    return found


def _parts(file: str) -> Iterator[tuple[str, str, str]]:
    step, _, rest = file.partition("/")
    number, _, inner = rest.partition("/")
    numbered = _NUMBER.fullmatch(number) is not None
    name = (inner if numbered else rest).partition("/")[0]
    if name and name not in _KFP:
        yield step, name, f"{step}/{number}/{name}" if numbered else f"{step}/{name}"


def _entry(step: Step, made: dict[str, str]) -> dict[str, Any]:
    return {
        "name": step.name,
        "state": step.state,
        "seconds": round(step.seconds, 3),
        "cached": step.state == "cached",
        "error": step.error or None,
        "artifacts": {name: {"path": None, "uri": uri, "metadata": {}} for name, uri in made.items()},
    }


def _gate(made: dict[str, str]) -> dict[str, Any] | None:
    uri = made.get("verdict")
    try:
        return dict(storage.read_json(storage.join(uri, "verdict.json"))) if uri else None
    except UserError:
        return None
