"""Coverage-guided fuzzing by atheris (libFuzzer) of every parser of a file that somebody else may have made.

    make fuzz                                              a minute for each parser
    python -m tests.torture.guided --seconds 600 idx yaml
    python -m tests.torture.guided idx --again build/fuzz/idx/crash-...      one input again

Inputs that reach new code are kept in build/fuzz/PARSER/corpus and are where the next call begins; the first begins
with what `make torture` invents for the same parser. Lost is what is lost there: anything but a result or a
`UserError`, `CASE_SECONDS`, `MEMORY`.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.torture.trial import PLACE, require

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "fuzz"
MODULE = "python -m tests.torture.guided"
SEEDS, LONGEST = 400, 4096  # inputs to begin with, bytes of an input
CODE = ["core", "pipelines", "yaml", "numpy", "zipfile"]  # Python whose branches are watched
NAMES = ("yaml", "idx", "npz", "npy", "safetensors", "tokenizer", "manifest")
Feed = Callable[[bytes, Path], None]
Parser = tuple[Feed, Any, Callable[[Any], list[bytes]]]


def feed_images(data: bytes, folder: Path) -> None:
    """The images of an IDX data set; its labels are well-formed."""
    import numpy as np

    from tests.torture import fuzz_data

    fuzz_data.feed_idx((data, fuzz_data.idx_file(np.zeros(20, np.uint8)), ""), folder)


def feed_array(data: bytes, folder: Path) -> None:
    """The images of an npz file: their header decides what is read. The archive and the labels are well-formed."""
    import zipfile

    import numpy as np

    from tests.torture import fuzz_data

    labels, archive = io.BytesIO(), io.BytesIO()
    np.save(labels, np.arange(20) % 2)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("images.npy", data)
        file.writestr("labels.npy", labels.getvalue())
    fuzz_data.feed_npz(archive.getvalue(), folder)


def _arrays(npz: bytes) -> list[bytes]:
    """The array `images` in an npz file; none if it cannot be got out."""
    import zipfile

    try:
        with zipfile.ZipFile(io.BytesIO(npz)) as archive:
            return [archive.read("images.npy")[:LONGEST]]
    except Exception:  # zipfile, zlib and others each raise their own kinds
        return []


def parsers() -> dict[str, Parser]:
    """What is called with the bytes; the target of `fuzz` whose inputs are its first corpus; how they become bytes.

    Imported here, so that `run` can watch what they import.
    """
    from tests.torture import fuzz_config as config
    from tests.torture import fuzz_data as data
    from tests.torture import fuzz_models as models

    def same(value: Any) -> list[bytes]:
        return [value]

    return {
        "yaml": (config.feed_yaml, (config.yaml_text, config.feed_yaml), same),
        "idx": (feed_images, (data.idx, data.feed_idx), lambda value: [] if value[2] else [value[0]]),
        "npz": (data.feed_npz, (data.npz, data.feed_npz), same),
        "npy": (feed_array, (data.npz, data.feed_npz), _arrays),
        "safetensors": (models.feed_safetensors, (models.safetensors, models.feed_safetensors), same),
        "tokenizer": (data.feed_tokenizer, (data.tokenizers, data.feed_tokenizer), same),
        "manifest": (models.feed_manifest, (models.manifests, models.feed_manifest), same),
    }


def seed(name: str, corpus: Path, folder: Path) -> None:
    """Writes the inputs that hypothesis invents for a parser into the folder `corpus`."""
    from tests.torture import fuzz

    _, (strategy, _), to_bytes = parsers()[name]
    corpus.mkdir(parents=True)

    def keep(value: object, _: Path) -> None:
        for data in to_bytes(value):
            if len(data) <= LONGEST:
                (corpus / sha256(data).hexdigest()).write_bytes(data)

    fuzz.fuzzed((strategy, keep), SEEDS, random.Random(0), folder)


def run(name: str, options: list[str]) -> None:
    """Fuzzes in this process until libFuzzer ends it."""
    import logging

    import atheris

    with atheris.instrument_imports(include=CODE), tempfile.TemporaryDirectory(prefix="fuzz-", dir=PLACE) as place:
        feed, (strategy, _), _ = parsers()[name]
        folder = Path(place)
        strategy(folder)  # a parser that needs neighbours, a whole checkpoint before this one, finds them
        from core.errors import UserError

        def once(data: bytes) -> None:
            try:
                feed(data, folder)
            except UserError as error:
                require("\n" not in str(error) and len(str(error)) < 5000, f"not one line: {error}")

        logging.disable(logging.WARNING)
        once(b"")  # imports what it needs
        atheris.Setup([MODULE, *options], once)
        atheris.Fuzz()


def guided(name: str, seconds: float) -> tuple[int, int, list[Path]]:
    """Fuzzes a parser in a process of its own; executions, branches reached, and the inputs that were lost."""
    from tests.torture.fuzz import CASE_SECONDS, MEMORY

    home = FOLDER / name
    corpus = home / "corpus"
    before = set(home.glob("*-*"))
    if not corpus.exists():
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            seed(name, corpus, Path(folder))
    options = [
        str(corpus), f"-max_total_time={seconds:.0f}", f"-artifact_prefix={home}/", f"-max_len={LONGEST}",
        f"-timeout={CASE_SECONDS:.0f}", f"-rss_limit_mb={MEMORY >> 20}", "-print_final_stats=1",
    ]  # fmt: skip
    log = home / "log.txt"
    with log.open("wb") as stream:
        code = subprocess.run(
            [sys.executable, "-m", "tests.torture.guided", name, "--here", *options],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=stream,
            stderr=subprocess.STDOUT,
        ).returncode
    said = log.read_text(errors="replace")
    executions = re.findall(r"(?:Done |stat::number_of_executed_units: )(\d+)", said) or re.findall(
        r"^#(\d+)", said, re.M
    )
    reached = re.findall(r" cov: (\d+)", said)
    lost = sorted(set(home.glob("*-*")) - before)
    if code != 0 and not lost:
        raise RuntimeError(f"{name}: atheris ended with {code}: see {log}")
    return int(executions[-1]) if executions else 0, int(reached[-1]) if reached else 0, lost


def main() -> int:
    parser = argparse.ArgumentParser(prog=MODULE, description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("parsers", nargs="*", metavar="PARSER", help=f"all, or some of: {', '.join(NAMES)}")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each parser")
    parser.add_argument("--again", type=Path, help="an input to feed once more")
    parser.add_argument("--here", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    chosen = arguments.parsers or list(NAMES)
    unknown = [name for name in chosen if name not in NAMES]
    if unknown:
        parser.error(f"there is no parser {unknown[0]!r}; there are: {', '.join(NAMES)}")
    if arguments.again or arguments.here:
        run(chosen[0], arguments.here or [str(arguments.again)])
        return 0
    print("| parser | executions | branches | lost |\n|---|---:|---:|---:|")
    every = []
    for name in chosen:
        executions, reached, lost = guided(name, arguments.seconds)
        print(f"| {name} | {executions:,} | {reached:,} | {len(lost)} |", flush=True)
        every += [f"{MODULE} {name} --again {path.relative_to(ROOT)}" for path in lost]
    for line in every:
        print(f"lost; again: {line}", file=sys.stderr)
    return 1 if every else 0


if __name__ == "__main__":
    sys.exit(main())
