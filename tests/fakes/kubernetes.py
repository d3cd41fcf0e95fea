"""The part of a Kubernetes API that components/trainer.py talks to, with Kubeflow Trainer 2 behind it.

    with Kubernetes(folder) as cluster:
        os.environ["KUBECONFIG"] = str(cluster.config)

A TrainJob is read by the official models of its API, which are made of its CRD, and by the rules of the CRD and of the
trainer's webhooks; a field that they do not know is refused. Its nodes run here as processes of this machine, by the
command of the image. As in the trainer: PET_* in their environments, a container that fails is started again in its pod
up to `backoff` times, a pod that is lost gets a successor, conditions Complete and Failed. Different: all nodes have
one address, and a port of this machine.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

ROOT = Path(__file__).parents[2]
NAMESPACE = "team"
_JOBS = f"/apis/trainer.kubeflow.org/v1alpha1/namespaces/{NAMESPACE}/trainjobs"
_PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
_RESERVED = {"PET_NNODES", "PET_NPROC_PER_NODE", "PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT"}


class RefusedError(Exception):
    """An answer that is no success: its HTTP status and message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Pod:
    """A node's pod, and its container's process."""

    name: str
    rank: int
    process: subprocess.Popen[str]
    lines: list[tuple[str, str]] = field(default_factory=list)
    starts: int = 1
    lost: bool = False

    def phase(self) -> str:
        code = self.process.poll()
        return "Running" if code is None else ("Succeeded" if code == 0 else "Failed")


class Kubernetes:
    """One API server on this machine.

    Args:
        folder: gets the kubeconfig.
        secrets: values of the cluster's secrets, by name and key.
        backoff: how often a container may fail.
    """

    def __init__(
        self, folder: Path, *, secrets: Mapping[str, Mapping[str, str]] | None = None, backoff: int = 6
    ) -> None:
        self.secrets, self.backoff = secrets or {}, backoff
        self.jobs: dict[str, dict[str, Any]] = {}
        self.created: list[dict[str, Any]] = []
        self.pods: dict[str, list[Pod]] = {}
        self.forbidden: set[str] = set()  # verbs that the service account may not
        self.trainer = True  # whether the CRD is there
        self.unavailable = 0  # requests that are answered with 503
        self.lock = threading.RLock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.config = folder / "kubeconfig"
        self.config.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{self._server.server_address[1]}"}}],
            "users": [{"name": "step", "user": {"token": "token"}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "step", "namespace": NAMESPACE}}],
        }))  # fmt: skip

    def lose(self, name: str, rank: int) -> None:
        """A node is gone with its pod; Kubernetes makes another pod."""
        with self.lock:
            (pod,) = [pod for pod in self.pods[name] if pod.rank == rank and not pod.lost]
            pod.lost = True
            _kill(pod)
            self.pods[name].append(self._pod(self.jobs[name], rank))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        with self.lock:
            for name in list(self.jobs):
                self.delete(name)

    def __enter__(self) -> Kubernetes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        check(body)
        name = body["metadata"]["name"]
        if name in self.jobs:
            raise RefusedError(409, f'trainjobs.trainer.kubeflow.org "{name}" already exists')
        self.created.append(body)
        self.jobs[name] = job = {**body, "status": {}}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            job["port"] = free.getsockname()[1]
        self.pods[name] = [self._pod(job, rank) for rank in range(body["spec"]["trainer"]["numNodes"])]
        threading.Thread(target=self._follow, args=(job,), daemon=True).start()
        return job

    def delete(self, name: str) -> dict[str, Any]:
        job = self.jobs.pop(name)
        for pod in self.pods.pop(name):
            pod.lost = True
            _kill(pod)
        return job

    def _pod(self, job: dict[str, Any], rank: int) -> Pod:
        name = job["metadata"]["name"]
        pod = Pod(f"{name}-node-0-{rank}-{os.urandom(3).hex()[:5]}", rank, self._process(job, rank))
        threading.Thread(target=_read, args=(pod, pod.process), daemon=True).start()
        return pod

    def _process(self, job: dict[str, Any], rank: int) -> subprocess.Popen[str]:
        trainer = job["spec"]["trainer"]
        assert trainer["command"] == ["textdiffusion"]
        env = {key: os.environ[key] for key in ("PATH", "HOME", "OMP_NUM_THREADS") if key in os.environ}
        for item in trainer["env"]:
            source = item.get("valueFrom", {}).get("secretKeyRef")
            env[item["name"]] = self.secrets[source["name"]][source["key"]] if source else item["value"]
        env |= {"PET_NNODES": str(trainer["numNodes"]), "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
                "PET_NODE_RANK": str(rank), "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(job["port"]),
                "PYTHONPATH": str(ROOT)}  # fmt: skip
        return subprocess.Popen([sys.executable, "-m", "components", *trainer["args"]], env=env, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)  # fmt: skip

    def _follow(self, job: dict[str, Any]) -> None:
        name = job["metadata"]["name"]
        while True:
            time.sleep(0.05)
            with self.lock:
                if self.jobs.get(name) is not job:
                    return
                alive = [pod for pod in self.pods[name] if not pod.lost]
                for pod in (pod for pod in alive if pod.phase() == "Failed"):
                    if pod.starts > self.backoff:
                        job["status"] = _condition(
                            "Failed", "FailedJobs", "jobset failed due to one or more job failures"
                        )
                        return
                    pod.starts += 1
                    pod.process = self._process(job, pod.rank)
                    threading.Thread(target=_read, args=(pod, pod.process), daemon=True).start()
                if all(pod.phase() == "Succeeded" for pod in alive):
                    job["status"] = _condition("Complete", "AllJobsCompleted", "jobset completed successfully")
                    return

    def answer(self, method: str, url: str, authorization: str, body: bytes) -> tuple[int, Any]:
        """(status, JSON or text) for one request."""
        path, query = urlsplit(url).path, {k: v[0] for k, v in parse_qs(urlsplit(url).query).items()}
        if authorization != "Bearer token":
            raise RefusedError(401, "Unauthorized")
        if self.unavailable:
            self.unavailable -= 1
            raise RefusedError(503, "the server is currently unable to handle the request")
        what = "trainjobs" if path.startswith(_JOBS) else "pods/log" if path.endswith("/log") else "pods"
        verb = f"{ {'GET': 'get', 'POST': 'create', 'DELETE': 'delete'}[method] } {what}"
        if verb in self.forbidden:
            raise RefusedError(403, f'User "system:serviceaccount:{NAMESPACE}:step" cannot {verb}')
        if what == "trainjobs" and not self.trainer:
            raise RefusedError(404, "the server could not find the requested resource")
        if (method, path) == ("POST", _JOBS):
            return 201, self.create(json.loads(body))
        if path.startswith(f"{_JOBS}/"):
            name = path.removeprefix(f"{_JOBS}/")
            if name not in self.jobs:
                raise RefusedError(404, f'trainjobs.trainer.kubeflow.org "{name}" not found')
            return 200, self.jobs[name] if method == "GET" else self.delete(name)
        if (method, path) == ("GET", _PODS):
            key, _, name = query["labelSelector"].partition("=")
            assert key == "jobset.sigs.k8s.io/jobset-name"
            return 200, {"apiVersion": "v1", "kind": "PodList", "items": [
                {"metadata": {"name": pod.name, "labels": {key: name, "batch.kubernetes.io/job-completion-index":
                                                           str(pod.rank)}}, "status": {"phase": pod.phase()}}
                for pod in self.pods.get(name, ()) if not pod.lost
            ]}  # fmt: skip
        if match := re.fullmatch(rf"{_PODS}/([^/]+)/log", path):
            assert (query["container"], query["timestamps"]) == ("node", "True")
            for pod in (pod for pods in self.pods.values() for pod in pods if pod.name == match[1]):
                since = time.time() - int(query.get("sinceSeconds", 10**9))
                after = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(max(0.0, since)))
                return 200, "".join(f"{stamp} {line}" for stamp, line in pod.lines if stamp >= after)
        raise RefusedError(404, f"{path} not found")


