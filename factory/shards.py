"""Very many samples, by any number of workers: each sample exactly once, whoever is killed on the way.

    OUT/plan.json                       what is drawn; written once, and every worker must want the same
    OUT/shards/000012-<sha256>.npz      samples 12 k to 13 k (.jsonl for text)
    OUT/shards/000012.json              the shard's manifest: which file holds it, and its hash
    OUT/manifest.json                   all shards; written when the last one is there

Sample i is a function of (seed, i), so a shard can be drawn again by anyone. Its manifest is created only if there is
none (a generation precondition on GCS): of several workers that drew a shard, one is the author. What counts is what
manifests name; a file that none names is what a killed worker left. A shard whose file or manifest was lost or damaged
is drawn again; its manifest is replaced only if other hardware rounds otherwise.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core import storage
from core.config import validate
from core.errors import UserError
from core.modality import modality as code_of
from core.names import inside, single
from core.progress import Progress
from core.requests import ShardRequest
from core.storage.faults import StorageError

MAX_ENTRY_BYTES = 65_536
_SHA256 = re.compile(r"[0-9a-f]{64}")


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
    plan: Plan, out: str, draw: Callable[[int, int], bytes], *, worker: int = 0, workers: int = 1, helps: bool = True
) -> dict[str, Any]:
    """Draws all shards that are not there, or damaged: this worker's own first, then what other workers still owe.

    A worker that does not help ends with its own, and `close` writes the manifest when all have ended.

    Of what is there already, a worker reads its own shards and compares their SHA-256; of the others it compares the
    length. So one worker alone (`worker` 0 of 1) verifies and mends everything.

    Args:
        plan: what to draw.
        out: folder or gs:// prefix, the same for all workers.
        draw: (start, stop) -> the samples' file; a function of nothing else.
        worker: number of this worker, from 0.
        workers: how many there are.
        helps: whether it draws what others owe.

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
    done -= {shard for shard in done if shard % workers == worker and not _is_whole(plan, out, shard, by_hash=True)}
    with Progress(f"shards of worker {worker}", plan.count, "samples", start=_samples(plan, done)) as bar:
        while True:
            for shard in _turns(plan, worker, workers, workers if helps else 1):
                if shard in done:
                    continue
                if not _is_whole(plan, out, shard, by_hash=shard % workers == worker):
                    author = _write(plan, out, shard, draw(*plan.span(shard)))
                    drawn, lost = drawn + author, lost + (not author)
                    bar.update(_samples(plan, {*done, shard}))
                done.add(shard)
            entries = _entries(plan, out) if helps else {}
            if len(entries) == plan.shards:
                _close(plan, out, entries)
            if len(entries) == plan.shards or not helps:
                break
            done &= entries.keys()  # what was lost meanwhile is drawn again
    return {"drawn": drawn, "lost": lost, "shards": plan.shards, "count": plan.count}


def close(out: str) -> dict[str, Any]:
    """Writes the manifest of a set whose workers have all ended; what it says.

    Raises:
        UserError: shards are missing, or there is no plan.
    """
    uri = storage.join(out, "plan.json")
    try:
        plan = Plan(**storage.read_json(uri))
    except TypeError as error:
        raise UserError(f"{uri}: not a plan of shards: {error}") from None
    entries = _entries(plan, out)
    missing = [str(shard) for shard in range(plan.shards) if shard not in entries]
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise UserError(f"{out}: {len(missing)} of {plan.shards} shards are missing ({shown}); draw them again")
    return _close(plan, out, entries)


def finished(plan: Plan, out: str) -> set[int]:
    """Numbers of the shards that have a manifest and a file, by a listing alone."""
    sizes = storage.sizes(storage.join(out, "shards"))
    filled = {name.partition("-")[0] for name, size in sizes.items() if "-" in name and size}
    return {shard for shard in range(plan.shards) if f"{shard:06d}.json" in sizes and f"{shard:06d}" in filled}


def read_manifest(out: str) -> dict[str, Any]:
    """The finished set, every shard's hash checked against its file.

    Raises:
        UserError: it is not finished, or a file is damaged.
    """
    uri = storage.join(out, "manifest.json")
    whole = storage.read_json(uri, limit=1 << 30)
    try:
        named = [(inside(out, f"shards/{single(shard['file'], uri)}"), shard["sha256"]) for shard in whole["shards"]]
    except (TypeError, KeyError) as error:
        raise UserError(f"{uri}: not the manifest of a set of shards: {error!r}") from None
    for file, sha256 in named:
        if storage.sha256(file) != sha256:
            raise UserError(f"{file}: damaged: its SHA-256 is not the manifest's; draw the shards again to mend it")
    return dict(whole)


