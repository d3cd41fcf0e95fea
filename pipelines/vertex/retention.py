"""What may be removed from the bucket on Vertex AI.

A run's metadata is removed with its files: otherwise later runs would be served artifacts that are gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipelines import retention
from pipelines.retention import Candidate, Folder, Past
from pipelines.vertex.client import Vertex, one_line
from pipelines.vertex.monitor import view
from pipelines.vertex.submit import list_runs

_BESIDE = ("work", "tensorboard")  # folders of the bucket that hold one folder for each training
_MANY = 10_000


def candidates(vertex: Vertex, registry: str, days: float) -> list[Candidate]:
    """All runs in the cloud with what speaks for keeping each.

    Args:
        vertex: the services.
        registry: whose versions keep the runs that they came from.
        days: younger runs stay.
    """
    messages = {_id(run): run for run in list_runs(vertex, limit=_MANY)}
    shown = {name: view(run, {}) for name, run in messages.items()}
    runs = [Past(name, name, shown[name].state, run.create_time) for name, run in messages.items()]
    kept = retention.reasons(runs, registry, days, lambda run: set(_uris(shown[run.identity])))
    found = []
    for name, run in messages.items():
        places = _places(run)
        with one_line("gc"):
            sizes = {blob.name: blob.size or 0 for blob in _blobs(vertex, places)}
        found.append(Candidate(name, _pipeline(run), run.create_time, sum(sizes.values()), len(sizes),
                               kept.get(name, ""), places))  # fmt: skip
    for kind in _BESIDE:
        folders: dict[str, Folder] = {}
        with one_line("gc"):
            for blob in _blobs(vertex, (f"{kind}/",)):
                folders.setdefault(blob.name.split("/")[1], Folder()).add(blob.size or 0, blob.updated)
        found += retention.beside(kind, kind, folders, runs, days)
    return found


def remove(vertex: Vertex, candidate: Candidate) -> None:
    """Removes a run: first its metadata, so that no cache serves it, then its files, then the run itself. What is
    beside runs has only files."""
    from google.api_core.exceptions import NotFound

    if candidate.beside:
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


def _uris(shown: Any) -> Iterator[str]:
    for step in shown.steps:
        yield from (artifact["uri"] for artifact in step.artifacts.values())


def _id(run: Any) -> str:
    return str(run.name.rsplit("/", 1)[1])


def _pipeline(run: Any) -> str:
    return str(run.runtime_config.gcs_output_directory.split("/")[3])
