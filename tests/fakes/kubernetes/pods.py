"""The pods of a TrainJob: each is a process of this machine, by the command of the image, or one that cannot begin."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]


def stamp() -> str:
    """Now, as the log of a container has it."""
    now = time.time_ns()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)) + f".{now % 10**9:09d}Z"


@dataclass
class Pod:
    """A node's pod and its container, with a log for each of its starts."""

    name: str
    rank: int
    environment: Mapping[str, str]
    arguments: tuple[str, ...]
    waits: tuple[str, str] | None = None  # why the container does not begin: reason and message
    process: subprocess.Popen[str] | None = None
    logs: list[list[tuple[str, str]]] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)  # exit codes of the starts before

    def start(self) -> None:
        """Starts the container, again if it was started before."""
        if self.process is not None:
            self.ended.append(self.process.wait())
        self.process = subprocess.Popen([sys.executable, *self.arguments], text=True,
                                        env=dict(self.environment), cwd="/", stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, start_new_session=True)  # fmt: skip
        self.logs.append([])
        threading.Thread(target=_read, args=(self.process, self.logs[-1]), daemon=True).start()

    def kill(self) -> None:
        """Ends the container with all that it started."""
        if self.process is None:
            return
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()

    def phase(self) -> str:
        code = None if self.process is None else self.process.poll()
        return "Pending" if self.waits else "Running" if code is None else ("Succeeded" if code == 0 else "Failed")

    def told(self, job: str) -> dict[str, Any]:
        """The pod as the API has it."""
        state: dict[str, Any] = {"running": {}}
        conditions = [{"type": "PodScheduled", "status": "True"}]
        if self.waits and self.waits[0] == "Unschedulable":
            conditions[0] |= {"status": "False", "reason": self.waits[0], "message": self.waits[1]}
        elif self.waits:
            state = {"waiting": {"reason": self.waits[0], "message": self.waits[1]}}
        status = {"name": "node", "image": "image", "imageID": "", "ready": False, "restartCount": len(self.ended),
                  "state": state}  # fmt: skip
        if self.ended:
            reason = "OOMKilled" if self.ended[-1] == -signal.SIGKILL else "Error"
            code = self.ended[-1] if self.ended[-1] >= 0 else 128 - self.ended[-1]
            status["lastState"] = {"terminated": {"exitCode": code, "reason": reason}}
        unplaced = conditions[0]["status"] == "False"
        labels = {"jobset.sigs.k8s.io/jobset-name": job, "batch.kubernetes.io/job-completion-index": str(self.rank)}
        return {"metadata": {"name": self.name, "labels": labels}, "status": {
            "phase": self.phase(), "conditions": conditions, "containerStatuses": [] if unplaced else [status]
        }}  # fmt: skip


def _read(process: subprocess.Popen[str], lines: list[tuple[str, str]]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.append((stamp(), line))
