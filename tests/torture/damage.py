"""Checkpoints damaged on disk: the damage is named, the one before is used, and nothing wrong is ever loaded."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import random
from collections.abc import Callable
from pathlib import Path

from tests.torture.trial import Fault, require

CASES = 40  # damaged copies in one trial


def _flip(data: bytes, draw: random.Random) -> bytes:
    if not data:
        return data
    at = draw.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]


def _zero(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data) + 1)
    return data[:at] + bytes(min(512, len(data) - at)) + data[at + 512 :]


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "a flipped bit": _flip,
    "three flipped bits": lambda data, draw: _flip(_flip(_flip(data, draw), draw), draw),
    "truncated": lambda data, draw: data[: draw.randrange(len(data) + 1)],
    "a lost sector": _zero,
    "longer": lambda data, draw: data + draw.randbytes(draw.randint(1, 64)),
    "a header of 4 GB": lambda data, draw: (1 << 32).to_bytes(8, "little") + data[8:],
}


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += record.getMessage() + "\n"


def damaged(draw: random.Random, folder: Path) -> int:
    """Writes three checkpoints and damages one or two of the newest, again and again."""
    import torch

    from core.storage.checkpoint import CheckpointStore

    store = CheckpointStore(str(folder), keep=3)
    values = [torch.randn(4, 5, generator=torch.Generator().manual_seed(draw.randrange(1 << 30))) for _ in range(3)]
    for number, value in enumerate(values):
        store.save({"model": {"w": value}, "ema": {"w": value + 1}}, {"log.jsonl": b"{}\n" * 9}, {"number": number})
    lines = _Lines()
    log = logging.getLogger("core.storage.checkpoint")
    log.addHandler(lines)
    log.propagate = False
    try:
        for _ in range(CASES):
            _one(folder, values, draw, lines)
    finally:
        log.removeHandler(lines)
        log.propagate = True
    return CASES


def _one(folder: Path, values: list, draw: random.Random, lines: _Lines) -> None:
    import torch

    from core.storage.checkpoint import CheckpointStore

    kept: dict[Path, bytes] = {}
    whole, silent = [0, 1, 2], set()
    lines.text = ""
    for index in draw.sample([1, 2], draw.randint(1, 2)):
        paths = [folder / f"manifest-{index:08d}.json", *(folder / "data").glob(f"{index}-*")]
        victim, kind = draw.choice(sorted(paths)), draw.choice(sorted(DAMAGES))
        kept[victim] = victim.read_bytes()
        after = DAMAGES[kind](kept[victim], draw)
        victim.write_bytes(after)
        if draw.random() < 0.1:
            victim.unlink()
            silent |= {index} if victim.suffix == ".json" else set()  # without its manifest it never was there
        elif after == kept[victim]:
            continue
        whole.remove(index)
    found = CheckpointStore(str(folder), keep=3).load()
    try:
        require(found is not None, "no checkpoint was found, although the first was whole")
        assert found is not None
        what = f"loaded checkpoint {found.index} of the whole ones {whole}"
        require(found.index == whole[-1] and found.meta == {"number": whole[-1]}, what)
        require(torch.equal(found.tensors["model"]["w"], values[found.index]), f"{what}, with wrong tensors")
        named = all(f"checkpoint {index} is damaged" in lines.text for index in {*range(whole[-1] + 1, 3)} - silent)
        require(named, f"the damage was not named: {lines.text!r}")
    finally:
        for victim, data in kept.items():
            victim.write_bytes(data)
            os.utime(victim)


def shards_damaged(draw: random.Random, folder: Path) -> int:
    """Draws shards, damages up to three of their files and draws again, again and again: the same bytes, no more."""
    from factory.shards import Plan, draw_shards, read_manifest

    plan = Plan(95, 10, ".bin", {"seed": draw.randrange(1 << 30)})

    def samples(start: int, stop: int) -> bytes:
        return b"".join(random.Random(index).randbytes(7) for index in range(start, stop))

    with contextlib.redirect_stderr(io.StringIO()):
        draw_shards(plan, str(folder), samples)
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    victims = sorted(path for path in kept if path.name != "plan.json")
    for _ in range(CASES // 4):
        hit = draw.sample(victims, draw.randint(1, 3))
        for victim in hit:
            victim.write_bytes(DAMAGES[draw.choice(sorted(DAMAGES))](kept[victim], draw))
            if draw.random() < 0.3:
                victim.unlink()
        spoiled = {path.name[:6] for path in hit if path.parent.name == "shards" and _differs(path, kept[path])}
        with contextlib.redirect_stderr(io.StringIO()):  # progress
            done = draw_shards(plan, str(folder), samples)
        what = f"after damage to {sorted(path.name for path in hit)}"
        require(done["drawn"] == len(spoiled), f"{done['drawn']} of {len(spoiled)} shards were drawn {what}")
        found = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        require(found == kept, f"the files are not the ones before {what}")
        read_manifest(str(folder))
    return CASES // 4


def _differs(path: Path, before: bytes) -> bool:
    return not path.exists() or path.read_bytes() != before


FAULTS = [
    Fault("damage", "checkpoint on disk: bits flipped, truncated, deleted, header of 4 GB", damaged, 0.5),
    Fault("damage-shards", "shards on disk: the same, drawn again by one worker", shards_damaged, 0.3),
]
