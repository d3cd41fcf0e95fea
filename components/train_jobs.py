"""What a step asks of a Kubernetes API for one TrainJob of Kubeflow Trainer 2: the object, its pods, their logs.

https://www.kubeflow.org/docs/components/trainer. What passes is asked again; no request waits for ever.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.printable import say

INTERVAL = 5.0  # seconds between two looks
PATIENCE = 900.0  # seconds that the API may not answer
GROUP, VERSION, PLURAL = "trainer.kubeflow.org", "v1alpha1", "trainjobs"
NEEDS = "install Kubeflow Trainer 2.3 or newer"
RIGHTS = (
    *((GROUP, PLURAL, verb) for verb in ("create", "get", "delete")),
    ("", "pods", "list"),
    ("", "pods/log", "get"),
    ("", "events", "list"),
)
"""(group, resource, verb): what the account of the step must be allowed in its namespace."""
_OF_JOB = "jobset.sigs.k8s.io/jobset-name"  # label of its pods
_IN_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two pieces of an answer


class TrainJobApi:
    """The API of the cluster of this pod, or of the one that KUBECONFIG names.

    Args:
        name: of the job.

    Raises:
        UserError: there is none.
    """

    def __init__(self, name: str) -> None:
        from kubernetes import client, config

        try:
            if file := os.environ.get("KUBECONFIG"):
                config.load_kube_config(file)
            else:
                config.load_incluster_config()
        except config.ConfigException as error:
            raise UserError(f"train: no Kubernetes API to be asked for nodes: {error}") from None
        self.name, self.namespace = name, _namespace()
        self._objects, self._core = client.CustomObjectsApi(), client.CoreV1Api()
        self._place = {"group": GROUP, "version": VERSION, "plural": PLURAL, "namespace": self.namespace}
        self._allowed: set[str] = set()  # what was answered before
        self._silent: set[str] = set()  # pods whose log could not be read, as was said

    def get(self) -> dict[str, Any] | None:
        """The job; None if it is not there."""
        job: dict[str, Any] | None = self._ask("get", self._objects.get_namespaced_custom_object, name=self.name)
        return job

    def create(self, body: Mapping[str, Any]) -> None:
        """Creates it; nothing happens if one of that name is there. Strict: an older Trainer would drop what it does
        not know, the node's account and secrets among it, and begin."""
        made = self._ask(
            "create", self._objects.create_namespaced_custom_object, body=dict(body), field_validation="Strict"
        )
        if made is None:
            raise UserError(f"train: this cluster has no TrainJob of {GROUP}/{VERSION}; {NEEDS}")

    def delete(self) -> None:
        """Deletes it with its pods and waits until it is gone; nothing happens if it is not there."""
        options: dict[str, Any] = {"name": self.name, "propagation_policy": "Foreground"}
        deadline = time.monotonic() + PATIENCE
        while self._ask("delete", self._objects.delete_namespaced_custom_object, **options) is not None:
            if time.monotonic() > deadline:
                raise failure(f"TrainJob {self.namespace}/{self.name} is still there; its pods do not end")
            time.sleep(min(1.0, INTERVAL))

    def pods(self) -> list[Any]:
        """Its pods, by name."""
        seen = self._ask("list", self._core.list_namespaced_pod, label_selector=f"{_OF_JOB}={self.name}", place=False)
        return sorted(seen.items if seen else (), key=lambda pod: str(pod.metadata.name))

    def log(self, pod: str, **which: Any) -> str:
        """What a pod printed, with times. The node of a pod may be gone, or its container not begun: then nothing.

        Raises:
            UserError: this account may not read logs.
        """
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            text = self._core.read_namespaced_pod_log(
                pod, self.namespace, container="node", timestamps=True, _request_timeout=_TIMEOUT, **which
            )
        except (ApiException, HTTPError, OSError) as error:
            status = getattr(error, "status", 0) or 0
            if status in (401, 403) and "log" not in self._allowed:
                raise UserError(f"train: the Kubernetes API refuses it: {_said(error)}") from None
            if status not in (400, 404) and pod not in self._silent:
                self._silent.add(pod)
                say(f"nodes: the log of {pod} cannot be read now: {_said(error)}")
            return ""
        self._allowed.add("log")
        self._silent.discard(pod)
        return str(text or "")

    def events(self) -> list[str]:
        """Why its pods could not be made, as Kubernetes says it; empty if it does not, or not to this account."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        fields = f"involvedObject.kind=Job,involvedObject.name={self.name}-node-0,type=Warning"
        try:
            seen = self._core.list_namespaced_event(self.namespace, field_selector=fields, _request_timeout=_TIMEOUT)
        except (ApiException, HTTPError, OSError):
            return []
        return [one_line(f"{event.reason}: {event.message}") for event in seen.items]

    def _ask(self, what: str, call: Callable[..., Any], *, place: bool = True, **arguments: Any) -> Any:
        """What the API answers; None for 404, {} for 409. What passes is asked again, a refusal too of what was allowed
        before: tokens and rights are renewed.

        Raises:
            UserError: it refuses, or answers nothing for `PATIENCE`.
        """
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        arguments |= self._place if place else {"namespace": self.namespace}
        deadline, said = time.monotonic() + PATIENCE, False
        while True:
            try:
                answer = call(_request_timeout=_TIMEOUT, **arguments)
                self._allowed.add(what)
                return answer
            except ApiException as error:
                if error.status in (404, 409):
                    return {} if error.status == 409 else None
                why = _said(error)
                refused = error.status not in (0, 408, 429) and error.status < 500
                known = error.status in (401, 403) and what in self._allowed
                if refused and (not known or time.monotonic() > deadline):
                    hint = f"; {NEEDS}" if "unknown field" in why else ""
                    raise UserError(f"train: the Kubernetes API refuses it: {why}{hint}") from None
            except (HTTPError, OSError) as error:
                why = type(error).__name__
            if time.monotonic() > deadline:
                raise failure(f"the Kubernetes API does not answer for {PATIENCE:.0f} s: {why}")
            if not said:
                say(f"nodes: the Kubernetes API answers {why}; asked again for {PATIENCE / 60:.0f} minutes")
                said = True
            time.sleep(INTERVAL)


def failure(text: str) -> UserError:
    """An error that is no mistake of input: exit code 1, and the same step may be tried again."""
    error = UserError(f"train: {text}")
    error.EXIT_CODE = 1
    return error


def one_line(text: str, most: int = 300) -> str:
    """What Kubernetes says, on one line."""
    return " ".join(text.split())[:most]


def _said(error: Any) -> str:
    from core import jsontext

    if not getattr(error, "status", None):
        return type(error).__name__
    try:
        text = jsontext.parse(error.body.encode(), "answer")["message"]
    except (UserError, AttributeError, KeyError, TypeError):
        text = error.reason
    return f"{error.status}: {one_line(str(text))}"


def owner() -> dict[str, Any]:
    """Owner reference to the pod of this step, where KFP says which it is: Kubernetes removes the job with it."""
    name, uid = os.environ.get("KFP_POD_NAME"), os.environ.get("KFP_POD_UID")
    if not name or not uid:
        return {}
    return {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}]}


def account(folder: Path = _IN_POD) -> str:
    """The service account that this pod runs as, by its own token; empty outside of a cluster."""
    import base64
    import json

    try:
        payload = (folder / "token").read_text().split(".")[1]
        subject = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sub"]
    except (OSError, ValueError, LookupError, TypeError):
        return ""
    return str(subject).rpartition(":")[2] if str(subject).startswith("system:serviceaccount:") else ""


def _namespace() -> str:
    if (file := _IN_POD / "namespace").exists():
        return file.read_text().strip()
    from kubernetes import config

    return str(
        config.list_kube_config_contexts(os.environ.get("KUBECONFIG"))[1]["context"].get("namespace") or "default"
    )
