"""Peers run where their network is: on torch's meta device, which refuses to mix with tensors of another one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks import images, peers
from benchmarks.contenders import Budget
from benchmarks.peer import Peer
from tests.core.asked import Steps

steps = Steps("images")


class Digits:
    shape, classes = (16, 16), 10


def flow(*, muon: bool = False) -> peers.RectifiedFlow:
    return peers.RectifiedFlow("flow", (16, 32), (1e-3,), muon=muon)


@pytest.mark.parametrize("kind", [peers.Diffusers, peers.Lucidrains, flow])
def test_a_peer_trains_and_draws_on_the_device_of_its_network(kind: Callable[[], Peer]) -> None:
    peer = kind()
    peer.steps = 3
    network = peer.network(Digits()).to("meta").eval()  # type: ignore[arg-type]
    labels = torch.zeros(2, dtype=torch.long, device="meta")
    peer.loss(network, torch.zeros(2, 1, 16, 16, device="meta"), labels).backward()
    assert all(p.grad is None or p.grad.device.type == "meta" for p in network.parameters())
    for guidance in peer.guidances:
        with torch.inference_mode():
            drawn = peer.sample(network, labels, (16, 16), guidance)
        assert (drawn.device.type, drawn.shape) == ("meta", (2, 1, 16, 16))


def test_counting_a_peer_leaves_it_where_it_was() -> None:
    peer = peers.Diffusers()
    parameters, gflop = images.cost(peer, Digits())  # type: ignore[arg-type]
    assert peer.schedule.alphas_cumprod.device.type == "cpu"
    assert parameters == sum(p.numel() for p in peer.network(Digits()).parameters())  # type: ignore[arg-type]
    assert gflop > 3 * 2 * 9 * 32 * 32 * 16 * 16 / 1e9  # one of its first convolutions, forward and twice backward


class OneConvolution(Peer):
    name = "one convolution"

    def network(self, data: object) -> nn.Module:
        return nn.Conv2d(1, 1, 3, padding=1)

    def loss(self, network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return (network(images) - 1).square().mean()

    def sample(self, network: nn.Module, labels: Tensor, size: tuple[int, int], guidance: float) -> Tensor:
        return network(labels[:, None, None, None].expand(-1, 1, *size) / 10)


def test_what_a_peer_learned_is_found_again(tmp_path: Path) -> None:
    steps.prepare_data({"source": "digits"}, tmp_path / "dataset")
    labels = np.arange(4)
    long, short = Budget(examples=384), Budget(examples=128)
    first = OneConvolution().train(tmp_path / "dataset", long, tmp_path / "work")
    again = OneConvolution().train(tmp_path / "dataset", short, tmp_path / "work")
    other = OneConvolution().train(tmp_path / "dataset", short)
    assert (again.examples, again.seconds) == (first.examples, first.seconds) != (other.examples, other.seconds)
    assert (again.draw(labels) == first.draw(labels)).all()


def test_a_flow_that_knows_its_velocity_ends_at_the_images() -> None:
    image = torch.linspace(-1, 1, 64).view(1, 1, 8, 8)

    class Exact(nn.Module):
        no_class = 10

        def forward(self, x: Tensor, time: Tensor, labels: Tensor) -> Tensor:  # of x = (1 - t) image + t noise
            return (x - image) / time[:, None, None, None]

    drawn = flow().sample(Exact(), torch.zeros(3, dtype=torch.long), (8, 8), 1.5)
    torch.testing.assert_close(drawn, image.expand(3, 1, 8, 8))


def test_muon_of_a_peer_takes_what_is_hidden_and_adamw_the_rest() -> None:
    network = flow(muon=True).network(Digits())  # type: ignore[arg-type]
    hidden, rest = flow(muon=True).groups(network)
    assert (hidden.matrices, rest.matrices) == (True, False)
    assert len(hidden.parameters) + len(rest.parameters) == len(list(network.parameters()))
    assert all(p.ndim >= 2 for p in hidden.parameters)
    assert any(p is network.unet.conv_in.weight for p in rest.parameters)  # type: ignore[union-attr]
