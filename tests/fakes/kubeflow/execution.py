"""One run being executed: a child process runs the steps, this side keeps the nodes of Argo's workflow.

What the API tells of nodes is what KFP's server makes of them (toModelTask, toApiPipelineTaskDetail): display names,
states, times in whole seconds, and the ids of children; neither a node's own id nor its message.
"""

from __future__ import annotations

import json
import os
import random
import signal
import string
import tempfile
import threading
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import kfp_server_api as api

from tests.fakes.kubeflow.messages import NEVER

ENDED = ("SUCCEEDED", "FAILED", "CANCELED")
_GRACE = 30.0  # seconds
_POD = timedelta(seconds=5)  # from a pod's order to its start


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def fnv(name: str) -> int:
    """FNV-1a of 32 bits."""
    value = 2166136261
    for byte in name.encode():
        value = (value ^ byte) * 16777619 % 2**32
    return value


@dataclass
class Node:
    """A node of Argo's workflow. `name` is its path."""

    name: str
    display: str
    state: str
    start: datetime
    end: datetime = NEVER
    children: list[str] = field(default_factory=list)


class Workflow:
    """The nodes of one run, and what its pods print."""

    def __init__(self, pipeline: str, spec: dict[str, Any]) -> None:
        self.name = f"{pipeline}-{''.join(random.choices(string.ascii_lowercase, k=5))}"
        self.nodes: dict[str, Node] = {}
        self.logs: dict[str, list[str]] = {}
        parts = [spec["root"], *spec["components"].values()]
        self._retried = {name for part in parts for name, task in part.get("dag", {}).get("tasks", {}).items()
                         if "retryPolicy" in task}  # fmt: skip
        self.add(self.name, self.name, "RUNNING")
        self.dag(self.name, "root")

    def id(self, name: str) -> str:
        return self.name if name == self.name else f"{self.name}-{fnv(name)}"

    def add(self, name: str, display: str, state: str, parent: str = "") -> Node:
        node = self.nodes[name] = Node(name, display, state, now(), now() if state in (*ENDED, "SKIPPED") else NEVER)
        if parent:
            self.nodes[parent].children.append(self.id(name))
        return node

    def dag(self, parent: str, task: str, state: str = "RUNNING") -> str:
        """A task that is a DAG, behind its driver; its path."""
        self.add(f"{parent}.{task}-driver", f"{task}-driver", "SUCCEEDED", parent)
        self.add(f"{parent}.{task}", task, state, parent)
        return f"{parent}.{task}"

    def pod(self, parent: str, task: str, attempt: int = 0) -> str:
        """A step's pod, behind its driver; the pod's name. Where a step may be retried, each attempt has one."""
        path = f"{parent}.{task}"
        if path not in self.nodes:
            self.dag(parent, task)
            self.nodes[path].start -= _POD
            self.add(f"{path}.executor", "executor", "RUNNING", path)
        name, template = f"{path}.executor", "system-container-impl"
        if task in self._retried:
            name, template = f"{name}({attempt})", f"retry-{template}"
            self.add(name, f"executor({attempt})", "RUNNING", f"{path}.executor")
        pod = f"{self.name}-{template}-{fnv(name)}"
        self.logs[pod] = []
        return pod

    def end(self, path: str, state: str) -> None:
        """A node ends with all below it. A step that was taken from the cache has a pod that is skipped."""
        cached, end = state == "CACHED", now()
        for node in self.nodes.values():
            if node.name == path or node.name.startswith(f"{path}."):
                if node.state in ("RUNNING", "PENDING"):
                    node.state, node.end = "SUCCEEDED" if cached else state, end
                if cached and node.name.endswith(".executor"):
                    node.state = "SKIPPED"
        if cached:
            self.nodes[path].start = self.nodes[path].end

    def details(self, run: str) -> list[Any]:
        made = sorted(self.nodes.values(), key=lambda node: self.id(node.name))
        return [
            api.V2beta1PipelineTaskDetail(
                run_id=run, task_id=str(uuid.uuid5(uuid.NAMESPACE_OID, node.name)), display_name=node.display,
                create_time=node.start, start_time=node.start, end_time=node.end, state=node.state,
                child_tasks=[api.PipelineTaskDetailChildTask(pod_name=child) for child in node.children],
            )
            for node in made
        ]  # fmt: skip


