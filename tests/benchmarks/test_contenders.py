"""Peers run where their network is: on torch's meta device, which refuses to mix with tensors of another one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks import contenders, images
from tests.core.asked import Steps

steps = Steps("images")


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


class OneConvolution(contenders.Peer):
    name = "one convolution"

    def network(self, data: object) -> nn.Module:
        return nn.Conv2d(1, 1, 3, padding=1)

    def loss(self, network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return (network(images) - 1).square().mean()

    def sample(self, network: nn.Module, labels: Tensor, size: tuple[int, int]) -> Tensor:
        return network(labels[:, None, None, None].expand(-1, 1, *size) / 10)


def test_what_a_peer_learned_is_found_again(tmp_path: Path) -> None:
    steps.prepare_data({"source": "digits"}, tmp_path / "dataset")
    labels = np.arange(4)
    first = OneConvolution().train(tmp_path / "dataset", contenders.Budget(steps=3), tmp_path / "work")
    again = OneConvolution().train(tmp_path / "dataset", contenders.Budget(steps=1), tmp_path / "work")
    other = OneConvolution().train(tmp_path / "dataset", contenders.Budget(steps=1))
    assert (again.examples, again.seconds) == (first.examples, first.seconds) != (other.examples, other.seconds)
    assert (again.draw(labels) == first.draw(labels)).all()
