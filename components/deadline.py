"""The time limit of a step that nothing outside ends: Vertex AI gives a pipeline's own containers up to seven days."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from core.printable import say

SECONDS = "TEXTDIFFUSION_STEP_SECONDS"
"""Environment variable: after so many seconds a step ends its process."""
ENDED = 124
"""Its exit code then, which is that of `timeout`."""


@contextmanager
def deadline() -> Iterator[None]:
    """Ends this process when the step's time is over, whatever it is doing."""
    seconds = os.environ.get(SECONDS, "")
    if not seconds:
        yield
        return
    timer = threading.Timer(float(seconds), _end, (seconds,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _end(seconds: str) -> None:
    say(f"error: ended after {seconds} s, the most that --max-cost leaves this step", to=sys.stderr)
    sys.stderr.flush()
    os._exit(ENDED)
