"""What a training on this machine shows before it has ended: log and previews so far, in the folder of its step."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.names import inside
from core.progress import EVENTS_VARIABLE, TASK_VARIABLE
from core.training.log import write_records

EVERY = 10.0  # seconds


class Live:
    """Writes train_log.jsonl and previews/ where the run's report looks for them, every few seconds.

    Nothing where nobody watches: in the cloud, in a container, in a library call, in any process but the first.
    """

    def __init__(self) -> None:
        events, task = os.environ.get(EVENTS_VARIABLE), os.environ.get(TASK_VARIABLE)
        self._folder = inside(Path(events).parent, f"steps/{task}") if events and task else None
        self._written, self._previews = -EVERY, -1

    def show(self, rows: list[dict[str, Any]], previews: Mapping[str, bytes]) -> None:
        """Writes them, unless that was done a moment ago and there is no new preview."""
        now = time.monotonic()
        if self._folder is None or (now - self._written < EVERY and self._previews == len(previews)):
            return
        self._written, self._previews = now, len(previews)
        if self._folder.is_dir():
            write_records(rows, previews, self._folder)
