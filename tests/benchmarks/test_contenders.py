"""Peers run where their network is: on torch's meta device, which refuses to mix with tensors of another one."""

from __future__ import annotations

import pytest
import torch

from benchmarks import contenders, images


class Digits:
    shape, classes = (16, 16), 10


@pytest.mark.parametrize("kind", [contenders.Diffusers, contenders.Lucidrains])
def test_a_peer_trains_and_draws_on_the_device_of_its_network(kind: type[contenders.Peer]) -> None:
    peer = kind()
    peer.evaluations = 3
    network = peer.network(Digits()).to("meta").eval()  # type: ignore[arg-type]
    labels = torch.zeros(2, dtype=torch.long, device="meta")
    peer.loss(network, torch.zeros(2, 1, 16, 16, device="meta"), labels).backward()
    assert all(p.grad is None or p.grad.device.type == "meta" for p in network.parameters())
    with torch.inference_mode():
        drawn = peer.sample(network, labels, (16, 16))
    assert (drawn.device.type, drawn.shape) == ("meta", (2, 1, 16, 16))


def test_counting_a_peer_leaves_it_where_it_was() -> None:
    peer = contenders.Diffusers()
    parameters, gflop = images.cost(peer, Digits())  # type: ignore[arg-type]
    assert peer.schedule.alphas_cumprod.device.type == "cpu"
    assert parameters == sum(p.numel() for p in peer.network(Digits()).parameters())  # type: ignore[arg-type]
    assert gflop > 3 * 2 * 9 * 32 * 32 * 16 * 16 / 1e9  # one of its first convolutions, forward and twice backward
