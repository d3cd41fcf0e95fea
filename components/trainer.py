"""A TrainJob of Kubeflow Trainer 2, from its beginning to its end: created, watched, its logs joined, deleted.

https://www.kubeflow.org/docs/components/trainer. The job belongs to the pod of the step (an owner reference), so
Kubernetes removes it with that pod, whatever becomes of this process. The pod's service account must be allowed what
docs/distributed.md lists.
"""

from __future__ import annotations

import contextlib
import copy
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.printable import say
from core.processes.elastic import STOPPED

RESTARTS = 3  # of the whole job, after those that Kubernetes made of its pods
INTERVAL = 5.0  # seconds between two looks
PATIENCE = 900.0  # seconds that the API may not answer
_KIND = {"group": "trainer.kubeflow.org", "version": "v1alpha1", "plural": "trainjobs"}
_OF_JOB = "jobset.sigs.k8s.io/jobset-name"  # label of its pods
_RANK = "batch.kubernetes.io/job-completion-index"
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def train_on_nodes(job: Mapping[str, Any], name: str, order: str, refusal: Callable[[], str]) -> None:
    """Trains by a TrainJob until it is complete; goes on with one of that name that an earlier try left.

    Args:
        job: the object, without a name.
        name: it gets.
        order: URI of what its nodes are to do.
        refusal: why a node refused it, empty if none did.

    Raises:
        UserError: a node or the cluster refuses it, its time is over, or this step was asked to stop.
        RuntimeError: it failed, after all restarts.
    """
    body = copy.deepcopy(dict(job))
    body["metadata"] = {**body.get("metadata", {}), "name": name, **_owner(os.environ)}
    body["spec"]["trainer"]["args"] = ["train-node", "--order", order]
    watched = _Watched(body, name)
    with _stoppable():
        try:
            watched.follow(refusal)
        finally:
            watched.delete()


