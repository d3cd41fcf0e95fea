"""What may be removed of old runs: those that nothing refers to, and what trainings left next to them.

A run stays when it is young, still runs, was registered as a version, or made what a run that stays uses. Checkpoints
and curves of a training stay while they are young, and while any run is going on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from factory.registry import Registry
from pipelines.views import ENDED

_NEVER = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Past:
    """A run of a service. `identity` is in the URIs of its artifacts."""

    run: str
    identity: str
    state: str
    created: datetime


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
    """Prefixes that are its own."""
    beside: bool = False
    identity: str = ""


@dataclass
class Folder:
    """Files of one training beside runs."""

    bytes: int = 0
    files: int = 0
    newest: datetime = _NEVER

    def add(self, size: int, written: datetime) -> None:
        self.bytes, self.files, self.newest = self.bytes + size, self.files + 1, max(self.newest, written)


def oldest(days: float) -> datetime:
    """What is younger than `days` was made after this time."""
    return datetime.now(UTC) - timedelta(days=days)


def reasons(
    runs: Sequence[Past], registry: str, days: float, uses: Callable[[Past], Collection[str]]
) -> dict[str, str]:
    """Why each run that stays does, by its identity.

    Args:
        runs: all runs.
        registry: whose versions keep the runs that they came from.
        days: younger runs stay.
        uses: URIs of the artifacts that a run made or used.
    """
    registered, unreadable = _registered(registry)
    kept: dict[str, str] = {}
    for run in runs:
        if run.state not in ENDED:
            kept[run.identity] = f"is {run.state}"
        elif run.created > oldest(days):
            kept[run.identity] = _young(days)
        elif any(f"/{run.identity}/" in uri for uri in registered) or registered & {run.run, run.identity}:
            kept[run.identity] = "is where a registered version comes from"
        elif unreadable:
            kept[run.identity] = f"may be where {unreadable[0]} comes from, whose manifest cannot be read"
    more = set(kept)
    while more:  # what a run that stays took from the cache keeps the run that made it, and so on
        used = {uri for run in runs if run.identity in more for uri in uses(run)}
        more = {run.identity for run in runs if any(f"/{run.identity}/" in uri for uri in used)} - set(kept)
        kept |= dict.fromkeys(more, "made what a later run uses")
    return kept


def beside(kind: str, place: str, folders: Mapping[str, Folder], runs: Sequence[Past], days: float
           ) -> Iterator[Candidate]:  # fmt: skip
    """What trainings left below `place`, a folder each; its age is that of its newest file."""
    busy = any(run.state not in ENDED for run in runs)
    for name, folder in folders.items():
        reason = _young(days) if folder.newest > oldest(days) else "a run is going on" if busy else ""
        yield Candidate(f"{kind}/{name}", kind, folder.newest, folder.bytes, folder.files, reason,
                        (f"{place}/{name}/",), beside=True)  # fmt: skip


def _young(days: float) -> str:
    return f"is younger than {days:g} days"


def _registered(registry: str) -> tuple[set[str], list[str]]:
    """Runs and artifacts that registered versions come from; and the versions that do not say, as they do not parse."""
    store, names, unreadable = Registry(registry), set(), []
    for model in store.models():
        versions = store.versions(model)
        for version in versions:
            names |= {version.lineage.get("run") or "", *version.lineage.get("parents", {}).values()}
        unreadable += store.unreadable(model, versions)
    return names - {""}, unreadable
