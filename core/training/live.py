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
_written: dict[Path, tuple[float, int]] = {}  # folder -> when, and with how many previews


def show(rows: list[dict[str, Any]], previews: Mapping[str, bytes]) -> None:
    """Writes train_log.jsonl and previews/ where the run's report looks for them, every few seconds.

    Nothing where nobody watches: in the cloud, in a container, in a library call.
    """
    events, task = os.environ.get(EVENTS_VARIABLE), os.environ.get(TASK_VARIABLE)
    if not (events and task):
        return
    folder = inside(Path(events).parent, f"steps/{task}")
    when, shown = _written.get(folder, (-EVERY, -1))
    if time.monotonic() - when < EVERY and shown == len(previews):
        return
    _written[folder] = (time.monotonic(), len(previews))
    if folder.is_dir():
        write_records(rows, previews, folder)
