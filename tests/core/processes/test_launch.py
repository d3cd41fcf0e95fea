"""From a platform's environment to one training on all its nodes, that survives the loss of a worker."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from core import storage
from core.errors import UserError
from core.modality import run
from core.processes import launch
from core.processes.launch import Cluster
from core.requests import SampleRequest
from core.storage.model_folder import WEIGHTS
from tests.core.asked import Steps

steps = Steps("images", run)
ROOT = Path(__file__).parents[3]
MODEL = {"network": {"name": "unet", "channels": [8, 8], "blocks": [1, 1]}}
TRAIN = {"examples": 480, "batch_size": 30, "micro_batch": 8, "warmup_examples": 60, "log_every": 1,
         "validate_every": 1, "preview_every": 1, "checkpoint_minutes": 1e-9}  # fmt: skip
PROGRAM = """
import json, sys
from pathlib import Path
from core.modality import run
from core.requests import TrainRequest
model, train, dataset, out, work, facts = sys.argv[1:]
sections = {"model": json.loads(model), "train": json.loads(train)}
request = TrainRequest(modality="images", **sections, dataset=Path(dataset), out=Path(out), work=work)
found = run(request)
Path(facts).write_text(json.dumps(found))
"""


def vertex(kind: str, index: int, **pools: list[str]) -> dict[str, str]:
    return {"CLUSTER_SPEC": json.dumps({"cluster": pools, "task": {"type": kind, "index": index}})}


@pytest.mark.parametrize(
    ("environment", "gpus", "cluster"),
    [
        ({}, 0, Cluster()),
        ({}, 4, Cluster(processes=4)),
        ({"TEXTDIFFUSION_PROCESSES": "2"}, 4, Cluster(processes=2)),
        (vertex("workerpool0", 0, workerpool0=["a:2222"]), 4, Cluster(1, 0, 4, "a", 2222)),  # a step, no custom job
        (
            vertex("workerpool1", 1, workerpool0=["a:2222"], workerpool1=["b:2222", "c:2222"], workerpool2=["r:2222"]),
            8,
            Cluster(3, 2, 8, "a", 2222),
        ),
        (
            {"PET_NNODES": "2", "PET_NODE_RANK": "1", "PET_NPROC_PER_NODE": "auto", "PET_MASTER_ADDR": "job-node-0-0",
             "PET_MASTER_PORT": "29400", "WORLD_SIZE": "16", "RANK": "1"},
            2,
            Cluster(2, 1, 2, "job-node-0-0", 29400),
        ),
        (
            {"MASTER_ADDR": "job-master-0", "MASTER_PORT": "23456", "WORLD_SIZE": "3", "RANK": "2"},
            0,
            Cluster(3, 2, 1, "job-master-0", 23456),
        ),
    ],
)  # fmt: skip
def test_what_each_platform_says_becomes_a_cluster(environment: dict[str, str], gpus: int, cluster: Cluster) -> None:
    assert Cluster.of(environment, gpus) == cluster
    assert cluster.size == cluster.nodes * cluster.processes


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"TEXTDIFFUSION_PROCESSES": "many"}, "TEXTDIFFUSION_PROCESSES: found 'many'; allowed: whole numbers from 1"),
        ({"CLUSTER_SPEC": "{"}, "CLUSTER_SPEC: cannot be read"),
        (vertex("workerpool2", 0, workerpool0=["a:1"], workerpool2=["b:1"]), "CLUSTER_SPEC: cannot be read"),
        ({"PET_NNODES": "2", "PET_NODE_RANK": "2", "PET_MASTER_ADDR": "a"}, "node 2 of 2"),
        ({"PET_NNODES": "2"}, "no address"),
    ],
)
def test_an_incomplete_environment_is_one_line(environment: dict[str, str], said: str) -> None:
    with pytest.raises(UserError) as raised:
        Cluster.of(environment)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "dataset"
    steps.prepare_data({"source": "digits"}, folder)
    return folder


def test_an_error_of_the_users_ends_all_processes_once(dataset: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("TEXTDIFFUSION_PROCESSES", "2")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(ROOT)
    alone = {**TRAIN, "batch_size": 1, "micro_batch": 1}
    with pytest.raises(UserError, match=r"batch_size: 1 is less than one example for each of 2 processes"):
        steps.train(MODEL, alone, dataset, tmp_path / "model", work=str(tmp_path / "work"))
    assert not (tmp_path / "model").exists()


Nodes = list[tuple[list[str], str, dict[str, str]]]  # of each the command that enters it, address, environment


def namespaces(tag: str, made: list[str]) -> Nodes:
    """Two network namespaces joined by a cable; the names of those that exist are added to `made`.

    Raises:
        PermissionError: they cannot be made here; says why.
    """
    if os.getuid() != 0 or shutil.which("ip") is None:
        raise PermissionError("network namespaces need root and the command ip")
    names, ends = ([f"{kind}{tag}{i}" for i in range(2)] for kind in ("td", "v"))

    def ip(*arguments: str) -> None:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
        if done.returncode != 0:
            raise PermissionError(f"no network namespaces here: ip {' '.join(arguments)}: {done.stderr.strip()}")

    for name in names:
        ip("netns", "add", name)
        made.append(name)
    ip("link", "add", ends[0], "netns", names[0], "type", "veth", "peer", "name", ends[1], "netns", names[1])
    for i, (name, end) in enumerate(zip(names, ends, strict=True)):
        ip("-n", name, "address", "add", f"10.213.7.{i + 1}/24", "dev", end)
        for device in (end, "lo"):
            ip("-n", name, "link", "set", device, "up")
        ip("netns", "exec", name, "true")
    return [
        (["ip", "netns", "exec", name], f"10.213.7.{i + 1}", {"GLOO_SOCKET_IFNAME": end})
        for i, (name, end) in enumerate(zip(names, ends, strict=True))
    ]


@pytest.fixture(params=["network-namespaces", "loopback"])
def nodes(request: pytest.FixtureRequest) -> Iterator[Nodes]:
    """Two nodes: network namespaces, or where they cannot be made twice this machine, which shows less: addresses and
    interfaces of several machines are not tried. The test that did not run says why."""
    made: list[str] = []
    try:
        try:
            found = namespaces(uuid.uuid4().hex[:6], made)
        except PermissionError as error:
            if request.param == "network-namespaces":
                pytest.skip(str(error))
            found = [([], "127.0.0.1", {})] * 2
        else:
            if request.param == "loopback":
                pytest.skip("the same ran in network namespaces")
        yield found
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "delete", name], check=True, capture_output=True)


def workers(tag: str) -> list[int]:
    """Process ids of this test's training processes."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command, environment = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
        except OSError:
            continue
        worker = b"-m\0core.modality\0" in command and b"core.processes.elastic" not in command
        if worker and tag.encode() in environment:
            found.append(int(folder.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds its worker processes in /proc")
def test_two_nodes_train_as_one_process_does_and_survive_the_loss_of_a_worker(
    dataset: Path, tmp_path: Path, nodes: Nodes
) -> None:
    tag = f"TEST_{uuid.uuid4().hex}"
    port, single = 20_000 + os.getpid() % 20_000, tmp_path / "single"
    spec = {"workerpool0": [f"{nodes[0][1]}:{port}"], "workerpool1": [f"{nodes[1][1]}:{port}"]}
    arguments = [json.dumps(MODEL), json.dumps(TRAIN), str(dataset), str(tmp_path / "model"), str(tmp_path / "work")]
    running = []
    for i, (enter, _, variables) in enumerate(nodes):
        env = {**os.environ, **variables, **vertex(f"workerpool{i}", 0, **spec), "PYTHONPATH": str(ROOT), tag: "1"}
        env["TEXTDIFFUSION_PROCESSES"] = "1"  # spares the node a count of GPUs, by torch
        command = [*enter, sys.executable, "-c", PROGRAM, *arguments, str(tmp_path / f"facts{i}.json")]
        output = (tmp_path / f"node{i}.log").open("wb")
        running.append(
            subprocess.Popen(command, env={**env, "OMP_NUM_THREADS": "1"}, stdout=output, stderr=subprocess.STDOUT)
        )
    try:
        deadline = time.monotonic() + 240
        while not list((tmp_path / "work").rglob("manifest-*")):
            assert time.monotonic() < deadline, (tmp_path / "node0.log").read_text()
            assert all(process.poll() is None for process in running), (tmp_path / "node0.log").read_text()
            time.sleep(0.02)
        lost = workers(tag)
        assert len(lost) == 2
        os.kill(lost[-1], signal.SIGKILL)
        codes = [process.wait(240) for process in running]
    finally:
        for process in running:
            process.kill()
    logs = [(tmp_path / f"node{i}.log").read_text() for i in range(2)]
    assert codes == [0, 0], "\n".join(logs)
    for log in logs:  # the first lines of two attempts and the last; the second attempt began where a checkpoint was
        seen = [int(number) for number in re.findall(r"train: (\d+)/480 examples", log)]
        assert len(seen) >= 3, log
        assert seen == sorted(set(seen)), log
    facts = [json.loads((tmp_path / f"facts{i}.json").read_text()) for i in range(2)]
    assert facts[0] == facts[1]
    assert (facts[0]["processes"], facts[0]["effective_batch_size"], facts[0]["examples_seen"]) == (2, 30, 480)

    alone = steps.train(MODEL, TRAIN, dataset, single, work=str(tmp_path / "work1"))
    assert alone["processes"] == 1
    assert losses(tmp_path / "model") == pytest.approx(losses(single), rel=1e-4)
    assert distance(load_file(tmp_path / "model" / WEIGHTS), load_file(single / WEIGHTS)) < 1e-3


@pytest.fixture
def training(dataset: Path, tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Starts a step that trains on two processes of this machine, with this variable in their environments."""
    running = []

    def start(tag: str) -> subprocess.Popen[bytes]:
        program = PROGRAM.replace("found =", "from components.step import step\nwith step(): found =")
        arguments = [json.dumps(MODEL), json.dumps(TRAIN), str(dataset), str(tmp_path / "model")]
        arguments += [str(tmp_path / "work"), str(tmp_path / "facts.json")]
        env = {**os.environ, "TEXTDIFFUSION_PROCESSES": "2", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", tag: "1"}
        output = (tmp_path / "log").open("wb")
        command = [sys.executable, "-c", program, *arguments]
        running.append(subprocess.Popen(command, env=env, stdout=output, stderr=subprocess.STDOUT))
        return running[-1]

    yield start
    for process in running:
        process.kill()


def until(condition: Callable[[], Any], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are tied by a call of Linux")
def test_a_step_that_is_killed_outright_leaves_no_process_behind(
    training: Callable[[str], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    tag = f"TEST_{uuid.uuid4().hex}"
    step = training(tag)
    until(lambda: list((tmp_path / "work").rglob("manifest-*")), 240)
    assert len(workers(tag)) == 2
    step.kill()
    step.wait()
    until(lambda: not workers(tag), 10)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds its worker processes in /proc")
def test_a_signal_before_the_first_step_is_one_line_and_143(
    training: Callable[[str], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    tag = f"TEST_{uuid.uuid4().hex}"
    step = training(tag)
    until(lambda: workers(tag), 120)  # they import for seconds
    step.terminate()
    assert step.wait(60) == 143
    said = (tmp_path / "log").read_text()
    assert "error: train on 2 processes: stopped by a signal" in said
    assert "Traceback" not in said
    assert not workers(tag)


def test_what_does_not_hear_a_signal_is_killed_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "GRACE", 0.5)
    ready = tmp_path / "ready"
    deaf = "import signal, sys, time; signal.signal(15, signal.SIG_IGN); open(sys.argv[1], 'w'); time.sleep(300)"

    def ask() -> None:
        until(ready.exists, 60)
        os.kill(os.getpid(), signal.SIGTERM)

    asking = threading.Thread(target=ask)
    with launch._Stopping() as stopping:
        asking.start()
        code = stopping.run([sys.executable, "-c", deaf, str(ready)], os.environ)
    asking.join()
    assert (code, stopping.asked) == (-signal.SIGKILL, signal.SIGTERM)


def distance(left: dict[str, Tensor], right: dict[str, Tensor]) -> float:
    """Relative, over all weights together: Adam makes steps of rounding alone where a gradient is about zero."""
    assert left.keys() == right.keys()
    apart = sum(float((left[name] - right[name]).square().sum()) for name in left)
    return float((apart / sum(float(value.square().sum()) for value in right.values())) ** 0.5)


def losses(model: Path) -> list[float]:
    rows = storage.read_json_lines(model / "train_log.jsonl")
    return [row["loss"] for row in rows if "loss" in row]


def test_here_under_torchrun_starts_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTDIFFUSION_PROCESSES", "4")
    assert launch.here().size == 4
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    assert launch.here().size == 1


def test_workers_do_not_import_what_lies_in_the_folder_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("copy", "random", "core", "torch"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "")
    with pytest.raises(UserError, match="cannot be read"):  # which only a worker that has imported everything says
        request = SampleRequest(modality="images", sample={}, model=tmp_path / "no", out=tmp_path)
        launch.launch(Cluster(), "core.modality", request.step, request.model_dump_json())
