"""What one GPU does with this project, in a slot of ten minutes: for machines that are lent and may be taken away.

    python -m benchmarks.gpu_slot --data_dir MNIST [--out build/benchmarks] [--only rates,draw]
    python -m benchmarks.gpu_slot --tiny        # the same calls with next to no work, on a CPU in a minute

`gpu_slot.json` is written again after each item, so that a run that is cut off still gives numbers. Nothing is
downloaded: without --data_dir quality is measured on the embedded digits. What no card has measured yet comes first, up
to `deterministic` within 440 s; each item has a limit, together they take at most 560 s, and one that fails or has no
time left says so in its place.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import gpu_items, gpu_text
from benchmarks.results import machine, parser
from benchmarks.slot import Slot
from benchmarks.workers import OutOfTimeError, limit
from core import storage
from core.processes.world import own_device

SECONDS = 560.0
FILE = "gpu_slot.json"
ITEMS: dict[str, tuple[float, Callable[[Slot], dict[str, Any]]]] = {  # with the most seconds each may take
    "machine": (15, gpu_items.describe),
    # Of these no card has given a number yet.
    "quality": (130, gpu_items.quality),
    "draw": (30, gpu_items.draw),
    "write": (40, gpu_text.write),
    "peers": (50, gpu_items.peers),
    "nccl": (15, gpu_items.nccl),
    "text": (100, gpu_items.text),
    "deterministic": (50, gpu_items.deterministic),
    # These were measured on an H200, before weights were cast at once.
    "rates": (120, gpu_items.rates),
    "formats": (30, gpu_items.formats),
    "resume": (80, gpu_items.resume),
    "waits": (70, gpu_items.waits),
}


def measure(slot: Slot, names: list[str], out: Path, seconds: float = SECONDS) -> dict[str, Any]:
    """The results by item, which are also in `out` after each.

    After an error of the GPU itself its process can use it no more, so the other items run in a new one.
    """
    began = time.monotonic()
    found: dict[str, Any] = {"measured on": machine(), "items": {}}
    for index, name in enumerate(names):
        most, work = ITEMS[name]
        left = seconds - (0.0 if slot.tiny else time.monotonic() - began)  # a dry run is of every item
        start, results = time.monotonic(), slot.results
        results.clear()
        broken = False
        try:
            if left < 5:
                raise OutOfTimeError("no time was left")
            with limit(seconds if slot.tiny else min(most, left)):
                results.update(work(slot))
        except Exception as error:  # the next item may do better, and there is no second slot
            results["error"] = f"{type(error).__name__}: {str(error)[:500]}"
            broken = isinstance(error, torch.AcceleratorError)
        found["items"][name] = {**results, "seconds": round(time.monotonic() - start, 1)}
        storage.write_json(out, found)
        print(f"{name}: {found['items'][name]}", flush=True)
        if broken and (rest := names[index + 1 :]):
            found["items"] |= _elsewhere(slot, rest, out, seconds - (time.monotonic() - began))
            storage.write_json(out, found)
            break
    return found


def _elsewhere(slot: Slot, names: list[str], out: Path, seconds: float) -> dict[str, Any]:
    """The results of items by a process of its own."""
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        options = ["--only", ",".join(names), "--seconds", str(seconds), "--out", folder]
        options += ["--data_dir", slot.data_dir] if slot.data_dir else []
        options += ["--tiny"] if slot.tiny else []
        subprocess.run([sys.executable, "-m", "benchmarks.gpu_slot", *options], check=False)
        results = Path(folder) / FILE
        return dict(storage.read_json(results)["items"]) if results.exists() else {}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--tiny", action="store_true", help="next to no work, to see that everything runs")
    options.add_argument("--only", help="items, separated by commas; default: all")
    options.add_argument("--seconds", type=float, default=SECONDS, help="for all items together")
    chosen = options.parse_args()
    names = chosen.only.split(",") if chosen.only else list(ITEMS)
    chosen.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        slot = Slot(own_device(), Path(folder), chosen.tiny, chosen.data_dir)
        measure(slot, names, chosen.out / FILE, chosen.seconds)


if __name__ == "__main__":
    main()
