"""From an artifact back to its data, by Vertex ML Metadata: the same tree as `local.lineage` makes of run folders."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from components.step import content_hash, whole
from core.errors import UserError
from factory.registry import Registry
from local.lineage import FACTS, MAIN, Node
from pipelines.vertex.client import Vertex, one_line
from pipelines.vertex.monitor import plain, view
from pipelines.vertex.submit import get_run

_RUN = re.compile(r"/\d+/([a-z][-a-z0-9]*)/[^/]+_-?\d+/")  # .../PROJECT NUMBER/RUN/TASK_-ID/...


def trace(vertex: Vertex, name: str, registry: str) -> Node:
    """The tree of what an artifact was made of.

    Args:
        vertex: the services.
        name: a gs:// URI, RUN/STEP, RUN/ARTIFACT, or MODEL@VERSION.
        registry: where registered models are.

    Raises:
        UserError: Vertex ML Metadata has no such artifact.
    """
    if "@" in name and "/" not in name:
        version = Registry(registry).resolve(name)
        parents = dict(version.lineage.get("parents", {}))
        nodes = [trace(vertex, uri, registry) for uri in parents.values() if str(uri).startswith("gs://")]
        known = {key: version.lineage[key] for key in FACTS if key in version.lineage}
        return {
            "artifact": f"{version.model}@{version.version}",
            "run": version.lineage.get("run") or None,
            "step": "register",
            "uri": version.uri,
            "hash": version.weights_sha256,
            **known,
            "parents": nodes,
        }
    uri = name.rstrip("/") if name.startswith("gs://") else _uri(vertex, name)
    store = f"{vertex.project.parent}/metadataStores/default"
    with one_line(f"lineage of {name}"):
        found = list(vertex.metadata.list_artifacts(request={"parent": store, "filter": f'uri="{uri}"'}))
        if not found:
            raise UserError(f"{name}: Vertex ML Metadata has no artifact at {uri}")
        # Of several records of one URI the first is the step's own; later ones are importers'.
        start = min(found, key=lambda artifact: artifact.create_time)
        graph = vertex.metadata.query_artifact_lineage_subgraph(request={"artifact": start.name, "max_hops": 100})
    return _node(start.name, _Graph(graph), ())


class _Graph:
    """A lineage subgraph with its edges indexed."""

    def __init__(self, graph: Any) -> None:
        self.artifacts = {artifact.name: artifact for artifact in graph.artifacts}
        self.executions = {execution.name: execution for execution in graph.executions}
        self.maker: dict[str, str] = {}
        self.inputs: dict[str, list[str]] = {}
        for event in graph.events:
            execution = self.executions.get(event.execution)
            if event.type_.name == "OUTPUT" and execution is not None and execution.state.name != "CACHED":
                self.maker.setdefault(event.artifact, event.execution)
            elif event.type_.name == "INPUT":
                self.inputs.setdefault(event.execution, []).append(event.artifact)


def _node(name: str, graph: _Graph, seen: tuple[str, ...]) -> Node:
    artifact = graph.artifacts[name]
    metadata: Mapping[str, Any] = whole(plain(artifact.metadata or {}))
    maker = graph.maker.get(name, "")
    inputs = [i for i in graph.inputs.get(maker, []) if i in graph.artifacts and i not in (*seen, name)]
    run = _RUN.search(artifact.uri)
    return {
        "artifact": artifact.display_name,
        "run": run[1] if run else None,
        "step": graph.executions[maker].display_name if maker else None,
        "uri": artifact.uri,
        "hash": content_hash(metadata),
        **{key: metadata[key] for key in FACTS if key in metadata},
        "parents": [_node(parent, graph, (*seen, name)) for parent in inputs],
    }


def _uri(vertex: Vertex, name: str) -> str:
    run, _, part = name.rpartition("/")
    if not run:
        raise UserError(f"{name}: expected RUN/STEP, RUN/ARTIFACT, a gs:// URI, or MODEL@VERSION")
    shown = view(get_run(vertex, run), {})
    artifacts = {key: found for step in shown.steps for key, found in step.artifacts.items()}
    key = part if part in artifacts else MAIN.get(part, "")
    if key not in artifacts:
        raise UserError(f"{shown.run}: has no artifact {part!r}; there are: {', '.join(artifacts) or 'none yet'}")
    return str(artifacts[key]["uri"])