def _agree(plan: Plan, out: str) -> None:
    uri = storage.join(out, "plan.json")
    if storage.create(uri, (json.dumps(plan.to_dict(), indent=2, sort_keys=True) + "\n").encode()):
        return
    recorded, wanted = storage.read_json(uri), json.loads(json.dumps(plan.to_dict()))  # tuples as lists
    if not isinstance(recorded, dict):
        raise UserError(f"{uri}: not a plan of shards; choose another --out or many.out")
    differ = [key for key in sorted({*recorded, *wanted}) if recorded.get(key) != wanted.get(key)]
    if differ:
        raise UserError(f"{uri}: holds another plan ({', '.join(differ)} differ); choose another --out or many.out")


def _turns(plan: Plan, worker: int, workers: int, turns: int) -> Iterator[int]:
    """Own shards first; then those of the next worker, and so on: workers that are done help different ones."""
    for turn in range(turns):
        yield from range((worker + turn) % workers, plan.shards, workers)


def _write(plan: Plan, out: str, shard: int, data: bytes) -> bool:
    """Publishes a shard; whether it is ours that counts. One that is there and damaged is replaced."""
    if _is_whole(plan, out, shard, by_hash=True):  # another worker was faster
        return False
    entry = _describe(plan, shard, hashlib.sha256(data).hexdigest(), len(data))
    damaged, mark = _entry(plan, out, shard), _mark(out, shard)
    uri = inside(out, f"shards/{entry['file']}")
    storage.write_bytes(uri, data)
    if storage.create(mark, _line(entry)):
        return True
    present = _entry(plan, out, shard)
    if present == entry:
        return damaged == entry
    if present is not None and _is_whole(plan, out, shard, by_hash=True):
        storage.remove(uri)  # drawn on other hardware: equal but for rounding
        return False
    storage.write_bytes(mark, _line(entry))
    if present is not None and present["file"] != entry["file"]:
        storage.remove(inside(out, f"shards/{present['file']}"))
    return True


def _describe(plan: Plan, shard: int, sha256: str, size: int) -> dict[str, Any]:
    start, stop = plan.span(shard)
    name = f"{shard:06d}-{sha256[:16]}{plan.suffix}"
    return {"shard": shard, "start": start, "stop": stop, "file": name, "sha256": sha256, "bytes": size}


def _entry(plan: Plan, out: str, shard: int) -> dict[str, Any] | None:
    """What a shard's manifest says; None if there is none, or it is not one that `_write` has written."""
    mark = _mark(out, shard)
    if not storage.exists(mark):
        return None
    try:
        data = storage.read_bytes(mark, limit=MAX_ENTRY_BYTES)
        parsed = json.loads(data)
        entry = _describe(plan, shard, parsed["sha256"], parsed["bytes"])
    except StorageError:
        raise  # says nothing about what is there
    except (UserError, ValueError, RecursionError, TypeError, KeyError):
        return None
    known = isinstance(entry["sha256"], str) and _SHA256.fullmatch(entry["sha256"])
    return entry if known and data == _line(entry) else None


def _line(value: object) -> bytes:
    return (json.dumps(value) + "\n").encode()


def _is_whole(plan: Plan, out: str, shard: int, *, by_hash: bool = False) -> bool:
    entry = _entry(plan, out, shard)
    if entry is None:
        return False
    uri = inside(out, f"shards/{entry['file']}")
    if not storage.exists(uri) or storage.size(uri) != entry["bytes"]:
        return False
    return not by_hash or storage.sha256(uri) == entry["sha256"]


def _entries(plan: Plan, out: str) -> dict[int, dict[str, Any]]:
    """What the shards' manifests say, of those shards whose file has the length that is stated."""
    sizes = storage.sizes(storage.join(out, "shards"))
    entries = {shard: _entry(plan, out, shard) for shard in range(plan.shards) if f"{shard:06d}.json" in sizes}
    return {shard: entry for shard, entry in entries.items() if entry and sizes.get(entry["file"]) == entry["bytes"]}


def _close(plan: Plan, out: str, entries: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    whole = {**plan.to_dict(), "shards": [entries[shard] for shard in range(plan.shards)]}
    uri, said = storage.join(out, "manifest.json"), _line(whole)
    if not storage.exists(uri) or storage.read_bytes(uri) != said:
        storage.write_bytes(uri, said)
    return whole


def _mark(out: str, shard: int) -> str:
    return inside(out, f"shards/{shard:06d}.json")


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
    helps: bool = True,
) -> dict[str, Any]:
    """Draws this worker's part of `count` samples into the shards of `out`, and what others owe."""
    asked = {"modality": modality, "sample": sample, "model": model, "size": size}
    request = validate(ShardRequest, asked, "request")
    drawer = code_of(request.modality).shard_drawer(request)
    plan = Plan(count, size, drawer.suffix, drawer.facts)
    return draw_shards(plan, out, drawer.draw, worker=worker, workers=workers, helps=helps)
