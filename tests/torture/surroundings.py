"""What lies around a run and is not its own: drives without links, tokens in what a person writes."""

from __future__ import annotations

import json
import os
import random
import runpy
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.torture import training
from tests.torture.fuzz_config import predefined
from tests.torture.trial import Fault, LostError, environment, require

LINKLESS = Path(__file__).parents[1] / "fakes" / "linkless" / "sitecustomize.py"
TOKENS = 50  # a trial


@contextmanager
def without_links(draw: random.Random) -> Iterator[None]:
    """This process and those that it forks make no links and sync no folders."""
    before = {name: getattr(os, name) for name in ("link", "symlink", "fsync")}
    with environment(LINKLESS=draw.choice(["EPERM", "ENOTSUP", "ENOSYS", "EACCES"])):
        runpy.run_path(str(LINKLESS))
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(os, name, function)


def killed_without_links(draw: random.Random, folder: Path) -> int:
    """A training on a drive without links is killed at random moments, and ends as an undisturbed one on a disk."""
    training.undisturbed("text", 1, "fp32", os.getpid())
    with without_links(draw):
        return training.killed("text", signal.SIGKILL, 1, draw, folder)


def tokens(draw: random.Random, folder: Path) -> int:
    """Tokens of many forms in any text of a job and in a reason: refused without a repetition, or struck out."""
    from core.errors import UserError
    from factory.job import parse_job
    from factory.registry import Registry
    from tests.core.test_secrets import forms

    jobs = predefined()
    for number in range(TOKENS):
        kind, token = draw.choice(list(forms(draw.random()).items()))
        values = json.loads(json.dumps(jobs[draw.choice(sorted(jobs))]))
        holder, key = draw.choice(list(_texts(values)))
        holder[key] = f"{draw.choice(['', 'see ', 'x='])}{token}"
        try:
            parse_job(values, "job.yaml")
        except UserError as error:
            require(token not in str(error), f"{kind} is repeated in: {error}")
        else:
            raise LostError(f"{kind} is taken in {key}")
        Registry(str(folder)).record("model", "keep", f"because {token}", number=number)
    kept = "".join(path.read_text() for path in folder.rglob("*.json"))
    require(kept.count("because ") == TOKENS, "a reason was not kept")
    secret = [part for part in kept.split("because ")[1:] if "***" not in part.split('"')[0]]
    require(not secret, f"a reason was kept with its token: {secret[:1]}")
    return TOKENS


def _texts(values: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every text at any depth that may be any text."""
    for key, value in values.items() if isinstance(values, dict) else enumerate(values):
        if isinstance(value, dict | list):
            yield from _texts(value)
        elif key in ("description", "url", "data_dir", "prompts"):
            yield values, key


FAULTS = [
    Fault("linkless", "training of text on a drive without links: SIGKILL, resumed", killed_without_links, 0.5),
    Fault("secrets", "tokens in configurations and reasons: refused or struck out", tokens, 0.1),
]
