"""The processes of steps: each its own process group, its output in the step's log, ended politely."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from local.warm import GRACE, parse_command

_SIGNALS = {int(number) for number in signal.Signals}


class StepProcesses:
    """Starts the processes of a run's steps, from one warm interpreter where that can be done.

    Use as a context manager.

    Args:
        env: environment of all steps.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = dict(env)
        self._server: subprocess.Popen[str] | None = None

    def __enter__(self) -> StepProcesses:
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            with contextlib.suppress(OSError):
                self._server.stdin.close()  # type: ignore[union-attr]  # its signal to end
            self._server.kill()
            self._server.wait()

    def run(self, command: list[str], env: Mapping[str, str], log: Path) -> int:
        """Runs a step's command with `env` added; returns its exit code, -N if signal N ended it.

        Interrupted by a KeyboardInterrupt, it passes the wish on, waits for the step to save its work and raises again.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        component = parse_command(command)
        if component is None:
            return _run_cold(command, {**self._env, **env}, log)
        return self._run_warm({**component, "env": dict(env), "log": str(log)})

    def _run_warm(self, request: Mapping[str, Any]) -> int:
        if self._server is None:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "local.warm"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**self._env, "_KFP_RUNTIME": "true"},
                start_new_session=True,
            )
        stdin, stdout = self._server.stdin, self._server.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(request) + "\n")
        stdin.flush()
        begun = stdout.readline()
        if not begun:  # killed before the fork: while it imported, most likely for its memory
            code, self._server = self._server.wait(), None
            return code or 1
        pid = int(json.loads(begun)["pid"])
        try:
            return int(json.loads(stdout.readline())["code"])
        except BaseException:
            with contextlib.suppress(KeyboardInterrupt):  # asked a second time: no grace
                _signal(pid, signal.SIGTERM)
                select.select([stdout], [], [], GRACE)
            _signal(pid, signal.SIGKILL)
            raise


def _run_cold(command: list[str], env: Mapping[str, str], log: Path) -> int:
    with log.open("ab") as stream:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=dict(env),
            start_new_session=True,
        )
        try:
            code = process.wait()
        except BaseException:
            with contextlib.suppress(KeyboardInterrupt, subprocess.TimeoutExpired):
                _signal(process.pid, signal.SIGTERM)
                process.wait(GRACE)
            _signal(process.pid, signal.SIGKILL)
            process.wait()
            raise
    return 128 - code if code > 128 and code - 128 in _SIGNALS else code  # a shell says 128 + N


def _signal(group: int, number: signal.Signals) -> None:
    for _ in range(20):
        try:
            os.killpg(group, number)
            return
        except ProcessLookupError:  # ended, or forked a moment ago and not yet the leader of its group
            time.sleep(0.01)
