"""A training on several nodes, from the beginning of its TrainJob to its end: watched, its logs joined, deleted.

The job belongs to the pod of the step (an owner reference), so Kubernetes removes it with that pod, whatever becomes of
this process. The pod's service account must be allowed what docs/distributed.md lists.
"""

from __future__ import annotations

import contextlib
import copy
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from components import train_jobs
from components.node_pods import NodePods
from components.train_jobs import TrainJobApi, failure
from core.errors import UserError
from core.printable import say
from core.processes.elastic import STOPPED
from core.storage.faults import StorageError
from core.storage.integrity import digest

RESTARTS = 3  # of the whole job, after those that Kubernetes made of its pods
_ORDER = "textdiffusion/order"  # annotation: the hash of what was asked for
_OURS = ("app.kubernetes.io/name", "textdiffusion")

_T = TypeVar("_T")


def train_on_nodes(
    job: Mapping[str, Any], name: str, order: str, *, refusal: Callable[[], str], finished: Callable[[], bool]
) -> None:
    """Trains by a TrainJob until it is complete; goes on with the same one that an earlier try left.

    Args:
        job: the object, without a name.
        name: it gets.
        order: URI of what its nodes are to do.
        refusal: why a node refused it, empty if none did.
        finished: whether the nodes have left a result.

    Raises:
        UserError: a node or the cluster refuses it, its time is over, it failed after all restarts, or this step was
            asked to stop; the exit code tells which.
    """
    watched = _Watched(_named(job, name, order), TrainJobApi(name))
    with _stoppable():
        try:
            watched.follow(refusal, finished)
        finally:
            watched.leave()


def _named(job: Mapping[str, Any], name: str, order: str) -> dict[str, Any]:
    body = copy.deepcopy(dict(job))
    body["spec"]["trainer"]["args"] = ["train-node", "--order", order]
    if account := train_jobs.account():  # whose rights to storage the step has
        for patch in body["spec"]["runtimePatches"]:
            for replicated in patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]:
                replicated["template"]["spec"]["template"]["spec"].setdefault("serviceAccountName", account)
    asked = {_ORDER: digest(body)[:16]}
    body["metadata"] = {**body.get("metadata", {}), "name": name, "annotations": asked, **train_jobs.owner()}
    return body


class _Watched:
    """One TrainJob, as the API tells of it."""

    def __init__(self, body: dict[str, Any], api: TrainJobApi) -> None:
        self._body, self._api = body, api
        self._title = f"TrainJob {api.namespace}/{api.name}"
        self._held = False  # whether one of that name is this step's
        self._deadline: float | None = None
        self._dark: float | None = None  # since when storage does not answer
        self._pods = NodePods(api, int(body["spec"]["trainer"]["numNodes"]))

    def follow(self, refusal: Callable[[], str], finished: Callable[[], bool]) -> None:
        """Until it is complete. One that failed, or was removed with the node of an earlier try, is begun anew."""
        failed, said = 0, ""
        while True:
            job = self._api.get()
            if job is None or not self._is_as_asked(job):
                self._create()
                continue
            kind, reason = _state(job)
            if kind and kind != said:
                say(f"nodes: {kind}{f': {reason}' if reason else ''}")
            said = kind
            self._pods.look(made=not kind)
            if text := self._stored(refusal):
                raise UserError(text)
            done = self._stored(finished) if kind in ("Complete", "Failed") else None
            if done:
                return
            if done is not None:
                if reason.startswith("DeadlineExceeded"):
                    raise UserError("train: resources.timeout_hours is over; run again, it goes on")
                why = reason if kind == "Failed" else "its nodes ended without a result"
                failed += 1
                if failed > RESTARTS:
                    last = f"; a node said: {self._pods.error}" if self._pods.error else ""
                    raise failure(f"the training on nodes failed {failed} times: {why}{last}")
                self._api.delete()
                say(f"nodes: restart {failed} of {RESTARTS}, from the last checkpoint: {why}")
                continue
            time.sleep(train_jobs.INTERVAL)

    def _stored(self, ask: Callable[[], _T]) -> _T | None:
        """What the nodes left in storage; None while that does not answer, which for a while is no reason to end."""
        try:
            answer = ask()
        except StorageError as error:
            if self._dark is None:
                say(f"nodes: {error}; asked again")
                self._dark = time.monotonic()
            if time.monotonic() - self._dark > train_jobs.PATIENCE:
                raise
            return None
        self._dark = None
        return answer

    def leave(self) -> None:
        """Deletes it, if it is this step's. What is in the way is no error of the training's."""
        if not self._held:
            return
        try:
            self._api.delete()
        except UserError as error:
            if error.EXIT_CODE == STOPPED:
                raise
            say(f"warning: {self._title} is left, until this step's pod is removed: {error}")

    def _is_as_asked(self, job: Mapping[str, Any]) -> bool:
        """Whether a job is what this step asks for; else it is deleted.

        Raises:
            UserError: it is somebody else's.
        """
        metadata = job["metadata"]
        if (metadata.get("labels") or {}).get(_OURS[0]) != _OURS[1]:
            raise UserError(f"train: {self._title} is there and was not made by a training; delete or rename it")
        self._held = True
        same = (metadata.get("annotations") or {}).get(_ORDER) == self._body["metadata"]["annotations"][_ORDER]
        if same and not metadata.get("deletionTimestamp"):
            return True
        say(f"nodes: {self._title} of an earlier try {'is ending' if same else 'was made otherwise'}; begun anew")
        self._api.delete()
        return False

    def _create(self) -> None:
        """Creates it; what it was begun before has taken is taken off its time."""
        limit = self._body["spec"].get("activeDeadlineSeconds")
        if limit is not None:
            self._deadline = self._deadline or time.monotonic() + limit
            left = round(self._deadline - time.monotonic())
            if left < 1:
                raise UserError("train: resources.timeout_hours is over; run again, it goes on")
            self._body["spec"]["activeDeadlineSeconds"] = left
        self._held = True  # also where this is interrupted before the answer
        try:
            self._api.create(self._body)
        except UserError as error:
            self._held = error.EXIT_CODE != UserError.EXIT_CODE
            raise
        say(f"nodes: {self._title} on {self._body['spec']['trainer']['numNodes']} nodes")


def _state(job: Mapping[str, Any]) -> tuple[str, str]:
    """(Complete, Failed, Suspended or nothing; why), of its conditions."""
    for kind in ("Complete", "Failed", "Suspended"):
        for condition in (job.get("status") or {}).get("conditions") or ():
            if condition["type"] == kind and condition["status"] == "True":
                return kind, f"{condition.get('reason', '')}: {condition.get('message', '')}".strip(": ")
    return "", ""


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """While the block runs, SIGTERM, by which a run is cancelled, ends it by an error, so that nothing is left."""

    def stop(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_IGN)
        error = UserError("train: stopped by a signal; run again, it goes on")
        error.EXIT_CODE = STOPPED
        raise error

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
