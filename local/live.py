"""The report of a run that is still going on: written anew as its training gets on, and loaded anew by the page."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from factory.run_folder import Run

log = logging.getLogger(__name__)
LOOK, SHARE = 1.0, 0.05  # seconds between looks; of the time may go into reports


@contextmanager
def live_report(run: Run) -> Iterator[None]:
    """Keeps `report.html` of the run up to date in a thread of its own while the block lasts."""
    ended = threading.Event()
    thread = threading.Thread(target=_follow, args=(run, ended), name="live report", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _follow(run: Run, ended: threading.Event) -> None:
    shown: object = None
    pause = LOOK
    while not ended.wait(pause):
        pause = LOOK
        now = [path.stat().st_mtime_ns for path in sorted(run.folder.glob("steps/*/train_log.jsonl"))]
        if not now or now == shown:
            continue
        shown, began = now, time.monotonic()
        try:
            run.build_report()
        except Exception as error:  # a step changes the files meanwhile; the next look shows them
            log.debug("live report: %s", error)
        pause = max(LOOK, (time.monotonic() - began) / SHARE)
