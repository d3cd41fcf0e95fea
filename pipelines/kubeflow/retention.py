"""What may be removed on Kubeflow: old runs with their files in the pipeline root, and checkpoints of trainings.

With a run its server removes what its cache knows of it, so that no later run is served files that are gone; then its
files follow. A record in the registry's bucket lets a removal that was cut be finished by the next one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from typing import Any

from core import storage
from core.errors import UserError
from core.names import inside
from core.records import or_none, parse_parents
from core.storage import remote
from pipelines import retention
from pipelines.kubeflow.artifacts import folder_of
from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.metadata import of_run
from pipelines.kubeflow.runs import IDENTITY, ours, spec_of, view
from pipelines.kubeflow.submit import WORK
from pipelines.retention import Candidate, Folder, Past

_BEGUN = ".gc"  # below the registry: removals that were begun
_MANY = 10_000


def candidates(cluster: Cluster, days: float) -> list[Candidate]:
    """All runs of TextDiffusion jobs with what speaks for keeping each, removals that were cut, and checkpoints.

    Args:
        cluster: the installation.
        days: younger runs stay.

    Raises:
        UserError: ML Metadata is not to be had, which tells what runs took from one another.
    """
    registry = cluster.settings.registry
    messages = {run.run_id: run for run in ours(cluster, most=_MANY)}
    runs = [Past(run.display_name, name, view(run).state, run.created_at) for name, run in messages.items()]

    def uses(run: Past) -> set[str]:
        known = of_run(cluster, run.identity)
        return {*known, *(uri for facts in known.values() for uri in _parents(facts))}

    kept = retention.reasons(runs, registry, days, uses)
    found = []
    for run in runs:
        place = folder_of(messages[run.identity])
        sizes = storage.sizes(place) if place else {}
        reason = kept.get(run.identity) or _elsewhere(messages[run.identity], place, registry)
        pipeline = str(spec_of(messages[run.identity]).get("pipelineInfo", {}).get("name", ""))
        found.append(Candidate(run.run, pipeline, run.created, sum(sizes.values()), len(sizes),
                               reason, (place,), identity=run.identity))  # fmt: skip
    found += _cut(registry, set(messages))
    place = storage.join(registry, WORK)
    return found + list(retention.beside("work", place, _trainings(place), runs, days))


def remove(cluster: Cluster, candidate: Candidate) -> None:
    """Removes a run and its files, or files that are beside runs."""
    from kfp_server_api.exceptions import ApiException

    record = inside(storage.join(cluster.settings.registry, _BEGUN), f"{candidate.identity}.json")
    if not candidate.beside:
        told = {"run": candidate.run, "pipeline": candidate.pipeline, "place": candidate.places[0]}
        storage.write_json(record, told)
        with cluster.one_line(f"gc {candidate.run}"):
            try:
                cluster.client._run_api.run_service_delete_run(candidate.identity)
            except ApiException as error:
                if error.status != 404:
                    raise
    for place in candidate.places:
        storage.remove(place)
    if not candidate.beside:
        storage.remove(record)


def _elsewhere(run: Any, place: str, registry: str) -> str:
    """Why a run is not ours to remove; empty if it is."""
    own = ((run.runtime_config and run.runtime_config.parameters) or {}).get("registry", registry)
    if own != registry:
        return f"registers in {own}"
    return "" if place else "has its artifacts where only the installation knows: no kubeflow_root was set"


def _cut(registry: str, runs: Collection[str]) -> Iterator[Candidate]:
    """Removals whose runs are gone and whose files are not."""
    folder = storage.join(registry, _BEGUN)
    for name in storage.list_files(folder):
        told: Any = or_none(lambda name=name: storage.read_json(inside(folder, name)))  # type: ignore[misc]
        identity = name.removesuffix(".json")
        known = isinstance(told, dict) and str(told.get("place")).endswith(f"/{identity}")
        if identity in runs or not IDENTITY.fullmatch(identity) or not known:
            continue
        sizes = storage.sizes(told["place"])
        yield Candidate(str(told.get("run")), str(told.get("pipeline")), datetime.now(UTC), sum(sizes.values()),
                        len(sizes), "", (str(told["place"]),), identity=identity)  # fmt: skip


def _trainings(place: str) -> dict[str, Folder]:
    folders: dict[str, Folder] = {}
    for name, facts in remote.details(place).items():
        written = facts.get("LastModified") or facts.get("mtime") or facts.get("last_modified")  # s3fs, gcsfs, adlfs
        if not isinstance(written, datetime):
            raise UserError(f"{place}/{name}: its store does not say when it was written")
        folders.setdefault(name.partition("/")[0], Folder()).add(int(facts.get("size") or 0), written)
    return folders


def _parents(facts: dict[str, Any]) -> list[str]:
    parents = or_none(lambda: parse_parents(facts.get("parents"), "ML Metadata")) or {}
    return [parent.uri for parent in parents.values()]