def check(body: dict[str, Any]) -> None:
    """Raises RefusedError (422) for what the CRD or the trainer's webhooks refuse."""
    from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob
    from pydantic import ValidationError

    try:
        known = TrainerV1alpha1TrainJob.from_dict(body).to_dict() == body
    except ValidationError as error:
        raise RefusedError(422, str(error.errors()[0])) from None
    spec, name = body["spec"], body["metadata"].get("name", "")
    patches = [patch["template"]["spec"]["template"]["spec"] for runtime in spec.get("runtimePatches", ())
               for patch in runtime["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]]  # fmt: skip
    names = [item["name"] for item in spec["trainer"]["env"]]
    rules = {
        "strict decoding error: unknown field": known,
        "metadata.name must match RFC 1035 DNS label format": bool(re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)),
        "metadata.name must be no more than 63 characters": len(name) <= 63,
        "spec.runtimeRef: not found": spec["runtimeRef"] == {"name": "torch-distributed"},
        "must be greater than or equal to 1": spec.get("activeDeadlineSeconds", 1) >= 1,
        "spec.trainer.env: must not have reserved envs": not _RESERVED & set(names),
        "spec.trainer.env: Duplicate value": len(names) == len(set(names)) <= 128,
        "spec.trainer.args: Too long": all(len(spec["trainer"].get(key, ())) <= 128 for key in ("args", "command")),
        "must not have envs for the node containers": all("env" not in c for pod in patches for c in pod["containers"]),
        "metadata.ownerReferences: uid must not be empty": all(
            owner["uid"] and owner["name"] for owner in body["metadata"].get("ownerReferences", ())
        ),
    }  # fmt: skip
    for words, kept in rules.items():
        if not kept:
            raise RefusedError(422, f"TrainJob.trainer.kubeflow.org {name!r} is invalid: {words}")


def _condition(kind: str, reason: str, message: str) -> dict[str, Any]:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"conditions": [{"type": kind, "status": "True", "reason": reason, "message": message,
                            "lastTransitionTime": stamp}]}  # fmt: skip


def _kill(pod: Pod) -> None:
    try:
        os.killpg(pod.process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    pod.process.wait()


def _read(pod: Pod, process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        now = time.time_ns()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)) + f".{now % 10**9:09d}Z"
        pod.lines.append((stamp, line))


def _handler(cluster: Kubernetes) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                with cluster.lock:
                    authorization = self.headers.get("authorization", "")
                    status, answer = cluster.answer(self.command, self.path, authorization, body)
            except RefusedError as error:
                status, answer = error.status, {"kind": "Status", "status": "Failure", "message": str(error)}
            text = answer if isinstance(answer, str) else json.dumps(answer)
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if isinstance(answer, str) else "application/json")
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = do_DELETE = _do  # noqa: N815  # names of the library

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler
