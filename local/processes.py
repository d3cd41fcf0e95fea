"""The processes of steps: each its own process group, its output in the step's log, ended politely."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from local.warm import GRACE, parse_command

_SIGNALS = {int(number) for number in signal.Signals}


class StepProcesses:
    """Starts the processes of a run's steps, from a warm interpreter where that can be done; one for each step that
    runs at the same time.

    Use as a context manager.

    Args:
        env: environment of all steps.
        owned: descriptor of the lock on their temporary folder, which they hold too while they live.
    """

    def __init__(self, env: Mapping[str, str], owned: int) -> None:
        self._env, self._owned = dict(env), owned
        self._servers: list[subprocess.Popen[str]] = []
        self._idle: list[subprocess.Popen[str]] = []
        self._running: set[int] = set()
        self._stops = 0

    def __enter__(self) -> StepProcesses:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            with contextlib.suppress(OSError):
                server.stdin.close()  # type: ignore[union-attr]  # its signal to end
            server.kill()
            server.wait()

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called: no step is to begin."""
        return self._stops > 0

    def stop(self) -> None:
        """Asks all running steps to save their work and end; asked again, or after a while, ends them."""
        self._stops += 1
        self._signal_all(signal.SIGTERM if self._stops == 1 else signal.SIGKILL)
        if self._stops == 1:
            last = threading.Timer(GRACE, self._signal_all, (signal.SIGKILL,))
            last.daemon = True
            last.start()

    def _note(self, pid: int) -> None:
        self._running.add(pid)
        if self.stopping:  # it was started while the others were told
            _signal(pid, signal.SIGTERM)

    def _signal_all(self, number: signal.Signals) -> None:
        for pid in list(self._running):
            _signal(pid, number)

    def run(self, command: list[str], env: Mapping[str, str], log: Path) -> int:
        """Runs a step's command with `env` added; returns its exit code, -N if signal N ended it.

        Interrupted by a KeyboardInterrupt, it passes the wish on, waits for the step to save its work and raises again.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        component = parse_command(command)
        if component is None:
            return self._run_cold(command, {**self._env, **env}, log)
        return self._run_warm({**component, "env": dict(env), "log": str(log)})

    def _run_warm(self, request: Mapping[str, Any]) -> int:
        try:
            server = self._idle.pop()
        except IndexError:
            server = self._start()
        stdin, stdout = server.stdin, server.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(request) + "\n")
        stdin.flush()
        begun = stdout.readline()
        if not begun:  # killed before the fork: while it imported, most likely for its memory
            return server.wait() or 1
        pid = int(json.loads(begun)["pid"])
        self._note(pid)
        try:
            code = int(json.loads(stdout.readline())["code"])
        except BaseException:
            with contextlib.suppress(KeyboardInterrupt):  # asked a second time: no grace
                _signal(pid, signal.SIGTERM)
                select.select([stdout], [], [], GRACE)
            _signal(pid, signal.SIGKILL)
            raise
        finally:
            self._running.discard(pid)
        self._idle.append(server)
        return code

    def _run_cold(self, command: list[str], env: Mapping[str, str], log: Path) -> int:
        with log.open("ab") as stream:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=dict(env),
                start_new_session=True,
                pass_fds=(self._owned,),
            )
            self._note(process.pid)
            try:
                code = process.wait()
            except BaseException:
                with contextlib.suppress(KeyboardInterrupt, subprocess.TimeoutExpired):
                    _signal(process.pid, signal.SIGTERM)
                    process.wait(GRACE)
                _signal(process.pid, signal.SIGKILL)
                process.wait()
                raise
            finally:
                self._running.discard(process.pid)
        return 128 - code if code > 128 and code - 128 in _SIGNALS else code  # a shell says 128 + N

    def _start(self) -> subprocess.Popen[str]:
        server = subprocess.Popen(
            [sys.executable, "-P", "-m", "local.warm"],  # -P: nothing that lies in the folder here
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**self._env, "_KFP_RUNTIME": "true"},
            start_new_session=True,
            pass_fds=(self._owned,),
        )
        self._servers.append(server)
        return server


def _signal(group: int, number: signal.Signals) -> None:
    for _ in range(20):
        try:
            os.killpg(group, number)
            return
        except ProcessLookupError:  # ended, or forked a moment ago and not yet the leader of its group
            time.sleep(0.01)
