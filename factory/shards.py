"""Very many samples, by any number of workers: each sample exactly once, whoever is killed on the way.

    OUT/plan.json                       what is drawn; written once, and every worker must want the same
    OUT/shards/000012-<sha256>.npz      samples 12 k to 13 k (.jsonl for text)
    OUT/shards/000012.json              the shard's manifest: which file holds it, and its hash
    OUT/manifest.json                   all shards; written when the last one is there

Sample i is a function of (seed, i), so a shard can be drawn again by anyone. Its manifest is created only if there is
none (a generation precondition on GCS): of several workers that drew a shard, one is the author. What counts is what
manifests name; a file that none names is what a killed worker left.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core import steps, storage
from core.errors import UserError
from core.progress import Progress


@dataclass(frozen=True)
class Plan:
    """What is to be drawn: `count` samples in shards of `size`, by `facts` (model, settings)."""

    count: int
    size: int
    suffix: str
    facts: Mapping[str, Any]

    @property
    def shards(self) -> int:
        """How many there are; the last one may be smaller."""
        return -(-self.count // self.size)

    def span(self, shard: int) -> tuple[int, int]:
        """[start, stop) of a shard's samples."""
        return shard * self.size, min(self.count, (shard + 1) * self.size)

    def to_dict(self) -> dict[str, Any]:
        """As plan.json has it."""
        return {"count": self.count, "size": self.size, "suffix": self.suffix, "facts": dict(self.facts)}


def draw_shards(
    plan: Plan, out: str, draw: Callable[[int, int], bytes], *, worker: int = 0, workers: int = 1
) -> dict[str, Any]:
    """Draws all shards that are not there yet, this worker's own first, and then what other workers still owe.

    Args:
        plan: what to draw.
        out: folder or gs:// prefix, the same for all workers.
        draw: (start, stop) -> the samples' file; a function of nothing else.
        worker: number of this worker, from 0.
        workers: how many there are.

    Returns:
        {"drawn": shards by this worker, "lost": those where another one was faster, "shards", "count"}.

    Raises:
        UserError: `out` holds another plan.
    """
    if not 0 <= worker < workers:
        raise UserError(f"worker: found {worker} of {workers}; allowed: 0 to {workers - 1}")
    _agree(plan, out)
    drawn = lost = 0
    done = finished(plan, out)
    with Progress(f"shards of worker {worker}", plan.count, "samples", start=_samples(plan, done)) as bar:
        for shard in _turns(plan, worker, workers):
            if shard in done or storage.exists(_mark(out, shard)):
                done.add(shard)
                continue
            author = _write(plan, out, shard, draw(*plan.span(shard)))
            drawn, lost = drawn + author, lost + (not author)
            done.add(shard)
            bar.update(_samples(plan, done))
    if len(done) == plan.shards:
        _close(plan, out)
    return {"drawn": drawn, "lost": lost, "shards": plan.shards, "count": plan.count}


def finished(plan: Plan, out: str) -> set[int]:
    """Numbers of the shards that have a manifest."""
    names = (name.removesuffix(".json") for name in storage.list_files(storage.join(out, "shards")))
    return {int(name) for name in names if name.isdecimal() and int(name) < plan.shards}


def read_manifest(out: str) -> dict[str, Any]:
    """The finished set, every shard's hash checked against its file.

    Raises:
        UserError: it is not finished, or a file is damaged.
    """
    whole = storage.read_json(storage.join(out, "manifest.json"), limit=1 << 30)
    for shard in whole["shards"]:
        uri = storage.join(out, "shards", shard["file"])
        if storage.sha256(uri) != shard["sha256"]:
            raise UserError(f"{uri}: damaged: its SHA-256 is not the manifest's")
    return dict(whole)


def _agree(plan: Plan, out: str) -> None:
    uri = storage.join(out, "plan.json")
    if storage.create(uri, (json.dumps(plan.to_dict(), indent=2, sort_keys=True) + "\n").encode()):
        return
    found, wanted = storage.read_json(uri), json.loads(json.dumps(plan.to_dict()))  # tuples as lists
    differ = [key for key in sorted({*found, *wanted}) if found.get(key) != wanted.get(key)]
    if differ:
        raise UserError(f"{uri}: holds another plan ({', '.join(differ)} differ); choose another --out")


def _turns(plan: Plan, worker: int, workers: int) -> Iterator[int]:
    """Own shards first; then those of the next worker, and so on: workers that are done help different ones."""
    for turn in range(workers):
        yield from range((worker + turn) % workers, plan.shards, workers)


def _write(plan: Plan, out: str, shard: int, data: bytes) -> bool:
    sha = hashlib.sha256(data).hexdigest()
    name, (start, stop) = f"{shard:06d}-{sha[:16]}{plan.suffix}", plan.span(shard)
    uri, mark = storage.join(out, "shards", name), _mark(out, shard)
    storage.write_bytes(uri, data)
    entry = {"shard": shard, "start": start, "stop": stop, "file": name, "sha256": sha, "bytes": len(data)}
    if storage.create(mark, (json.dumps(entry) + "\n").encode()):
        return True
    if storage.read_json(mark)["file"] != name:  # drawn on other hardware: equal but for rounding
        storage.remove(uri)
    return False


def _close(plan: Plan, out: str) -> None:
    uri = storage.join(out, "manifest.json")
    if storage.exists(uri):
        return
    shards = [storage.read_json(_mark(out, shard)) for shard in range(plan.shards)]
    storage.create(uri, (json.dumps({**plan.to_dict(), "shards": shards}) + "\n").encode())


def _mark(out: str, shard: int) -> str:
    return storage.join(out, "shards", f"{shard:06d}.json")


def _samples(plan: Plan, done: set[int]) -> int:
    return sum(stop - start for start, stop in map(plan.span, done))


def sample_shards(
    modality: str,
    sample: Mapping[str, Any],
    model: Path,
    out: str,
    *,
    count: int,
    size: int,
    worker: int = 0,
    workers: int = 1,
) -> dict[str, Any]:
    """Draws this worker's part of `count` samples into the shards of `out`, and what others owe."""
    draw, suffix, facts = steps.drawer(modality, sample, model, size)
    return draw_shards(Plan(count, size, suffix, facts), out, draw, worker=worker, workers=workers)