class Execution:
    """Runs the specification of a run. A retry keeps the nodes that succeeded."""

    def __init__(self, server: Any, run: Any, spec: dict[str, Any]) -> None:
        self._server, self.run, self.spec = server, run, spec
        self.cached: set[str] = set()  # keys of what its steps left in the cache
        pipeline = spec["pipelineInfo"]["name"]
        self.workflow = Workflow(pipeline, spec)
        self.root = f"{run.runtime_config.pipeline_root or server.root}/{pipeline}/{run.run_id}"
        self._begin()

    def _begin(self) -> None:
        self._pid, self._cancelled, self._result = 0, False, None
        self._paths: dict[int, str] = {0: f"{self.workflow.name}.root"}
        self._tasks: dict[str, str] = {}
        self._pods: dict[str, str] = {}
        self._attempts: dict[str, int] = {}
        self._refused = ""
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def start(self) -> None:
        self.run.state = "RUNNING"
        self._thread.start()

    def retry(self) -> None:
        """Starts again what did not succeed; Argo removes such nodes."""
        nodes = self.workflow.nodes
        kept = {name for name, node in nodes.items() if node.state in ("SUCCEEDED", "SKIPPED")}
        self._kept = {nodes[name].display for name in kept}
        again = [name for name, node in nodes.items() if node.state not in ("SUCCEEDED", "SKIPPED")]
        for name in again:
            if name in (self.workflow.name, f"{self.workflow.name}.root"):
                nodes[name].state, nodes[name].end = "RUNNING", NEVER
            else:
                del nodes[name]
        self._begin()
        self.run.finished_at, self.run.error = None, None
        self.start()

    _kept: frozenset[str] | set[str] = frozenset()

    def cancel(self) -> None:
        """Ends it as Argo does: pods are asked, and killed after their grace."""
        self._cancelled = True
        if self._thread.is_alive():
            self._kill(signal.SIGTERM)
            self._thread.join(_GRACE)
            self._kill()
            self._thread.join(20)
        else:
            self._end("CANCELED")

    def _kill(self, by: signal.Signals = signal.SIGKILL) -> None:
        if self._pid:
            try:
                os.killpg(self._pid, by)
            except ProcessLookupError:
                pass

    def _order(self, mount: Path) -> dict[str, Any]:
        spec = json.loads(json.dumps(self.spec))
        for part in (spec["root"], *spec["components"].values()):
            for name, task in part.get("dag", {}).get("tasks", {}).items():
                if name in self._kept:  # its outputs are those it had
                    task["cachingOptions"] = {"enableCache": True}
        return {
            "spec": spec, "parameters": self.run.runtime_config.parameters or {}, "root": self.root,
            "place": "{root}/{name}/{uuid}", "name": f"runs/{self.run.run_id}", "project": "kubeflow",
            "location": "cluster", "service": self._server.url, "storage": self._server.store.url, "mount": f"{mount}/",
            "mounted": False, "rules": False, "kept_back": "executor_output.json",
            "secrets": self._secrets(),
            "cache": str(self._server.cache), "faults": str(self._server.faults),
            "service_account": self.run.service_account or "", "labels": {}, "begun": 0,
        }  # fmt: skip

    def _secrets(self) -> dict[str, dict[str, str]]:
        """Variables that the platform's part of the specification takes from the cluster's secrets, by executor."""
        platforms = (self.run.pipeline_spec or {}).get("platform_spec", {}).get("platforms", {})
        executors = platforms.get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
        return {
            name: {key["envVar"]: self._server.secrets[given["secretName"]][key["secretKey"]]
                   for given in executor.get("secretAsEnv", ()) for key in given["keyToEnv"]}
            for name, executor in executors.items()
        }  # fmt: skip

    def _follow(self) -> None:
        with tempfile.TemporaryDirectory(prefix="kubeflow-run-") as folder:
            os.chmod(folder, 0o711)
            mount = Path(folder, "gcs")
            mount.mkdir()
            mount.chmod(0o777)
            Path(folder, "order.json").write_text(json.dumps(self._order(mount)))
            os.mkfifo(Path(folder, "events"))
            self._server.host.begin(folder)
            with open(Path(folder, "events"), encoding="utf-8") as events:
                for line in events:
                    with self._server.lock:
                        self._receive(json.loads(line))
            self._kill()
            with self._server.lock:
                self._conclude(Path(folder, "runner.log").read_text(errors="replace")[-2000:])

    def _receive(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "pid":
                self._pid = event["pid"]
                if self._cancelled:
                    self._kill()
            case "started":
                self._started(event)
            case "log":
                self.workflow.logs[self._pods[event["job"]]].append(event["text"])
            case "retried":
                self._attempts[event["task"]] = attempt = self._attempts.get(event["task"], 0) + 1
                path = self._tasks[event["task"]]
                self.workflow.end(f"{path}.executor({attempt - 1})", "FAILED")
                self._pods[event["job"]] = self.workflow.pod(path.rpartition(".")[0], event["task"], attempt)
            case "finished":
                self._finished(event)
            case "result":
                self._result = event

    def _started(self, event: dict[str, Any]) -> None:
        parent, task = self._paths[event["parent"]], event["task"]
        path = self._tasks[task] = self._paths[event["id"]] = f"{parent}.{task}"
        if path in self.workflow.nodes:  # of the attempt before
            return
        if event["kind"] == "dag":
            self.workflow.dag(parent, task)
        else:
            self._pods[event.get("job") or task] = self.workflow.pod(parent, task)

    def _finished(self, event: dict[str, Any]) -> None:
        path, state = self._tasks[event["task"]], event["state"]
        self.cached |= {event["cache_key"]} if "cache_key" in event else set()
        if self.workflow.nodes[path].state != "RUNNING":  # it succeeded in the attempt before
            return
        state = {"SKIPPED": "CACHED", "NOT_TRIGGERED": "SKIPPED"}.get(state, state)
        for name, artifact in event.get("outputs", {}).get("artifacts", {}).items():
            if not artifact["uri"].startswith(f"{self.run.runtime_config.pipeline_root or self._server.root}/"):
                self._refused = f'failed to upload output artifact "{name}": {artifact["uri"]} is outside of the root'
                for pod in (pod for job, pod in self._pods.items() if self._tasks[event["task"]] == path):
                    self.workflow.logs[pod].append(f"F1127 00:00:00.000000 main.go:53] {self._refused}")
                state = "FAILED"
                self._kill()
            self._server.metadata.add(self.run.run_id, artifact["uri"], artifact["metadata"])
        self.workflow.end(path, state)

    def _conclude(self, log: str) -> None:
        if self._cancelled:
            return self._end("CANCELED")
        if self._refused or self._result is None or self._result["failed"]:
            return self._end("FAILED", self._refused or ("" if self._result else log))
        self._end("SUCCEEDED")

    def _end(self, state: str, message: str = "") -> None:
        self.workflow.end(self.workflow.name, "FAILED" if state == "CANCELED" else state)
        self.run.state, self.run.finished_at = state, now()
        if message:
            self.run.error = api.GoogleRpcStatus(code=13, message=message)
