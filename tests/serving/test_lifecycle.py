"""Start, death of the worker, a new champion, and the end: no request is lost, none is answered with another sample."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from factory.registry import Registry
from serving.options import Options
from serving.server import _bound
from tests.serving.conftest import Served, served

ASKS = [{"seed": seed, "class": ("zero", "one", "two")[seed % 3]} for seed in range(10)]


def gone(process: int) -> bool:
    """Whether a process has ended, soon."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_a_killed_worker_loses_no_request(images_server: Served) -> None:
    wanted = [images_server.post("/generate", ask) for ask in ASKS]
    before = images_server.metric("textdiffusion_worker_restarts_total")
    with ThreadPoolExecutor(len(ASKS)) as pool:
        with images_server.held():
            answers = [pool.submit(images_server.post, "/generate", ask) for ask in ASKS]
            images_server.gather(len(ASKS) - 4)
            os.kill(images_server.worker(), signal.SIGKILL)
        assert [answer.result() for answer in answers] == wanted
    assert images_server.metric("textdiffusion_worker_restarts_total") == before + 1
    assert images_server.get("/health") == {"ready": True}


def test_a_new_champion_takes_over_between_requests(shelf: Path, tmp_path: Path) -> None:
    shutil.copytree(shelf / "registry", tmp_path / "registry")
    registry = Registry(tmp_path / "registry")
    with served("tiny", "--registry", registry.root, "--poll", "0.2") as server:
        first = [server.post("/generate", ask) for ask in ASKS]

        def ask_until_exchanged(ask: dict[str, Any]) -> list[Any]:
            answers = [server.post("/generate", ask)]
            while answers[-1]["version"] == "1":
                answers.append(server.post("/generate", ask))
            return answers

        worker = server.worker()
        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(ask_until_exchanged, ask) for ask in ASKS[:4]]
            registry.promote("tiny", 2, "better")
            answers = [one.result() for one in asked]
        second = [server.post("/generate", ask) for ask in ASKS]
        assert all(answer["version"] == "2" for answer in second)
        assert all(a["samples"] != b["samples"] for a, b in zip(first, second, strict=True))
        for given, before, after in zip(answers, first, second, strict=False):
            assert given == [before] * (len(given) - 1) + [after]
        assert gone(worker)
        registry.rollback("tiny", "worse")
        server.wait_for("ready", 3)
        assert server.post("/generate", ASKS[0]) == first[0]


def test_what_is_queued_is_drawn_before_the_end(shelf: Path) -> None:
    with served("tiny", "--registry", str(shelf / "registry")) as server:
        wanted = [server.post("/generate", ask) for ask in ASKS]
        worker = server.worker()
        with ThreadPoolExecutor(len(ASKS)) as pool:
            with server.held():
                answers = [pool.submit(server.post, "/generate", ask) for ask in ASKS]
                server.gather(len(ASKS) - 4)
                server.process.send_signal(signal.SIGTERM)
                server.wait_for("Shutting down")
            assert [answer.result() for answer in answers] == wanted
        assert server.process.wait(60) == 0
        assert gone(worker)


def test_a_version_that_is_named_is_served_and_a_killed_server_leaves_no_worker(shelf: Path) -> None:
    with served("tiny@2", "--registry", str(shelf / "registry"), "--poll", "0.1") as server:
        assert server.get("/")["version"] == "2"
        worker = server.worker()
        server.process.kill()
        assert gone(worker)


def serve(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TEXTDIFFUSION_", "AIP_"))}
    return subprocess.run(
        [sys.executable, "-m", "textdiffusion", "serve", *arguments],
        env={**kept, **variables}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no model; name one, or set AIP_STORAGE_URI"),
        (["nothing"], "no champion"),
        (["{shelf}/images9"], "model.json"),
        (["{shelf}/damaged", "--port", "0"], "content does not match weights_sha256"),
        (["{shelf}/images1", "--port", "{taken}"], "cannot listen on 127.0.0.1 port"),
        (["{shelf}/images1", "--guidance", "99"], "guidance"),
        (["{shelf}/images1", "--deadline", "0"], "deadline"),
    ],
)
def test_what_cannot_be_served_is_one_line(arguments: list[str], message: str, shelf: Path) -> None:
    if not (shelf / "damaged").exists():
        shutil.copytree(shelf / "images1", shelf / "damaged")
        with (shelf / "damaged" / "weights.safetensors").open("r+b") as file:
            file.truncate(1000)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = serve(*(text.format(shelf=shelf, taken=port) for text in arguments))
    assert done.returncode == 2
    last = done.stderr.strip().split("\n")[-1]
    assert last.startswith("error: ")
    assert message in last
    assert "Traceback" not in done.stderr


def test_an_answer_does_not_wait_for_its_head_to_be_acknowledged() -> None:
    with _bound(Options(model="tiny", port=0)) as bound, socket.create_connection(bound.getsockname()):
        accepted, _ = bound.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_the_service_says_with_how_many_threads_it_rounds(shelf: Path) -> None:
    with served(str(shelf / "images1"), environment={"OMP_NUM_THREADS": "1"}) as server:
        server.post("/generate", {"seed": 1})
        assert server.get("/")["threads"] == server.wait_for("worker is warm")["threads"] == 1


def test_without_its_extra_the_command_says_what_to_install(shelf: Path) -> None:
    program = (
        "import sys; sys.modules['uvicorn'] = None; from textdiffusion.cli.app import main;"
        f" main(['serve', {str(shelf / 'images1')!r}])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.strip() == "error: uvicorn is not installed: pip install 'textdiffusion[serving]'"


def test_the_server_itself_does_without_torch_and_pipelines() -> None:
    heavy = {"torch", "kfp", "google.cloud.aiplatform", "google.cloud.storage"}
    program = f"import sys, serving.server; print({heavy!r} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"


def test_the_image_serves_by_a_module_of_its_own(shelf: Path) -> None:
    program = [sys.executable, "-m", "serving", "nothing", "--registry", str(shelf / "registry")]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: nothing: no champion")
    assert done.stderr.count("\n") == 1


def test_a_service_that_was_given_a_gpu_does_not_draw_on_the_cpu(shelf: Path) -> None:
    ended = serve(str(shelf / "images1"), "--port", "0", TEXTDIFFUSION_GPUS="99")
    assert (ended.returncode, "99 GPUs asked for" in ended.stderr) == (2, True)
