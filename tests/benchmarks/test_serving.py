"""The load that `benchmarks/serving.py` makes, and what it reads from it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import httpx
import pytest
import torch
from fastapi.testclient import TestClient

from benchmarks import serving
from benchmarks.serving import Seen, ask, row
from core.images.image_diffusion import ImageDiffusion
from core.images.model import ImageShape


def test_latencies_become_rates_and_percentiles() -> None:
    seen = Seen(seconds=10, latencies=[i / 1000 for i in range(1, 102)], changed=2)
    made = row("serve", 4, seen)
    assert made["images/s"] == pytest.approx(10.1)
    assert (made["p50 ms"], made["p95 ms"], made["p99 ms"]) == pytest.approx((51, 96, 100))
    assert (made["requests"], made["changed"], made["failed"]) == (101, 2, 0)


def test_clients_ask_wait_and_compare(tmp_path: Path) -> None:
    inside = most = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal inside, most
        while head := await reader.readline():
            length = 0
            while (line := await reader.readline()) not in (b"\r\n", b""):
                length = int(line.split()[1]) if line.lower().startswith(b"content-length") else length
            body = await reader.readexactly(length)
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.01)
            inside -= 1
            assert head.startswith(b"POST /generate")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        writer.close()

    async def measured() -> Seen:
        seen = Seen()
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/generate"
            await ask(url, lambda seed: {"seed": seed}, 3, 0.3, lambda seed, got: got["seed"] == seed != 1, seen)
        return seen

    with ThreadPoolExecutor(1) as thread:  # a browser's tests may have left a loop running in this one
        seen = thread.submit(asyncio.run, measured()).result()
    assert most == 3
    assert seen.changed == (len(seen.latencies) + 62) // 64  # every 64th asks for seed 1
    assert seen.failed == 0


@pytest.mark.parametrize("threads", [0, 1])
def test_nothing_is_measured_with_other_threads_on_each_side(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = torch.get_num_threads() + threads
    monkeypatch.setattr(httpx, "get", lambda url: httpx.Response(200, json={"threads": theirs}))
    with pytest.raises(RuntimeError, match="set OMP_NUM_THREADS") if threads else nullcontext():
        serving.require_same_threads("http://127.0.0.1:1/generate")


def test_the_naive_server_answers_with_an_image(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    from benchmarks.naive_server import make_app

    shape = ImageShape(channels=1, height=8, width=8, class_names=("a", "b"))
    network = {"channels": [8, 16], "blocks": [1, 1], "embedding": 16, "head_channels": 8}
    ImageDiffusion(network, shape).save(tmp_path / "model")
    answer = TestClient(make_app(tmp_path / "model", 2)).post("/generate", json={"seed": 3, "label": 1})
    assert answer.status_code == 200
    assert serving.decoded(answer.json()["png"]).shape == (8, 8)
