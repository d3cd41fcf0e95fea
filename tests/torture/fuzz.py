"""Everything that a person or a file can feed in, invented by hypothesis: a result, or one line; no traceback, no hang.

Each target is given well-formed input, nearly well-formed input and rubbish. A case is lost if it raises anything but
`UserError` (the command line: if it ends with anything but its documented exit codes), takes longer than
`CASE_SECONDS`, or makes the process grow past `MEMORY`.
"""

from __future__ import annotations

import contextlib
import logging
import random
import resource
import signal
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import strategies as st

from tests.torture import fuzz_config as config
from tests.torture import fuzz_data as data
from tests.torture import fuzz_models as models
from tests.torture import fuzz_names as names
from tests.torture import fuzz_records as records
from tests.torture.trial import Fault, LostError, require

CASES = 500  # of one trial
CASE_SECONDS = 20.0
MEMORY = 3 << 30  # bytes of address space that a target may take beyond what the process has

Target = tuple[Callable[[Path], st.SearchStrategy[Any]], Callable[[Any, Path], None]]


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise LostError(f"took longer than {CASE_SECONDS:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    timer = signal.setitimer(signal.ITIMER_REAL, CASE_SECONDS)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *timer)  # pytest's own, perhaps


def fuzzed(target: Target, cases: int, draw: random.Random, folder: Path) -> int:
    """Feeds a target `cases` inputs; hypothesis shrinks one that is lost to the smallest that still is."""
    from core.errors import UserError

    strategy, feed = target
    done = 0
    for module in (
        "core.images.modality",
        "core.text.modality",
        "pipelines.jobs",
        "torch._dynamo",
    ):  # they take address space
        import_module(module)
    inputs = strategy(folder)

    @hypothesis.seed(draw.randrange(1 << 30))
    @hypothesis.settings(
        max_examples=cases,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
        print_blob=False,
        report_multiple_bugs=False,
        verbosity=hypothesis.Verbosity.quiet,
    )
    @hypothesis.given(inputs)
    def case(value: Any) -> None:
        nonlocal done
        done += 1
        try:
            with _alarm():
                feed(value, folder)
        except UserError as error:
            require("\n" not in str(error), f"an error of several lines: {error}")
            require(len(str(error)) < 5000, f"an error of {len(str(error))} characters")
        except (LostError, hypothesis.errors.HypothesisException):
            raise
        except BaseException as error:
            raise LostError(f"{type(error).__name__}: {error} for {_short(value)}") from error

    logging.disable(logging.WARNING)
    try:
        with _limits():
            case()
    finally:
        logging.disable(logging.NOTSET)
    return done


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 300 else text[:300] + "..."


TARGETS: dict[str, tuple[str, Target, int]] = {
    "fuzz-job": ("jobs: keys replaced, removed, added", (config.job_values, config.feed_job), 3),
    "fuzz-yaml": ("YAML files: mutated, bombs, aliases, tags, depth", (config.yaml_text, config.feed_yaml), 2),
    "fuzz-set": ("--set overrides", (config.overrides, config.feed_overrides), 1),
    "fuzz-sizes": ("networks of any size, up to 10^12 parameters", (models.sizes, models.feed_sizes), 1),
    "fuzz-idx": ("IDX files, plain and gzipped", (data.idx, data.feed_idx), 2),
    "fuzz-npz": ("npz files, zip bombs, names with ..", (data.npz, data.feed_npz), 2),
    "fuzz-pictures": ("folders of PNG and JPEG", (data.pictures, data.feed_pictures), 1),
    "fuzz-text": ("text files", (data.text, data.feed_text), 1),
    "fuzz-tokenizer": ("tokenizer files", (data.tokenizers, data.feed_tokenizer), 2),
    "fuzz-safetensors": (
        "safetensors: mutated, forged headers of any length",
        (models.safetensors, models.feed_safetensors),
        2,
    ),
    "fuzz-manifest": (
        "manifests of checkpoints: mutated, forged, paths that lead out",
        (models.manifests, models.feed_manifest),
        1,
    ),
    "fuzz-names": (
        "names from buckets, manifests and records: absolute, .., links, control characters",
        (names.names, names.feed_name),
        1,
    ),
    "fuzz-places": ("URIs of every scheme that fsspec knows, chained too", (names.places, names.feed_place), 1),
    "fuzz-model": ("descriptions of models", (models.descriptions, models.feed_description), 1),
    "fuzz-records": (
        "records of runs and registries: wrong types, depth, huge numbers, not UTF-8",
        (records.records, records.feed_records),
        1,
    ),
    "fuzz-lines": (
        "texts with separators and terminal escapes; text fields that look like numbers",
        (records.texts, records.feed_texts),
        1,
    ),
    "fuzz-cli": ("arguments of the command line", (config.arguments, config.feed_arguments), 1),
}


def _fault(name: str, title: str, target: Target, weight: float) -> Fault:
    return Fault(name, f"bad input: {title}", lambda draw, folder: fuzzed(target, CASES, draw, folder), weight / 2)


FAULTS = [_fault(name, *facts) for name, facts in TARGETS.items()]
