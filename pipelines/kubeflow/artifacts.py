"""What a run on Kubeflow left in its pipeline root, as a run folder that the same commands read.

    ROOT/<pipeline>/<the server's id of the run>/<step>/<a number>/<artifact>     as KFP's driver lays it out

The API tells of no artifacts. ML Metadata does, and what steps stated of them: also of those from the cache, which are
in the folder of the run that made them. Where it is not to be had, the setting `kubeflow_root` says where ROOT is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core import storage
from core.errors import UserError
from core.names import inside, single
from factory.lineage import IN_PIPELINE_ROOT, Made, Node, artifact_named, grow, restore_ints, version_of
from factory.run_folder import Run
from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.metadata import of_run, stated
from pipelines.kubeflow.runs import find, spec_of
from pipelines.record import downloaded, record
from pipelines.views import View

_NUMBER = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_KFP = ("executor-logs",)  # artifacts that KFP adds


def facts(cluster: Cluster, shown: View) -> dict[str, Any]:
    """run.json of a run, made from what the server and the pipeline root know now."""
    run = find(cluster, shown.identity)
    pipeline = str(spec_of(run).get("pipelineInfo", {}).get("name", ""))
    parameters = restore_ints((run.runtime_config and run.runtime_config.parameters) or {})
    made, known = artifacts_of(cluster, run)
    artifacts = {
        step: {name: {"uri": uri, "metadata": known.get(uri, {})} for name, uri in uris.items()}
        for step, uris in made.items()
    }
    return record(shown, "kubeflow", pipeline, parameters, artifacts)


def download(cluster: Cluster, shown: View, target: Path, tell: Any) -> Run:
    """Copies a run's artifacts into the folder `target`, laid out as a local run.

    Raises:
        UserError: its pipeline root is not known or has nothing of it, or a file does not arrive whole.
    """
    found = facts(cluster, shown)
    if not any(step["artifacts"] for step in found["steps"]):
        raise UserError(f"run {shown.run}: no artifacts to be seen; set `kubeflow_root` before a run is started, or"
                        " kubeflow_host to the pages, svc/ml-pipeline-ui")  # fmt: skip
    for step in found["steps"]:
        folder = inside(target, f"steps/{single(step['name'], shown.run)}")
        for name, artifact in step["artifacts"].items():
            count = len(storage.list_files(artifact["uri"]))
            if count:
                storage.copy_tree(artifact["uri"], folder)
            else:
                storage.write_bytes(inside(folder, name), storage.read_bytes(artifact["uri"]))
            artifact["path"] = f"steps/{step['name']}" if count else f"steps/{step['name']}/{name}"
            tell(f"{step['name']}/{name}: {count or 1} files")
    return downloaded(found, target)


def trace(cluster: Cluster, name: str) -> Node:
    """The tree of what an artifact was made of, by what ML Metadata and the registry keep.

    Args:
        cluster: the installation.
        name: a URI, RUN/STEP, RUN/ARTIFACT, or MODEL@VERSION.

    Raises:
        UserError: there is no such artifact, or nothing tells of it.
    """
    look = _Look(cluster)
    registered = version_of(name, cluster.settings.registry)
    if registered is not None:
        version, parents = registered
        return {**version, "parents": [grow(part, uri, look.or_nothing) for part, uri in parents.items()]}
    uri = name.rstrip("/") if storage.is_remote(name) else _uri(cluster, name)
    if look(uri) is None:
        raise UserError(f"{name}: ML Metadata has no artifact at {uri}")
    return grow(name, uri, look)


class _Look:
    """What is known of the artifact at a URI: where it lies says its run and step, ML Metadata the rest."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._known: dict[str, dict[str, Any]] = {}
        self._runs: dict[str, str] = {}

    def __call__(self, uri: str) -> Made | None:
        where = IN_PIPELINE_ROOT.search(uri)
        if where is None:
            return None
        if uri not in self._known:
            self._known |= {uri: {}, **stated(self._cluster, [uri])}
        run, step, name = where.groups()
        return (self._name(run), step, name, self._known[uri]) if self._known[uri] else None

    def or_nothing(self, uri: str) -> Made | None:
        """The same; nothing where ML Metadata is not to be had."""
        try:
            return self(uri)
        except UserError:
            return None

    def _name(self, run: str) -> str:
        if run not in self._runs:
            try:
                self._runs[run] = str(find(self._cluster, run).display_name)
            except UserError:  # it was deleted
                self._runs[run] = run
        return self._runs[run]


def _uri(cluster: Cluster, name: str) -> str:
    run, _, part = name.rpartition("/")
    if not run:
        raise UserError(f"{name}: expected RUN/STEP, RUN/ARTIFACT, a URI, or MODEL@VERSION")
    message = find(cluster, run)
    artifacts = {key: uri for made in artifacts_of(cluster, message)[0].values() for key, uri in made.items()}
    return artifacts[artifact_named(part, artifacts, str(message.display_name))]


def artifacts_of(cluster: Cluster, run: Any) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, Any]]]:
    """(URI of each artifact of a run by step and name, metadata by URI): what is in its folder, if its pipeline root is
    known, and what ML Metadata has of it, if that is to be had: also what it took from the cache."""
    folder = folder_of(run)
    made = _made(folder) if folder else {}
    try:
        known = of_run(cluster, str(run.run_id))
    except UserError:
        known = {}
    for uri in known:
        if where := IN_PIPELINE_ROOT.search(uri):
            made.setdefault(where[2], {}).setdefault(where[3], uri)
    return made, known


def folder_of(run: Any) -> str:
    """Where the artifacts of a run are; empty where its pipeline root is not known."""
    root = run.runtime_config.pipeline_root if run.runtime_config else None
    pipeline = str(spec_of(run).get("pipelineInfo", {}).get("name", ""))
    return inside(str(root), f"{pipeline}/{run.run_id}") if root and pipeline else ""


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
