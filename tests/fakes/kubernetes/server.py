"""The HTTP front of a Kubernetes API on this machine, and what Kubernetes does with a TrainJob.

    with Kubernetes(folder) as cluster:
        os.environ["KUBECONFIG"] = str(cluster.config)

A TrainJob is read by the official models of its API, which are made of its CRD, and by the rules of the CRD and of the
trainer's webhooks. Its nodes run here as processes of this machine, by the command of the image. As in the trainer:
PET_* in their environments, a container that fails is started again in its pod up to `backoff` times, a pod that is
lost gets a successor, conditions Complete and Failed; what belongs to a pod goes with it, and pods end before their
job is gone. Different: all nodes have one address, and a port of this machine.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.fakes.closing import Closing
from tests.fakes.kubernetes.pods import ROOT, Pod
from tests.fakes.kubernetes.rules import RefusedError, admitted

_GROUP = "/apis/trainer.kubeflow.org"


class Kubernetes(Closing):
    """One API server on this machine.

    Args:
        folder: gets the kubeconfig.
        secrets: values of the cluster's secrets, by name and key.
        backoff: how often a container may fail.
        environment: variables of all containers.
        namespace: the one that it has.
    """

    def __init__(
        self,
        folder: Path,
        *,
        secrets: Mapping[str, Mapping[str, str]] | None = None,
        backoff: int = 6,
        environment: Mapping[str, str] = {},
        namespace: str = "team",
    ) -> None:
        self._namespace, self._core = namespace, f"/api/v1/namespaces/{namespace}"
        self._trainjobs = f"{_GROUP}/v1alpha1/namespaces/{namespace}/trainjobs"
        self.secrets, self.backoff, self.environment = secrets or {}, backoff, environment
        self.jobs: dict[str, dict[str, Any]] = {}
        self.created: list[dict[str, Any]] = []
        self.pods: dict[str, list[Pod]] = {}
        self.forbidden: set[str] = set()  # verbs that the service account may not
        self.served = ["v1alpha1"]  # versions of the CRD; empty: it is not there
        self.unknown: tuple[str, ...] = ()  # fields of a specification that an older CRD does not know
        self.runtimes = {"torch-distributed"}
        self.program: tuple[str, ...] = ()  # of Python, in place of the image's
        self.quota = ""  # why no pod can be made
        self.stuck: dict[int, tuple[str, str]] = {}  # why the container of a rank does not begin
        self.unreachable: set[int] = set()  # ranks whose node does not answer for a log
        self.unavailable = 0  # requests that are answered with 503
        self.refusals: list[int] = []  # statuses of the next answers, of which nothing comes
        self.lost = 0  # jobs that are made, and the answer is lost
        self.asked: list[dict[str, Any]] = []  # reviews of rights
        self.lock = threading.RLock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.config = folder / "kubeconfig"
        self.config.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{self._server.server_address[1]}"}}],
            "users": [{"name": "step", "user": {"token": "token"}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "step", "namespace": namespace}}],
        }))  # fmt: skip

    def lose(self, name: str, rank: int) -> None:
        """A node is gone with its pod; Kubernetes makes another pod."""
        with self.lock:
            (pod,) = [pod for pod in self.pods[name] if pod.rank == rank]
            pod.kill()
            self.pods[name].remove(pod)
            self._pod(name, rank)

    def remove_pod(self, uid: str) -> None:
        """A pod is removed, and with it what belongs to it."""
        with self.lock:
            for name, job in list(self.jobs.items()):
                if any(owner["uid"] == uid for owner in job["metadata"].get("ownerReferences", ())):
                    self.delete(name)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        with self.lock:
            for name in list(self.jobs):
                self._remove(name)

    def create(self, body: dict[str, Any], *, strict: bool = False) -> dict[str, Any]:
        body = admitted(body, strict=strict, unknown=self.unknown)
        name = body["metadata"]["name"]
        if name in self.jobs:
            raise RefusedError(409, f'trainjobs.trainer.kubeflow.org "{name}" already exists')
        self.created.append(body)
        self.jobs[name] = job = {**body, "status": {}}
        self.pods[name] = []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            job["port"] = free.getsockname()[1]
        threading.Thread(target=self._follow, args=(job,), daemon=True).start()
        return job

    def delete(self, name: str) -> dict[str, Any]:
        """Its pods end, then it is gone."""
        job = self.jobs[name]
        if "deletionTimestamp" not in job["metadata"]:
            job["metadata"] = {**job["metadata"], "deletionTimestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ")}
            threading.Timer(0.2, self._remove, (name,)).start()
        return job

    def _remove(self, name: str) -> None:
        with self.lock:
            self.jobs.pop(name, None)
            for pod in self.pods.pop(name, ()):
                pod.kill()

    def _pod(self, name: str, rank: int) -> None:
        trainer = self.jobs[name]["spec"]["trainer"]
        assert trainer["command"] == ["textdiffusion"]
        env = {key: os.environ[key] for key in ("PATH", "HOME", "OMP_NUM_THREADS") if key in os.environ}
        env |= self.environment
        for item in trainer["env"]:
            source = item.get("valueFrom", {}).get("secretKeyRef")
            env[item["name"]] = self.secrets[source["name"]][source["key"]] if source else item["value"]
        env |= {"PET_NNODES": str(trainer["numNodes"]), "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
                "PET_NODE_RANK": str(rank), "PET_MASTER_ADDR": "127.0.0.1",
                "PET_MASTER_PORT": str(self.jobs[name]["port"]), "PYTHONPATH": str(ROOT)}  # fmt: skip
        pod = Pod(f"{name}-node-0-{rank}-{os.urandom(3).hex()[:5]}", rank, env,
                  self.program or ("-m", "components", *trainer["args"]), self.stuck.get(rank))  # fmt: skip
        if not pod.waits:
            pod.start()
        self.pods[name].append(pod)

    def _follow(self, job: dict[str, Any]) -> None:
        name, count = job["metadata"]["name"], job["spec"]["trainer"]["numNodes"]
        while True:
            with self.lock:
                if self.jobs.get(name) is not job or "deletionTimestamp" in job["metadata"]:
                    return
                pods = self.pods[name]
                if not self.quota:
                    for rank in set(range(count)) - {pod.rank for pod in pods}:
                        self._pod(name, rank)
                for pod in (pod for pod in pods if pod.phase() == "Failed"):
                    if len(pod.ended) >= self.backoff:
                        job["status"] = _condition(
                            "Failed", "FailedJobs", "jobset failed due to one or more job failures"
                        )
                        return
                    pod.start()
                if len(pods) == count and all(pod.phase() == "Succeeded" for pod in pods):
                    job["status"] = _condition("Complete", "AllJobsCompleted", "jobset completed successfully")
                    return
            time.sleep(0.05)

    def answer(self, method: str, url: str, authorization: str, body: bytes) -> tuple[int, Any]:
        """(status, JSON or text) for one request."""
        path, query = urlsplit(url).path, {k: v[0] for k, v in parse_qs(urlsplit(url).query).items()}
        if authorization != "Bearer token":
            raise RefusedError(401, "Unauthorized")
        if self.unavailable:
            self.unavailable -= 1
            raise RefusedError(503, "the server is currently unable to handle the request")
        if self.refusals:
            raise RefusedError(self.refusals.pop(), "a moment ago it was allowed")
        if (
            path.startswith(("/apis/authorization.k8s.io", "/openapi", f"{self._core}/secrets"))
            or path == _GROUP + "/"
            or ("clustertrainingruntimes" in path)
        ):
            return self._of_doctor(path, body)
        what = "trainjobs" if path.startswith(_GROUP) else "pods/log" if path.endswith("/log") else path.split("/")[5]
        one = path.removeprefix(self._trainjobs).strip("/") if what == "trainjobs" else what == "pods/log"
        verb = {"GET": "get" if one else "list", "POST": "create", "DELETE": "delete"}[method]
        if f"{verb} {what}" in self.forbidden:
            raise RefusedError(403, f'User "system:serviceaccount:{self._namespace}:step" cannot {verb} {what}')
        if what == "trainjobs" and "v1alpha1" not in self.served:
            raise RefusedError(404, "the server could not find the requested resource")
        if (method, path) == ("POST", self._trainjobs):
            made = self.create(json.loads(body), strict=query.get("fieldValidation") == "Strict")
            if self.lost:
                self.lost -= 1
                raise RefusedError(504, "timeout")
            return 201, made
        if path.startswith(f"{self._trainjobs}/"):
            if one not in self.jobs:
                raise RefusedError(404, f'trainjobs.trainer.kubeflow.org "{one}" not found')
            return 200, self.jobs[str(one)] if method == "GET" else self.delete(str(one))
        if (method, path) == ("GET", f"{self._core}/pods"):
            key, _, name = query["labelSelector"].partition("=")
            assert key == "jobset.sigs.k8s.io/jobset-name"
            items = [pod.told(name) for pod in self.pods.get(name, ())]
            return 200, {"apiVersion": "v1", "kind": "PodList", "items": items}
        if (method, path) == ("GET", f"{self._core}/events"):
            message = f'pods "x" is forbidden: exceeded quota: {self.quota}'
            event = {"metadata": {"name": "e"}, "involvedObject": {}, "reason": "FailedCreate", "message": message}
            return 200, {"apiVersion": "v1", "kind": "EventList", "items": [event] if self.quota else []}
        if match := re.fullmatch(rf"{self._core}/pods/([^/]+)/log", path):
            return self._log(match[1], query)
        raise RefusedError(404, f"{path} not found")

    def _log(self, name: str, query: Mapping[str, str]) -> tuple[int, str]:
        assert (query["container"], query["timestamps"]) == ("node", "True")
        found = [pod for pods in self.pods.values() for pod in pods if pod.name == name]
        if not found:
            raise RefusedError(404, f'pods "{name}" not found')
        if found[0].rank in self.unreachable:
            raise RefusedError(502, f"Get https://10.0.0.{found[0].rank}:10250/containerLogs: dial tcp: i/o timeout")
        which = -2 if query.get("previous") == "True" else -1
        if len(found[0].logs) < -which:
            raise RefusedError(400, f'container "node" in pod "{name}" is waiting to start or has no previous one')
        since = time.time() - int(query.get("sinceSeconds", 10**9))
        after = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(max(0.0, since)))
        return 200, "".join(f"{when} {line}" for when, line in list(found[0].logs[which]) if when >= after)

    def _of_doctor(self, path: str, body: bytes) -> tuple[int, Any]:
        """Discovery, definitions, secrets, and whether an account may do something."""
        if path == f"/apis/authorization.k8s.io/v1/namespaces/{self._namespace}/localsubjectaccessreviews":
            if "create localsubjectaccessreviews" in self.forbidden:
                raise RefusedError(403, 'User "me" cannot create localsubjectaccessreviews')
            asked = json.loads(body)["spec"]
            self.asked.append(asked)
            wanted = asked["resourceAttributes"]
            what = "/".join(filter(None, (wanted["resource"], wanted.get("subresource"))))
            allowed = f"{wanted['verb']} {what}" not in self.forbidden
            return 201, {"spec": asked, "status": {"allowed": allowed}}
        if path == f"{_GROUP}/" and self.served:
            versions = [{"groupVersion": f"trainer.kubeflow.org/{name}", "version": name} for name in self.served]
            return 200, {"kind": "APIGroup", "name": "trainer.kubeflow.org", "versions": versions}
        if path == f"/openapi/v3{_GROUP}/v1alpha1":
            fields = {key: {} for key in ("trainer", "runtimeRef", "runtimePatches") if key not in self.unknown}
            schema = {"properties": {"spec": {"properties": fields}}}
            return 200, {"components": {"schemas": {"org.kubeflow.trainer.v1alpha1.TrainJob": schema}}}
        name = path.rpartition("/")[2]
        if "clustertrainingruntimes" in path and name in self.runtimes:
            return 200, {"metadata": {"name": name}}
        if path == f"{self._core}/secrets/{name}" and name in self.secrets:
            return 200, {"metadata": {"name": name}, "data": dict.fromkeys(self.secrets[name], "")}
        raise RefusedError(404, f"{path} not found")


def _condition(kind: str, reason: str, message: str) -> dict[str, Any]:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"conditions": [{"type": kind, "status": "True", "reason": reason, "message": message,
                            "lastTransitionTime": stamp}]}  # fmt: skip


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
