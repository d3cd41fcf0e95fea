"""What a run shows while it goes on: a live table of steps on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from factory.run_folder import Run

POLL, PLAIN_SECONDS = 0.25, 10.0
_MARKS = {
    "pending": ("·", "dim"),
    "running": ("▶", "cyan"),
    "succeeded": ("✓", "green"),
    "cached": ("✓", "blue"),
    "failed": ("✗", "red"),
    "skipped": ("-", "dim"),
}


class Display:
    """Follows a run: its steps, and the progress events that the running step appends to `events`."""

    def __init__(self, run: Run, events: Path, console: Console) -> None:
        self._run, self._events, self._console = run, events, console
        self._offset = events.stat().st_size if events.exists() else 0
        self._rest = ""
        self._latest: dict[str, dict[str, Any]] = {}  # step -> its newest event
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
            self._console.print(f"{step}: begins", style="dim", highlight=False)

    def end(self, entry: Mapping[str, Any]) -> None:
        """A step ended; `entry` is its entry of run.json."""
        self._latest.pop(entry["name"], None)
        if self._live:
            self._live.refresh()
            return
        how = "served from cache" if entry["cached"] else f"{entry['state']} in {entry['seconds']:.1f} s"
        self._console.print(f"{entry['name']}: {how}", highlight=False)

    def _follow(self) -> None:
        while not self._stop.wait(POLL):
            news = self._news()
            self._latest.update(news)
            if self._live:
                self._live.refresh()
            elif news and time.monotonic() - self._printed >= PLAIN_SECONDS:
                self._printed = time.monotonic()
                for step, event in news.items():
                    where = f"{step}: " if len(self._running()) > 1 else ""
                    self._console.print(f"  {where}{describe(event)}", highlight=False)

    def _running(self) -> list[str]:
        return [entry["name"] for entry in self._run.steps if entry["state"] == "running"]

    def _news(self) -> dict[str, dict[str, Any]]:
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
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and running:
                task = event.pop("task", running[-1])  # containers do not say whose event it is, but run one by one
                if task in running:
                    news[task] = event
        return news

    def _table(self) -> Group:
        table = Table.grid(padding=(0, 2))
        for entry in self._run.steps:
            mark, style = _MARKS[entry["state"]]
            seconds = entry["seconds"]
            detail = ""
            if entry["state"] == "running":
                seconds = time.monotonic() - self._began.get(entry["name"], time.monotonic())
                event = self._latest.get(entry["name"])
                detail = describe(event) if event else ""
            elif entry["cached"]:
                detail = "from cache"
            elif entry["error"]:
                detail = str(entry["error"])
            time_text = "" if seconds is None else f"{seconds:.1f} s"
            table.add_row(Text(mark, style), Text(entry["name"], style), Text(time_text, "dim"), Text(detail, "dim"))
        return Group(Text(self._run.id, "bold"), table)


def describe(event: Mapping[str, Any]) -> str:
    """One line of progress: how far, how fast, the loss, how long still."""
    done, total, unit = event.get("done", 0), event.get("total"), event.get("unit", "")
    parts = [f"{event.get('step', '')} {done}/{total} {unit}" if total else f"{event.get('step', '')} {done} {unit}"]
    if total:
        parts[0] += f" ({done / total:.0%})"
    if event.get("rate"):
        parts.append(f"{event['rate']:.0f}/s")
    known = {"step", "done", "total", "unit", "rate", "eta_seconds"}
    parts += [
        f"{key} {value:.4g}" for key, value in event.items() if key not in known and isinstance(value, int | float)
    ]
    eta = event.get("eta_seconds")
    if isinstance(eta, int | float):
        parts.append(f"{_clock(eta)} left")
    return "  ".join(parts)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d} min" if minutes else f"{rest} s"


def _live(console: Console) -> bool:
    return console.is_terminal and not console.is_dumb_terminal