class _Watched:
    """One TrainJob, as the API tells of it."""

    def __init__(self, body: dict[str, Any], name: str) -> None:
        from kubernetes import client, config

        try:
            if file := os.environ.get("KUBECONFIG"):
                config.load_kube_config(file)
            else:
                config.load_incluster_config()
        except config.ConfigException as error:
            raise UserError(f"train: no Kubernetes API to be asked for nodes: {error}") from None
        self._body, self._name, self._namespace = body, name, _namespace()
        self._objects, self._pods = client.CustomObjectsApi(), client.CoreV1Api()
        self._place = {**_KIND, "namespace": self._namespace}
        self._seen: dict[str, str] = {}  # the time of the last line of each pod that was shown
        self._read: dict[str, float] = {}  # when the log of each was read

    def follow(self, refusal: Callable[[], str]) -> None:
        """Until it is complete. One that failed, or was removed with the node of an earlier try, is begun anew."""
        failed, said = 0, ""
        while True:
            job = self._get()
            if job is None:
                self._create()
                count = self._body["spec"]["trainer"]["numNodes"]
                say(f"nodes: TrainJob {self._namespace}/{self._name} on {count} nodes")
            kind, reason = _state(job or {})
            if kind and kind != said:
                say(f"nodes: {kind}{f': {reason}' if reason else ''}")
            said = kind
            self._logs()
            if kind == "Complete":
                return
            if text := refusal():
                raise UserError(text)
            if kind == "Failed":
                if reason.startswith("DeadlineExceeded"):
                    raise UserError("train: resources.timeout_hours is over; run again, it goes on")
                failed += 1
                if failed > RESTARTS:
                    raise RuntimeError(f"the training on nodes failed {failed} times: {reason}")
                self.delete()
                say(f"nodes: restart {failed} of {RESTARTS}, from the last checkpoint")
                continue
            time.sleep(INTERVAL)

    def delete(self) -> None:
        """Deletes it with its pods and waits until it is gone; nothing happens if it is not there."""
        options = {"name": self._name, "propagation_policy": "Foreground"}
        deadline = time.monotonic() + PATIENCE
        while self._ask(lambda: self._objects.delete_namespaced_custom_object(**self._place, **options)) is not None:
            if time.monotonic() > deadline:
                raise RuntimeError(f"TrainJob {self._namespace}/{self._name} is still there; its pods do not end")
            time.sleep(min(1.0, INTERVAL))

    def _get(self) -> dict[str, Any] | None:
        job: dict[str, Any] | None = self._ask(
            lambda: self._objects.get_namespaced_custom_object(**self._place, name=self._name)
        )
        return job

    def _create(self) -> None:
        made = self._ask(lambda: self._objects.create_namespaced_custom_object(**self._place, body=self._body))
        if made is None:
            raise UserError("train: this cluster has no TrainJob; install Kubeflow Trainer 2.3 or newer")

    def _logs(self) -> None:
        """Prints what the pods have printed since the last time, each line after its node."""
        wanted = f"{_OF_JOB}={self._name}"
        pods = self._ask(lambda: self._pods.list_namespaced_pod(self._namespace, label_selector=wanted))
        for pod in sorted(pods.items if pods else (), key=lambda pod: str(pod.metadata.name)):
            if pod.status.phase == "Pending":
                continue
            name = pod.metadata.name
            text = self._ask(partial(self._log, name), passing=(400,))  # its container is about to start
            for line in (text or "").rstrip("\n").split("\n"):
                stamp, _, words = line.partition(" ")  # of nine decimals, so they sort as text
                if words and stamp > self._seen.get(name, ""):
                    self._seen[name] = stamp
                    say(f"node {(pod.metadata.labels or {}).get(_RANK, '?')}: {words}")

    def _log(self, pod: str) -> str:
        """What a pod has printed, of what was read before the last seconds alone."""
        now, before = time.time(), self._read.get(pod)
        more = {} if before is None else {"since_seconds": int(now - before) + 5}
        text = self._pods.read_namespaced_pod_log(pod, self._namespace, container="node", timestamps=True, **more)
        self._read[pod] = now
        return str(text or "")

    def _ask(self, call: Callable[[], Any], *, passing: tuple[int, ...] = ()) -> Any:
        """What the API answers; None for 404, 409 and those of `passing`. What passes is asked again.

        Raises:
            UserError: it refuses.
        """
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return call()
            except ApiException as error:
                if error.status in (404, 409, *passing):
                    return {} if error.status == 409 else None
                if error.status not in (0, 429) and error.status < 500:
                    raise UserError(f"train: the Kubernetes API refuses it: {_said(error)}") from None
                why = f"{error.status} {error.reason}"
            except (HTTPError, OSError) as error:
                why = type(error).__name__
            if time.monotonic() > deadline:
                raise RuntimeError(f"the Kubernetes API does not answer for {PATIENCE:.0f} s: {why}")
            time.sleep(INTERVAL)


def _state(job: Mapping[str, Any]) -> tuple[str, str]:
    """(Complete, Failed, Suspended or nothing; why), of its conditions."""
    for kind in ("Complete", "Failed", "Suspended"):
        for condition in (job.get("status") or {}).get("conditions") or ():
            if condition["type"] == kind and condition["status"] == "True":
                return kind, f"{condition.get('reason', '')}: {condition.get('message', '')}".strip(": ")
    return "", ""


def _said(error: Any) -> str:
    from core import jsontext

    try:
        text = jsontext.parse(error.body.encode(), "answer")["message"]
    except (UserError, AttributeError, KeyError, TypeError):
        text = error.reason
    return f"{error.status}: {' '.join(str(text).split())[:300]}"


def _owner(environment: Mapping[str, str]) -> dict[str, Any]:
    """Owner reference to the pod of this step, where KFP says which it is."""
    name, uid = environment.get("KFP_POD_NAME"), environment.get("KFP_POD_UID")
    if not name or not uid:
        return {}
    return {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}]}


def _namespace() -> str:
    if _NAMESPACE.exists():
        return _NAMESPACE.read_text().strip()
    from kubernetes import config

    return str(
        config.list_kube_config_contexts(os.environ.get("KUBECONFIG"))[1]["context"].get("namespace") or "default"
    )


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
