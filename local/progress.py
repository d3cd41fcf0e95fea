"""What a run shows while it goes on: a live table of steps on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from core import jsontext
from core.config import validate
from core.errors import UserError
from core.printable import printable
from core.progress import per_second
from core.records import Label, Record, Seconds
from factory.run_folder import Run

Amount = Annotated[float, Field(ge=0, le=1e18)]
POLL, PLAIN_SECONDS = 0.25, 10.0
_MARKS = {
    "pending": ("·", "dim"),
    "running": ("▶", "cyan"),
    "succeeded": ("✓", "green"),
    "cached": ("✓", "blue"),
    "failed": ("✗", "red"),
    "skipped": ("-", "dim"),
}


class Event(Record):
    """One line of a run's events; other keys that are numbers (loss, accuracy) are shown as they come."""

    step: Label = ""
    task: Label = ""
    done: Amount = 0
    total: Amount | None = None
    unit: Label = ""
    rate: Amount | None = None
    eta_seconds: Seconds | None = None
    note: Label = ""  # a line to be kept


class Display:
    """Follows a run: its steps, and the progress events that the running step appends to `events`."""

    def __init__(self, run: Run, events: Path, console: Console) -> None:
        self._run, self._events, self._console = run, events, console
        self._offset = events.stat().st_size if events.exists() else 0
        self._rest = ""
        self._latest: dict[str, tuple[float, Event]] = {}  # step -> when it came, its newest event
        self._began: dict[str, float] = {}
        self._printed = 0.0
        self._stop = threading.Event()
        self._live = Live(console=console, get_renderable=self._table, auto_refresh=False) if _live(console) else None
        self._thread = threading.Thread(target=self._follow, name="progress", daemon=True)

    def __enter__(self) -> Display:
        if self._live:
            self._live.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._live:
            self._live.stop()

    def begin(self, step: str) -> None:
        """A step begins."""
        self._began[step] = self._printed = time.monotonic()
        if not self._live:
            self._say(f"{step}: begins", "dim")

    def note(self, line: str) -> None:
        """Something to know of the run, in one line."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def end(self, entry: Mapping[str, Any]) -> None:
        """A step ended; `entry` is its entry of run.json."""
        self._latest.pop(entry["name"], None)
        if self._live:
            self._live.refresh()
            return
        how = "served from cache" if entry["cached"] else f"{entry['state']} in {entry['seconds']:.1f} s"
        self._say(f"{entry['name']}: {how}")

    def _say(self, text: str, style: str = "") -> None:
        self._console.print(Text(printable(text, one_line=True), style))

    def _follow(self) -> None:
        while not self._stop.wait(POLL):
            news = self._news()
            first = not self._latest.keys() >= news.keys()
            now = time.monotonic()
            self._latest.update({step: (now, event) for step, event in news.items()})
            if self._live:
                self._live.refresh()
            elif first or now - self._printed >= PLAIN_SECONDS:
                self._printed = now
                for step in self._running():
                    where = f"{step}: " if len(self._running()) > 1 or step not in self._latest else ""
                    self._say(f"  {where}{self._detail(step, now)}")

    def _detail(self, step: str, now: float) -> str:
        """How far a running step is; the time still needed counts down between its events."""
        if step not in self._latest:
            return f"{_clock(now - self._began.get(step, now))} so far"
        came, event = self._latest[step]
        return describe(event, passed=now - came)

    def _running(self) -> list[str]:
        return [entry["name"] for entry in self._run.steps if entry["state"] == "running"]

    def _news(self) -> dict[str, Event]:
        """The newest of the events that came since the last look, for each step that runs."""
        if not self._events.exists():
            return {}
        with self._events.open(encoding="utf-8", errors="replace") as stream:
            stream.seek(self._offset)
            text = self._rest + stream.read()
            self._offset = stream.tell()
        *lines, self._rest = text.split("\n")
        running, news = self._running(), {}
        for line in lines:
            try:
                event = validate(Event, jsontext.parse(line, ""), "")
            except UserError:  # the end of a process that was killed, or what nobody expects: the next one comes soon
                continue
            task = event.task or (running[-1] if running else "")  # containers do not say, but run one by one
            if task in running and event.note:
                self.note(f"  {event.note}")
            elif task in running:
                news[task] = event
        return news

    def _table(self) -> Group:
        table = Table.grid(padding=(0, 2))
        for entry in self._run.steps:
            mark, style = _MARKS.get(entry["state"], ("?", "dim"))
            seconds = entry["seconds"]
            detail = ""
            if entry["state"] == "running":
                now = time.monotonic()
                seconds = now - self._began.get(entry["name"], now)
                detail = self._detail(entry["name"], now) if entry["name"] in self._latest else ""
            elif entry["cached"]:
                detail = "from cache"
            elif entry["error"]:
                detail = str(entry["error"])
            time_text = "" if seconds is None else f"{seconds:.1f} s"
            cells = ((mark, style), (entry["name"], style), (time_text, "dim"), (detail, "dim"))
            table.add_row(*(Text(printable(text, one_line=True), look) for text, look in cells))
        return Group(Text(printable(self._run.id, one_line=True), "bold"), table)


def describe(event: Event, *, passed: float = 0.0) -> str:
    """One line of progress: how far, how fast, the loss, how long still, `passed` seconds after it was written."""
    parts = [f"{event.step} {event.done:.0f} {event.unit}"]
    if event.total:
        share = f"{event.done / event.total:.0%}"
        parts = [f"{event.step} {event.done:.0f}/{event.total:.0f} {event.unit} ({share})"]
    if event.rate:
        parts.append(per_second(event.rate))
    parts += [
        f"{key} {value:.4g}" for key, value in (event.model_extra or {}).items() if isinstance(value, int | float)
    ]
    if event.eta_seconds is not None:
        parts.append(f"{_clock(max(0.0, event.eta_seconds - passed))} left")
    return "  ".join(parts)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d} min" if minutes else f"{rest} s"


def _live(console: Console) -> bool:
    return console.is_terminal and not console.is_dumb_terminal
