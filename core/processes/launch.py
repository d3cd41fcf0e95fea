"""Steps on many processes: what a platform says about its nodes becomes torchrun's arguments.

    one machine        TEXTDIFFUSION_PROCESSES, or as many processes as there are GPUs
    Vertex AI          CLUSTER_SPEC of a custom job with several replicas
    Kubeflow           PET_* (TrainJob, PyTorchJob), or MASTER_ADDR, WORLD_SIZE and RANK of an older PyTorchJob

torchrun runs as a process and not in this one by torch.distributed.launcher: its agent can wait for minutes in its
store without hearing a signal (docs/trust.md), and only another process can then end it in time.

Every node calls `launch` with the same arguments and gets the same facts back. A lost worker ends in a restart of all
of them, on all nodes: training goes on from the last checkpoint, sampling and evaluation begin anew.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Self

from core import storage
from core.errors import UserError
from core.processes import elastic, interpreter
from core.storage import scratches

RESTARTS = 3
PORT = 29_500
GRACE = 25.0  # seconds from a signal to the end of all processes; a spot machine has 30
_POOLS = ("chief", "master", "workerpool0", "worker", "workerpool1")  # in the order of ranks; others do not train
_BY_GPUS = ("auto", "gpu")  # as many processes as there are GPUs
_OF_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "CLUSTER_SPEC")


@dataclass(frozen=True)
class Cluster:
    """The nodes that a step runs on, and which of them this is."""

    nodes: int = 1
    node: int = 0
    processes: int = 1  # on every node
    address: str = ""  # of node 0
    port: int = PORT

    @property
    def size(self) -> int:
        """Processes on all nodes."""
        return self.nodes * self.processes

    @classmethod
    def of(cls, environment: Mapping[str, str], gpus: int = 0) -> Cluster:
        """What the environment says; `gpus` is how many this machine has.

        Raises:
            UserError: a variable is not a number, or the nodes that it names do not include this one.
        """
        asked = _processes(environment)
        counts = {} if asked in _BY_GPUS or asked == "cpu" else {"TEXTDIFFUSION_PROCESSES": asked}
        processes = _number(counts, "TEXTDIFFUSION_PROCESSES", max(1, gpus), least=1)
        if "PET_NNODES" in environment:
            nodes = _number({"PET_NNODES": environment["PET_NNODES"].split(":")[-1]}, "PET_NNODES", 1, least=1)
            address = environment.get("PET_MASTER_ADDR") or environment.get("MASTER_ADDR", "")
            port = _number(environment, "PET_MASTER_PORT", _number(environment, "MASTER_PORT", PORT))
            node = _number(environment, "PET_NODE_RANK", _number(environment, "RANK", 0))
        elif "CLUSTER_SPEC" in environment:
            nodes, node, address, port = _vertex(environment["CLUSTER_SPEC"])
        elif "MASTER_ADDR" in environment and "LOCAL_RANK" not in environment:
            nodes, node = _number(environment, "WORLD_SIZE", 1, least=1), _number(environment, "RANK", 0)
            address, port = environment["MASTER_ADDR"], _number(environment, "MASTER_PORT", PORT)
        else:
            nodes, node, address, port = 1, 0, "", PORT
        if node >= nodes or (nodes > 1 and not address):
            raise UserError(
                f"cluster: node {node} of {nodes} at {address or 'no address'}; the environment is incomplete"
            )
        return cls(nodes, node, processes, address, port)


def _processes(environment: Mapping[str, str]) -> str:
    """How many processes a node is to have: a number, or `auto`, `gpu` or `cpu` as torchrun calls them."""
    return environment.get("TEXTDIFFUSION_PROCESSES") or environment.get("PET_NPROC_PER_NODE") or "auto"


def _number(environment: Mapping[str, str], name: str, default: int, *, least: int = 0) -> int:
    text = environment.get(name, str(default))
    if not text.isdecimal() or int(text) < least:
        raise UserError(f"{name}: found {text!r}; allowed: whole numbers from {least}")
    return int(text)


def _vertex(text: str) -> tuple[int, int, str, int]:
    """Nodes, this node, address and port of node 0, from Vertex AI's CLUSTER_SPEC.

    https://cloud.google.com/vertex-ai/docs/training/distributed-training#cluster-variables
    """
    try:
        spec = json.loads(text)
        pools, task = spec["cluster"], spec["task"]
        members = [(pool, i, at) for pool in _POOLS for i, at in enumerate(pools.get(pool, []))]
        here = [(pool, i) for pool, i, _ in members].index((task["type"], int(task.get("index", 0))))
        host, _, port = str(members[0][2]).partition(":")
        return len(members), here, host, int(port or PORT)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"CLUSTER_SPEC: cannot be read: {type(error).__name__}: {error}") from None


def here() -> Cluster:
    """The cluster that this process is to start workers on; one process where torchrun has started it already."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return Cluster()
    if _processes(os.environ) not in _BY_GPUS:
        return Cluster.of(os.environ)
    import torch

    return Cluster.of(os.environ, torch.cuda.device_count())


