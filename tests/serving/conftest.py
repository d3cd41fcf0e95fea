"""Tiny models, untrained but for noise in their weights, and a real server for them in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from core.config import validate
from core.images import model as images
from core.images.config import ImageModel
from core.text import model as text
from core.text.config import TextModel
from core.text.objective import build
from core.text.tokenizer import CharacterTokenizer
from factory.registry import Registry

UNET = {"network": {"name": "unet", "channels": [8, 8], "blocks": [1, 1], "embedding": 16, "head_channels": 8}}
TRANSFORMER = {
    "context": 32,
    "transformer": {"width": 32, "depth": 2, "heads": 2},
    "process": {"embedding": 8, "blocks": [8, 16], "lanes": [1, 2], "next_evidence": True},
}
CLASSES = ("zero", "one", "two")
MEASURED = {"steps": 4, "guidance": 2.0, "sampler": "dpmpp_sde"}


def shaken(network: torch.nn.Module, seed: int) -> torch.nn.Module:
    """The network with noise in all its weights, zeros too."""
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=draws))
    return network


def save_images(folder: Path, seed: int) -> dict[str, Any]:
    config = validate(ImageModel, UNET, "model")
    shape = images.ImageShape(channels=1, height=8, width=8, class_names=CLASSES)
    return images.save_model(folder, shaken(images.build_network(config, shape), seed), config, shape, {})


def save_text(folder: Path, objective: str = "diffusion") -> dict[str, Any]:
    config = validate(TextModel, TRANSFORMER, "model")
    letters = CharacterTokenizer(sorted(set("abcdefghijklmnopqrstuvwxyz _.")))
    return text.save_model(folder, shaken(build(objective, letters.size, config), 1), objective, config, letters, {})


def add_version(registry: Registry, name: str, folder: Path, facts: dict[str, Any], measured: dict[str, Any]) -> int:
    made = registry.register(
        name, {"model": folder}, metrics={}, evaluation_key="k", weights_sha256=facts["weights_sha256"],
        lineage={"sample": measured},
    )  # fmt: skip
    return made.version


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """registry/ with champion tiny@1 of images, its challenger tiny@2, and champion words@1 of text; plain folders."""
    root = tmp_path_factory.mktemp("shelf")
    registry = Registry(root / "registry")
    for seed in (1, 2):
        add_version(registry, "tiny", root / f"images{seed}", save_images(root / f"images{seed}", seed), MEASURED)
    add_version(registry, "words", root / "text", save_text(root / "text"), {"steps": 4, "temperature": 0.9})
    save_text(root / "masked", "masked")
    for name in ("tiny", "words"):
        registry.promote(name, 1, "first")
    return root


def in_a_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        with ThreadPoolExecutor(1) as thread:  # the browser's tests leave a loop running in this one
            thread.submit(asyncio.run, test(*arguments, **named)).result()  # type: ignore[arg-type]

    return run


class Served:
    """A server in a process of its own."""

    def __init__(self, *arguments: str, environment: dict[str, str] | None = None) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TEXTDIFFUSION_", "AIP_"))}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "textdiffusion", "serve", *arguments],
            env={**kept, **(environment or {})}, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.lines: list[dict[str, Any]] = []
        self.other: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.wait_for('listening')['port']}", timeout=60)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                self.lines.append(json.loads(line))
            except ValueError:
                self.other.append(line)

    def wait_for(self, message: str, count: int = 1) -> dict[str, Any]:
        """The `count`-th line of the log with `message`."""
        end = time.monotonic() + 120
        while time.monotonic() < end:
            lines = [line for line in self.lines if line["message"] == message]
            if len(lines) >= count:
                return lines[count - 1]
            assert self.process.poll() is None or self._reader.is_alive(), self.other
            time.sleep(0.02)
        raise AssertionError(f"{message!r} was not logged: {self.lines} {self.other}")

    def post(self, path: str, body: Any, status: int = 200) -> Any:
        answer = self.client.post(path, json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def get(self, path: str, status: int = 200) -> Any:
        answer = self.client.get(path)
        assert answer.status_code == status, answer.text
        return answer.json()

    def metric(self, name: str) -> float:
        lines = self.client.get("/metrics").text.split("\n")
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    def worker(self) -> int:
        """The process id of the newest worker."""
        return int([line for line in self.lines if line["message"] == "worker is warm"][-1]["pid"])

    @contextmanager
    def held(self) -> Iterator[None]:
        """The worker does nothing meanwhile, so that requests gather."""
        worker = self.worker()
        os.kill(worker, signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGCONT)

    def gather(self, samples: int) -> None:
        """Waits until that many samples are in the queue."""
        end = time.monotonic() + 60
        while self.metric("textdiffusion_queue_samples") < samples:
            assert time.monotonic() < end
            time.sleep(0.01)

    def stop(self) -> int:
        """Ends it as a platform does; its exit code."""
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


Serve = Callable[..., Any]


@contextmanager
def served(*arguments: str, environment: dict[str, str] | None = None, warm: bool = True) -> Iterator[Served]:
    """A server, ready unless `warm` is false; ended at the end."""
    port = [] if environment and "AIP_HTTP_PORT" in environment else ["--port", "0"]
    server = Served(*arguments, *port, environment=environment)
    try:
        if warm:
            server.wait_for("ready")
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def images_server(shelf: Path) -> Iterator[Served]:
    with served("tiny", "--registry", str(shelf / "registry"), "--poll", "0", "--max-count", "8") as server:
        yield server


@pytest.fixture(scope="session")
def text_server(shelf: Path) -> Iterator[Served]:
    with served("words", "--registry", str(shelf / "registry"), "--poll", "0") as server:
        yield server
