"""The pods of a TrainJob, as a step prints them: each line after its node; why one waits, was restarted or is lost."""

from __future__ import annotations

import time
from typing import Any

from components.train_jobs import TrainJobApi, one_line
from core.errors import UserError
from core.printable import say

STUCK = 300.0  # seconds that a container may fail to begin for a reason that does not pass by itself
UNMADE = 60.0  # seconds after which a pod that is not there is asked for
_RANK = "batch.kubernetes.io/job-completion-index"
_PASSING = {"ContainerCreating", "PodInitializing", "CrashLoopBackOff"}
_LASTING = {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError",
            "CreateContainerError", "RunContainerError"}  # fmt: skip


class NodePods:
    """What becomes of a job's pods, printed: logs, each line after its node; why one waits, restarted or is gone.

    Args:
        api: that tells of them.
        count: of nodes.
    """

    def __init__(self, api: TrainJobApi, count: int) -> None:
        self._api, self._count = api, count
        self.error = ""  # the last line of a node that says what is wrong
        self._seen: dict[str, str] = {}  # the time of the last line of each pod that was shown
        self._read: dict[str, float] = {}  # when the log of each was read
        self._starts: dict[str, int] = {}  # of the container of each
        self._told: set[tuple[str, str]] = set()
        self._since: dict[str, float] = {}  # since when what is not as it should be is so

    def look(self, *, made: bool) -> None:
        """Prints what is new.

        Args:
            made: whether there should be a pod for each node.

        Raises:
            UserError: a container cannot begin, or logs may not be read.
        """
        pods = self._api.pods()
        alive = [pod for pod in pods if pod.status.phase != "Failed"]
        if self._lasts("pods", made and len(alive) < self._count) > UNMADE:
            why = "; ".join(self._api.events()[-1:]) or f"kubectl describe job {self._api.name}-node-0 says why"
            self._tell("", f"{len(alive)} of {self._count} nodes have a pod: {why}")
        for pod in pods:
            name, rank = pod.metadata.name, (pod.metadata.labels or {}).get(_RANK, "?")
            waits = _waits(pod)
            if self._lasts(name, bool(waits) and waits.partition(":")[0] in _LASTING) > STUCK:
                raise UserError(f"train: node {rank} does not begin: {waits}")
            if waits:
                self._tell(name, f"node {rank} waits: {waits}")
            elif pod.status.phase != "Pending":
                self._log(pod, rank)
            if pod.status.phase == "Failed" and pod.status.reason:  # evicted, its node shut down
                self._tell(name, f"node {rank} is lost: {one_line(f'{pod.status.reason}: {pod.status.message}')}")

    def _lasts(self, what: str, so: bool) -> float:
        """For how many seconds it has been so."""
        if not so:
            self._since.pop(what, None)
            return 0.0
        return time.monotonic() - self._since.setdefault(what, time.monotonic())

    def _tell(self, pod: str, text: str) -> None:
        if (pod, text) not in self._told:
            self._told.add((pod, text))
            say(f"nodes: {text}")

    def _log(self, pod: Any, rank: str) -> None:
        """What a pod has printed since the last time. A container that was started again has a log of its own."""
        name, status = pod.metadata.name, next(iter(pod.status.container_statuses or ()), None)
        starts = status.restart_count if status else 0
        if starts > self._starts.get(name, 0):
            self._print(name, rank, self._api.log(name, previous=True))
            ended = status and status.last_state and status.last_state.terminated
            why = f": {ended.reason}, exit code {ended.exit_code}" if ended else ""
            say(f"nodes: node {rank} is started again{why}")
            self._read.pop(name, None)
        self._starts[name] = starts
        now, before = time.time(), self._read.get(name)
        more = {} if before is None else {"since_seconds": int(now - before) + 5}
        if text := self._api.log(name, **more):
            self._read[name] = now
            self._print(name, rank, text)

    def _print(self, pod: str, rank: str, text: str) -> None:
        for line in text.rstrip("\n").split("\n"):
            stamp, _, words = line.partition(" ")  # of nine decimals, so they sort as text
            if words and stamp > self._seen.get(pod, ""):
                self._seen[pod] = stamp
                self.error = words.removeprefix("error: ") if words.startswith("error: ") else self.error
                say(f"node {rank}: {words}")


def _waits(pod: Any) -> str:
    """Why the container of a pod does not run, as Kubernetes says it; empty if it runs, ran, or is about to."""
    for status in pod.status.container_statuses or ():
        waiting = status.state and status.state.waiting
        if waiting and waiting.reason and waiting.reason not in _PASSING:
            return one_line(f"{waiting.reason}: {waiting.message or ''}").rstrip(": ")
    for condition in pod.status.conditions or ():
        if condition.type == "PodScheduled" and condition.status == "False":
            return one_line(f"{condition.reason}: {condition.message or ''}")
    return ""
