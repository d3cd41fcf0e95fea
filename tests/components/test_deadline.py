"""A step whose time is over ends, whatever it is doing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from components.deadline import ENDED, SECONDS

STEP = "from components.step import step\nwith step():\n    {body}\nprint('done')"


@pytest.mark.parametrize(
    ("seconds", "body", "code", "words"),
    [
        ("0.2", "import time; time.sleep(60)", ENDED, "ended after 0.2 s, the most that --max-cost leaves this step"),
        ("600", "pass", 0, ""),
        ("", "pass", 0, ""),
    ],
)
def test_a_step_ends_at_its_limit_and_not_sooner(seconds: str, body: str, code: int, words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STEP.format(body=body)],
        env={**os.environ, SECONDS: seconds}, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert words in done.stderr
