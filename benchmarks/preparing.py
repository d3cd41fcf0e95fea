"""What prepare-data takes of files of images, whoever writes their shards, and of a long text, measured.

    python -m benchmarks.preparing --files 20000 --ways processes:1 processes:2 beam:1 beam:2
    python -m benchmarks.preparing --text_gb 1

Images of noise are written as PNG files, or a text of drawn words, into a temporary folder (`--place`: another one).
One line of JSON for each way, each in a process of its own: seconds, CPU seconds of all its processes, the memory of
the largest of them, and the content's hash, which must be the same for all ways.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np

from core.names import inside
from core.printable import say
from core.processes import interpreter
from core.storage import scratches

FOLDER = 1000  # files
VOCABULARY, WORDS = 50_000, 1 << 18  # of the text; drawn at once
DRAWN = 1 << 27  # bytes of text that are drawn, and then repeated: drawing is slower than preparing


def write_files(place: Path, count: int, side: int) -> dict[str, Any]:
    """`count` grey PNG files of noise in ten classes; the section `data` that reads them."""
    from PIL import Image

    random = np.random.default_rng(0)
    for start in range(0, count, FOLDER):
        images = random.integers(0, 256, (min(FOLDER, count - start), side, side), np.uint8)
        for index, pixels in enumerate(images, start):
            folder = place / str(index % 10) / str(start // FOLDER)
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{index}.png")
    return {"source": "folder", "data_dir": str(place)}


def write_text(place: Path, size: int) -> dict[str, Any]:
    """At least `size` bytes of words whose frequencies fall as a language's do; the section `data` that reads it.

    After `DRAWN` bytes they are repeated.
    """
    random = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    words = ["".join(letters[random.integers(0, 26, random.integers(1, 11))]) for _ in range(VOCABULARY)]
    frequency = 1 / np.arange(1, VOCABULARY + 1)
    path = place / "text.txt"
    with path.open("wb") as sink:
        while sink.tell() < min(size, DRAWN):
            drawn = random.choice(VOCABULARY, WORDS, p=frequency / frequency.sum()).reshape(-1, 16).tolist()
            lines = [" ".join([words[index] for index in line]) for line in drawn]
            sink.write(("\n".join(lines) + "\n").encode())
        sink.flush()
        with path.open("rb") as drawn_already:
            while sink.tell() < size:
                sink.write(drawn_already.read(1 << 24))
    return {"source": "file", "data_dir": str(path), "tokenizer": {"vocabulary": 4096}}


def prepared(modality: str, data: dict[str, Any], out: Path) -> dict[str, Any]:
    """What preparing takes, in this process and those that it starts."""
    from core.modality import run
    from core.requests import PrepareDataRequest, modality_name

    began = time.monotonic()
    facts = run(PrepareDataRequest(modality=modality_name(modality), data=data, out=out))
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "seconds": round(time.monotonic() - began, 1),
        "cpu": round(sum(each.ru_utime + each.ru_stime for each in used), 1),
        "memory_gb": round(max(each.ru_maxrss for each in used) * 1024 / 1e9, 2),
        "content": str(facts["content_sha256"])[:12],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=0)
    parser.add_argument("--side", type=int, default=28)
    parser.add_argument("--mb", type=float, default=4.0, help="of a shard")
    parser.add_argument("--ways", nargs="+", default=["processes:1", "processes:2", "beam:1", "beam:2"])
    parser.add_argument("--text_gb", type=float, default=0.0)
    parser.add_argument("--place", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        order = json.loads(options.one)
        say(json.dumps({**order["named"], **prepared(order["modality"], order["data"], Path(order["out"]))}))
        return
    with scratches.temporary_folder("preparing") as scratch:
        place = options.place or scratch
        if options.text_gb:
            (place / "texts").mkdir(parents=True)
            data = write_text(place / "texts", int(options.text_gb * 1e9))
            _measure("text", {"text_gb": options.text_gb}, data, place / "out")
        for way in options.ways if options.files else ():
            if not (place / "images").exists():
                data = write_files(place / "images", options.files, options.side)
            engine, _, workers = way.partition(":")
            shards = {"above_gb": 0, "mb": options.mb, "engine": engine, "workers": int(workers)}
            named = {"files": options.files, "way": way}
            _measure("images", named, {**data, "shards": shards}, inside(place, way.replace(":", "-")))


def _measure(modality: str, named: dict[str, Any], data: dict[str, Any], out: Path) -> None:
    order = json.dumps({"modality": modality, "named": named, "data": data, "out": str(out)})
    command = [*interpreter.program("benchmarks.preparing"), "--one", order]
    subprocess.run(command, env=interpreter.environment(os.environ), check=True)


if __name__ == "__main__":
    main()
