"""What may be removed from the bucket: old runs that nothing refers to, and what trainings left next to them.

A run stays when it is young, still runs, was registered as a version, or made what a run that stays took from the
cache. A run's metadata is removed with its files: otherwise later runs would be served artifacts that are gone.
Checkpoints and curves of a training stay while they are young, and while any run is going on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from factory.registry import Registry
from pipelines.vertex.client import Vertex, one_line
from pipelines.vertex.monitor import view
from pipelines.vertex.submit import list_runs
from pipelines.views import ENDED

BESIDE = ("work", "tensorboard")  # folders of the bucket that hold one folder for each training
_MANY = 10_000


@dataclass(frozen=True)
class Candidate:
    """A run, or what a training left beside runs, and why it stays; an empty reason: it may go."""

    run: str
    pipeline: str
    created: datetime
    bytes: int
    files: int
    reason: str
    places: tuple[str, ...] = ()
    """Prefixes in the bucket that are the run's own."""


def candidates(vertex: Vertex, registry: str, days: float) -> list[Candidate]:
    """All runs in the cloud with what speaks for keeping each.

    Args:
        vertex: the services.
        registry: whose versions keep the runs that they came from.
        days: younger runs stay.
    """
    runs = list_runs(vertex, limit=_MANY)
    oldest = datetime.now(UTC) - timedelta(days=days)
    shown = {run.name: view(run, {}) for run in runs}
    registered, unreadable = _registered(registry)
    reasons: dict[str, str] = {}
    for run in runs:
        name, state = _id(run), shown[run.name].state
        if state not in ENDED:
            reasons[name] = f"is {state}"
        elif run.create_time > oldest:
            reasons[name] = f"is younger than {days:g} days"
        elif any(f"/{name}/" in uri for uri in registered) or name in registered:
            reasons[name] = "is where a registered version comes from"
        elif unreadable:
            reasons[name] = f"may be where {unreadable[0]} comes from, whose manifest cannot be read"
    # What a run that stays took from the cache keeps the run that made it, and so on.
    while True:
        used = {uri for run in runs if _id(run) in reasons for uri in _uris(shown[run.name])}
        more = {_id(run) for run in runs if any(f"/{_id(run)}/" in uri for uri in used)} - set(reasons)
        if not more:
            break
        reasons |= dict.fromkeys(more, "made what a later run uses")
    deletable = []
    for run in runs:
        pipeline = _pipeline(run)
        places = _places(run)
        with one_line("gc"):
            sizes = {blob.name: blob.size or 0 for blob in _blobs(vertex, places)}
        reason = reasons.get(_id(run), "")
        deletable.append(
            Candidate(_id(run), pipeline, run.create_time, sum(sizes.values()), len(sizes), reason, places)
        )
    busy = any(view_of.state not in ENDED for view_of in shown.values())
    return deletable + list(_beside(vertex, oldest, days, busy))


def _beside(vertex: Vertex, oldest: datetime, days: float, busy: bool) -> Iterator[Candidate]:
    """What trainings left below work/ and tensorboard/, a folder each; its age is that of its newest file."""
    for kind in BESIDE:
        folders: dict[str, list[Any]] = {}
        with one_line("gc"):
            for blob in _blobs(vertex, (f"{kind}/",)):
                folders.setdefault(blob.name.split("/")[1], []).append(blob)
        for name, blobs in folders.items():
            newest = max(blob.updated for blob in blobs)
            young = f"is younger than {days:g} days" if newest > oldest else ""
            reason = young or ("a run is going on" if busy else "")
            size = sum(blob.size or 0 for blob in blobs)
            yield Candidate(f"{kind}/{name}", kind, newest, size, len(blobs), reason, (f"{kind}/{name}/",))


def remove(vertex: Vertex, candidate: Candidate) -> None:
    """Removes a run: first its metadata, so that no cache serves it, then its files, then the run itself. What is
    beside runs has only files."""
    from google.api_core.exceptions import NotFound

    if candidate.pipeline in BESIDE:
        with one_line(f"gc {candidate.run}"):
            _delete_files(vertex, candidate)
        return
    parent = vertex.project.parent
    store = f"{parent}/metadataStores/default"
    with one_line(f"gc {candidate.run}"):
        context = f"{store}/contexts/{candidate.run}"
        try:
            graph = vertex.metadata.query_context_lineage_subgraph(context=context)
        except NotFound:
            graph = None
        for execution in graph.executions if graph else []:
            vertex.metadata.delete_execution(name=execution.name).result(timeout=120)
        for artifact in graph.artifacts if graph else []:
            if f"/{candidate.run}/" in artifact.uri:
                vertex.metadata.delete_artifact(name=artifact.name).result(timeout=120)
        _delete_files(vertex, candidate)
        vertex.pipelines.delete_pipeline_job(name=f"{parent}/pipelineJobs/{candidate.run}").result(timeout=120)


def _delete_files(vertex: Vertex, candidate: Candidate) -> None:
    for blob in {blob.name: blob for blob in _blobs(vertex, candidate.places)}.values():
        blob.delete()


def _places(run: Any) -> tuple[str, ...]:
    """The run's folder; and for one that a schedule started, its folder among those of its siblings."""
    root = "/".join(run.runtime_config.gcs_output_directory.split("/")[3:])
    return f"{_pipeline(run)}/{_id(run)}/", f"{root}/{run.name.split('/')[1]}/{_id(run)}/"


def _blobs(vertex: Vertex, places: tuple[str, ...]) -> Iterator[Any]:
    for prefix in places:
        yield from vertex.buckets.list_blobs(vertex.bucket(vertex.project.bucket), prefix=prefix)


def _registered(registry: str) -> tuple[set[str], list[str]]:
    """Runs and artifacts that registered versions come from; and the versions that do not say, as they do not parse."""
    store, names, unreadable = Registry(registry), set(), []
    for model in store.models():
        versions = store.versions(model)
        for version in versions:
            names |= {version.lineage.get("run") or "", *version.lineage.get("parents", {}).values()}
        unreadable += store.unreadable(model, versions)
    return names, unreadable


def _uris(shown: Any) -> Iterator[str]:
    for step in shown.steps:
        yield from (artifact["uri"] for artifact in step.artifacts.values())


def _id(run: Any) -> str:
    return str(run.name.rsplit("/", 1)[1])


def _pipeline(run: Any) -> str:
    return str(run.runtime_config.gcs_output_directory.split("/")[3])
