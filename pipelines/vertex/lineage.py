"""From an artifact back to its data, by Vertex ML Metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.errors import UserError
from factory.lineage import Node, artifact_named, node, restore_ints, run_of, version_of
from pipelines.vertex.client import Vertex, one_line
from pipelines.vertex.monitor import plain, view
from pipelines.vertex.submit import get_run


def trace(vertex: Vertex, name: str, registry: str) -> Node:
    """The tree of what an artifact was made of.

    Args:
        vertex: the services.
        name: a gs:// URI, RUN/STEP, RUN/ARTIFACT, or MODEL@VERSION.
        registry: where registered models are.

    Raises:
        UserError: Vertex ML Metadata has no such artifact.
    """
    registered = version_of(name, registry)
    if registered is not None:
        version, parents = registered
        in_cloud = [uri for uri in parents.values() if str(uri).startswith("gs://")]
        return {**version, "parents": [trace(vertex, uri, registry) for uri in in_cloud]}
    uri = name.rstrip("/") if name.startswith("gs://") else _uri(vertex, name)
    store = f"{vertex.project.parent}/metadataStores/default"
    with one_line(f"lineage of {name}"):
        matches = list(vertex.metadata.list_artifacts(request={"parent": store, "filter": f'uri="{uri}"'}))
        if not matches:
            raise UserError(f"{name}: Vertex ML Metadata has no artifact at {uri}")
        # Of several records of one URI the first is the step's own; later ones are importers'.
        start = min(matches, key=lambda artifact: artifact.create_time)
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
    metadata: Mapping[str, Any] = restore_ints(plain(artifact.metadata or {}))
    maker = graph.maker.get(name, "")
    inputs = [i for i in graph.inputs.get(maker, []) if i in graph.artifacts and i not in (*seen, name)]
    step = graph.executions[maker].display_name if maker else None
    parents = [_node(parent, graph, (*seen, name)) for parent in inputs]
    return node(artifact.display_name, run_of(artifact.uri) or None, step, artifact.uri, metadata, parents)


def _uri(vertex: Vertex, name: str) -> str:
    run, _, part = name.rpartition("/")
    if not run:
        raise UserError(f"{name}: expected RUN/STEP, RUN/ARTIFACT, a gs:// URI, or MODEL@VERSION")
    shown = view(get_run(vertex, run), {})
    artifacts = {key: uri for step in shown.steps for key, uri in step.artifacts.items()}
    return str(artifacts[artifact_named(part, artifacts, shown.run)]["uri"])
