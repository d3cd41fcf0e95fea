"""Vertex ML Metadata: artifacts, executions, contexts and the events that join them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.cloud import aiplatform_v1 as v1
from google.longrunning import operations_pb2

from tests.fakes.vertex.errors import ServiceError, invalid, not_found
from tests.fakes.vertex.filters import listed
from tests.fakes.vertex.jobs import Numbers, now


class MetadataService:
    """One project's metadata store; `Event`s say which execution read or wrote which artifact."""

    def __init__(self, operations: Any, cache: Path) -> None:
        self._operations, self._cache = operations, cache
        self.artifacts: dict[str, v1.Artifact] = {}
        self.executions: dict[str, v1.Execution] = {}
        self.contexts: dict[str, v1.Context] = {}
        self.events: list[v1.Event] = []
        self.members: dict[str, set[str]] = {}
        self._number = Numbers(9_000_000_000_000_000_001)

    # Artifacts, executions and contexts share their life.

    def create_artifact(self, request: v1.CreateArtifactRequest) -> v1.Artifact:
        return self._create(self.artifacts, request.parent, "artifacts", request.artifact, request.artifact_id)

    def create_execution(self, request: v1.CreateExecutionRequest) -> v1.Execution:
        return self._create(self.executions, request.parent, "executions", request.execution, request.execution_id)

    def create_context(self, request: v1.CreateContextRequest) -> v1.Context:
        return self._create(self.contexts, request.parent, "contexts", request.context, request.context_id)

    def get_artifact(self, request: v1.GetArtifactRequest) -> v1.Artifact:
        return self._get(self.artifacts, request.name)

    def get_execution(self, request: v1.GetExecutionRequest) -> v1.Execution:
        return self._get(self.executions, request.name)

    def get_context(self, request: v1.GetContextRequest) -> v1.Context:
        return self._get(self.contexts, request.name)

    def list_artifacts(self, request: v1.ListArtifactsRequest) -> v1.ListArtifactsResponse:
        found, token = self._list(self.artifacts, request)
        return v1.ListArtifactsResponse(artifacts=found, next_page_token=token)

    def list_executions(self, request: v1.ListExecutionsRequest) -> v1.ListExecutionsResponse:
        found, token = self._list(self.executions, request)
        return v1.ListExecutionsResponse(executions=found, next_page_token=token)

    def list_contexts(self, request: v1.ListContextsRequest) -> v1.ListContextsResponse:
        found, token = self._list(self.contexts, request)
        return v1.ListContextsResponse(contexts=found, next_page_token=token)

    def get_metadata_store(self, request: v1.GetMetadataStoreRequest) -> v1.MetadataStore:
        return v1.MetadataStore(name=request.name, create_time=now())

    def delete_artifact(self, request: v1.DeleteArtifactRequest) -> operations_pb2.Operation:
        self._get(self.artifacts, request.name)
        del self.artifacts[request.name]
        return self._operations.done(request.name.rpartition("/metadataStores")[0], None, v1.DeleteOperationMetadata())

    def delete_execution(self, request: v1.DeleteExecutionRequest) -> operations_pb2.Operation:
        """Removes an execution, and with it what the pipelines' cache would serve."""
        execution = self._get(self.executions, request.name)
        Path(self._cache, str(dict(execution.metadata).get("cache_key") or "absent")).unlink(missing_ok=True)
        del self.executions[request.name]
        self.events = [event for event in self.events if event.execution != request.name]
        return self._operations.done(request.name.rpartition("/metadataStores")[0], None, v1.DeleteOperationMetadata())

    # Joining them.

    def add_context_artifacts_and_executions(
        self, request: v1.AddContextArtifactsAndExecutionsRequest
    ) -> v1.AddContextArtifactsAndExecutionsResponse:
        self._get(self.contexts, request.context)
        for name in request.artifacts:
            self._get(self.artifacts, name)
        for name in request.executions:
            self._get(self.executions, name)
        self.members.setdefault(request.context, set()).update([*request.artifacts, *request.executions])
        return v1.AddContextArtifactsAndExecutionsResponse()

    def add_context_children(self, request: v1.AddContextChildrenRequest) -> v1.AddContextChildrenResponse:
        parent = self._get(self.contexts, request.context)
        for name in request.child_contexts:
            child = self._get(self.contexts, name)
            if parent.name not in child.parent_contexts:
                child.parent_contexts.append(parent.name)
        return v1.AddContextChildrenResponse()

    def add_execution_events(self, request: v1.AddExecutionEventsRequest) -> v1.AddExecutionEventsResponse:
        self._get(self.executions, request.execution)
        for event in request.events:
            self._get(self.artifacts, event.artifact)
            self.events.append(
                v1.Event(artifact=event.artifact, execution=request.execution, type_=event.type_, event_time=now())
            )
        return v1.AddExecutionEventsResponse()

    def query_artifact_lineage_subgraph(self, request: v1.QueryArtifactLineageSubgraphRequest) -> v1.LineageSubgraph:
        """Everything within `max_hops` events of an artifact, in both directions."""
        self._get(self.artifacts, request.artifact)
        hops = request.max_hops if "max_hops" in request and request.max_hops >= 0 else 1 << 30
        reached, events = {request.artifact}, []
        for _ in range(min(hops, 2 * len(self.events) + 1)):
            new = [e for e in self.events if e not in events and (e.artifact in reached or e.execution in reached)]
            if not new:
                break
            events += new
            reached.update(name for e in new for name in (e.artifact, e.execution))
        return v1.LineageSubgraph(
            artifacts=[a for name, a in self.artifacts.items() if name in reached],
            executions=[e for name, e in self.executions.items() if name in reached],
            events=events,
        )

    def query_execution_inputs_and_outputs(
        self, request: v1.QueryExecutionInputsAndOutputsRequest
    ) -> v1.LineageSubgraph:
        execution = self._get(self.executions, request.execution)
        events = [e for e in self.events if e.execution == execution.name]
        names = {e.artifact for e in events}
        return v1.LineageSubgraph(
            artifacts=[a for name, a in self.artifacts.items() if name in names], executions=[execution], events=events
        )

    def query_context_lineage_subgraph(self, request: v1.QueryContextLineageSubgraphRequest) -> v1.LineageSubgraph:
        self._get(self.contexts, request.context)
        members = self.members.get(request.context, set())
        return v1.LineageSubgraph(
            artifacts=[a for name, a in self.artifacts.items() if name in members],
            executions=[e for name, e in self.executions.items() if name in members],
            events=[e for e in self.events if e.execution in members],
        )

    def _create(self, store: dict[str, Any], parent: str, noun: str, message: Any, identity: str) -> Any:
        message.name = f"{parent}/{noun}/{identity or self._number()}"
        if message.name in store:
            raise ServiceError("ALREADY_EXISTS", f"{message.name} already exists.")
        if noun != "contexts" and message.schema_title and not message.schema_title.count("."):
            raise invalid(f"schema_title {message.schema_title!r} is not known.")
        message.create_time = message.update_time = now()
        store[message.name] = message
        return message

    @staticmethod
    def _get(store: dict[str, Any], name: str) -> Any:
        if name not in store:
            raise not_found(name)
        return store[name]

    def _list(self, store: dict[str, Any], request: Any) -> tuple[list[Any], str]:
        functions = {"in_context": lambda m, context: m.name in self.members.get(context, set())}
        return listed(store.values(), request, functions=functions, largest=1000)
