"""What a run's folder learns while its steps are executed: their states, logs, artifacts and errors."""

from __future__ import annotations

import contextlib
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.names import inside
from core.progress import TASK_VARIABLE
from core.secrets import redact
from factory.lineage import restore_ints
from factory.run_folder import STORE, Run, place_tree
from local.processes import StepProcesses
from local.progress import Display

_SUFFIXES = {"system.HTML": ".html", "system.Markdown": ".md"}
_IN_METADATA = ("system.Metrics", "system.ClassificationMetrics")  # their files only repeat it


class StepError(Exception):
    """A step ended with an error; the run is marked failed. `user_error`: the error is one a user is to mend."""

    def __init__(self, step: str, message: str, log: Path, user_error: bool) -> None:
        super().__init__(message)
        self.step, self.log, self.user_error = step, log, user_error


class Watcher:
    """Keeps run.json and the display up to date while kfp.local executes; each thread runs one step at a time."""

    def __init__(self, run: Run, display: Display, processes: StepProcesses) -> None:
        self._run, self._display, self._processes = run, display, processes
        self._lock = threading.Lock()
        self._mine = threading.local()  # step, began, code
        self._main = threading.current_thread()
        self.failure: StepError | None = None

    @property
    def _log(self) -> Path:
        step: str = self._mine.step
        return inside(self._run.folder, f"steps/{step}/log.txt")

    def begin(self, task: str) -> None:
        if self._processes.stopping:
            raise RuntimeError("the run was interrupted")
        if self.failure is not None and threading.current_thread() is self._main:
            raise self.failure  # of a loop, whose other tasks have come to their end
        self._mine.step, self._mine.began, self._mine.code = task, time.monotonic(), None
        shutil.rmtree(self._log.parent, ignore_errors=True)
        with self._lock:
            self._run.begin(task)
            self._display.begin(task)

    def launch(self, command: list[str], env: Mapping[str, str]) -> int:
        code = self._processes.run(command, {**env, TASK_VARIABLE: self._mine.step}, self._log)
        self.exited(code)
        return code

    @contextlib.contextmanager
    def logging(self) -> Iterator[None]:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("a", encoding="utf-8") as stream, contextlib.redirect_stdout(stream):
            yield

    def refused(self, reason: str) -> None:
        with self._lock:
            self._display.note(f"{self._mine.step}: not served from cache, it runs again: {reason}")

    def exited(self, code: int) -> None:
        self._mine.code = code

    def end(self, task: str, outputs: Mapping[str, Any], succeeded: bool) -> None:
        seconds = round(time.monotonic() - self._mine.began, 3)
        code = self._mine.code
        if not succeeded:
            message = step_error(self._log, code)
            failure = StepError(task, message, self._log, code == UserError.EXIT_CODE)
            with self._lock:
                self.failure = self.failure or failure
                self._run.update(task, state="failed", seconds=seconds, error=message)
                self._display.end(self._run.step(task))
            raise failure
        cached = code is None
        artifacts = place_outputs(self._run.folder, task, outputs)
        state = "cached" if cached else "succeeded"
        with self._lock:
            self._run.update(task, state=state, seconds=seconds, cached=cached, artifacts=artifacts)
            self._display.end(self._run.step(task))


def place_outputs(folder: Path, step: str, outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Puts the artifacts among a task's outputs into `<folder>/steps/<step>/`; returns their entries of run.json."""
    store = folder.parents[1] / STORE
    placed: dict[str, Any] = {}
    for name, output in outputs.items():
        uri = getattr(output, "uri", None)
        if uri is None:
            continue
        path: str | None = None
        source = Path(output.path)
        if output.schema_title in _IN_METADATA:
            pass
        elif source.is_dir():
            path = f"steps/{step}"
            place_tree(source, inside(folder, path), store)
        elif source.is_file():
            path = f"steps/{step}/{name}{_SUFFIXES.get(output.schema_title, '')}"
            place_tree(source, inside(folder, path), store)
        placed[name] = {
            "path": path,
            "uri": uri,
            "type": output.schema_title,
            "metadata": restore_ints(output.metadata),
        }
    return placed


def step_error(log: Path, code: int | None) -> str:
    """The error of a failed step in one line: the last of its log, or the signal that ended it."""
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = " (out of memory, perhaps)" if name == "SIGKILL" else ""
        return f"ended by {name}{hint}"
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
    last = next((line.strip() for line in reversed(lines) if line.strip()), f"ended with exit code {code}")
    return redact(last.removeprefix("error: "), 500)