def launch(cluster: Cluster, module: str, step: str, request: str) -> dict[str, Any]:
    """Runs `python -m <module> REQUEST` in every process of the cluster, under torchrun; the facts that `work` wrote.

    Args:
        cluster: where.
        module: its main program calls `work` with the file REQUEST.
        step: its name, for errors.
        request: the content of that file.

    Raises:
        UserError: the one that the processes raised, or this one was asked to stop.
        RuntimeError: they ended in another way, after all restarts.
    """
    with scratches.temporary_folder(step) as folder:
        asked, outcome = folder / "request.json", folder / "outcome.json"
        asked.write_text(request)
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in _OF_TORCHRUN and not name.startswith("PET_")  # torchrun would read them as its arguments
        }
        # Else all attempts meet in one store, where a worker that starts again first reads the addresses of dead ones.
        environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
        command = interpreter.program(
            "core.processes.elastic", str(os.getpid()), *torchrun(cluster, folder / "torchrun")
        )
        with _Stopping() as stopping:
            code = stopping.run([*command, "-m", module, str(asked)], interpreter.environment(environment))
        answer = storage.read_json(outcome) if outcome.exists() else {}
    if "error" in answer:
        error = UserError(answer["error"])
        error.EXIT_CODE = answer["code"]  # stopped by a signal is not wrong input
        raise error
    if code != 0 and stopping.asked:  # before the first step, or too late for a checkpoint of the last one
        error = UserError(f"{step} on {cluster.size} processes: stopped by a signal; run again, it goes on")
        error.EXIT_CODE = elastic.STOPPED
        raise error
    if code != 0 or not answer:
        raise RuntimeError(f"{step} on {cluster.size} processes ended with exit code {code}")
    return dict(answer["facts"])


def torchrun(cluster: Cluster, logs: Path) -> list[str]:
    """torchrun's arguments for this node; it makes the folder `logs`, and would else leave one behind."""
    common = ["--nproc-per-node", str(cluster.processes), "--max-restarts", str(RESTARTS), "--log-dir", str(logs)]
    if cluster.nodes == 1:
        return ["--standalone", *common]
    return [
        *("--nnodes", str(cluster.nodes), *common, "--rdzv-id", "textdiffusion", "--rdzv-backend", "c10d"),
        *("--rdzv-endpoint", f"{cluster.address}:{cluster.port}"),
        *("--rdzv-conf", f"is_host={int(cluster.node == 0)},timeout=900"),
        *("--local-addr", own_address(cluster)),
    ]


def own_address(cluster: Cluster) -> str:
    """This machine's address on the network that leads to node 0; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((cluster.address, cluster.port))
        except OSError as error:
            raise UserError(f"cluster: node 0 at {cluster.address}:{cluster.port} is not reachable: {error}") from None
        return str(probe.getsockname()[0])


class _Stopping:
    """Runs torchrun; signals that ask this process to stop go to it, which passes them on to the workers and waits.

    It may wait for what does not come: for another node in a rendezvous, without hearing the signal. So it is killed
    when `GRACE` has passed, and its workers with it.
    """

    def __init__(self) -> None:
        self.asked = 0
        self._killed_at: float | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._previous = {number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = number
        if self._killed_at is None:
            self._killed_at = time.monotonic() + GRACE
        if self._process is not None:
            self._process.send_signal(number)

    def run(self, command: list[str], environment: Mapping[str, str]) -> int:
        """The exit code of `command`, -9 if it had to be killed."""
        self._process = subprocess.Popen(command, env=dict(environment))
        if self.asked:  # meanwhile
            self._process.send_signal(self.asked)
        while True:
            try:
                return self._process.wait(1.0)
            except subprocess.TimeoutExpired:
                if self._killed_at is not None and time.monotonic() > self._killed_at:
                    self._process.kill()

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def work(request: Path, perform: Callable[[str], dict[str, Any]]) -> None:
    """A worker: `perform` gets the request's text and returns facts; the first of each node writes them down.

    An error of the user's is an outcome, not a crash, because no restart would mend it.
    """
    elastic.tie(int(os.environ[elastic.PARENT]))
    if os.environ["RANK"] != "0":
        os.environ.pop("TEXTDIFFUSION_EVENTS", None)  # one process reports progress
    try:
        outcome: dict[str, Any] = {"facts": perform(request.read_text())}
    except UserError as error:
        outcome = {"error": str(error), "code": error.EXIT_CODE}
    if os.environ["LOCAL_RANK"] == "0":
        storage.write_json(request.with_name("outcome.json"), outcome)
