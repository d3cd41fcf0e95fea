"""What a training step costs, against formulas of the literature and against torch's count on real tensors."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.growth import image_shape
from benchmarks.workload import Operators, autoregressive_work, diffusion_work, image_work
from core.images.config import ImageModel
from core.images.model import build_network
from core.text.config import TextModel


def unet(attention: bool) -> ImageModel:
    return ImageModel.model_validate({"network": {"channels": [8, 16], "blocks": [1, 1], "attention": attention}})


def transformer(width: int, depth: int, context: int, **process: object) -> TextModel:
    sizes = {"width": width, "depth": depth, "heads": 4}
    return TextModel.model_validate({"context": context, "transformer": sizes, "process": process})


def test_flop_of_a_convolutional_network_are_those_of_a_real_pass() -> None:
    model, shape = unet(attention=False), image_shape(16)
    network = build_network(model, shape)
    with FlopCounterMode(display=False) as counter:
        images, labels = torch.randn(3, *shape.size), torch.zeros(3, dtype=torch.long)
        network(images, torch.zeros(3), labels).square().mean().backward()
    work = image_work(model, shape)
    assert work.flop * 3 == counter.get_total_flops()
    assert work.parameters == sum(p.numel() for p in network.parameters())
    assert work.state == 20 * work.parameters


def test_flop_of_a_transformer_follow_the_usual_formula() -> None:
    width, depth, context, vocabulary = 128, 3, 64, 512
    work = autoregressive_work(transformer(width, depth, context), vocabulary)
    layers = 6 * 12 * width**2 * depth * context  # 6 FLOP for each of 12 d^2 weights and token (Kaplan et al. 2020)
    attention = 12 * context**2 * width * depth
    head = 6 * vocabulary * width * context
    assert work.flop == pytest.approx(layers + attention + head, rel=0.1)


def test_two_streams_cost_about_twice_one_and_an_own_guess_a_third_more() -> None:
    plain = {"self_conditioning": 0.0, "prefix_dropout": 0.0, "blocks": [8]}
    one = autoregressive_work(transformer(128, 3, 64), 512)
    two = diffusion_work(transformer(128, 3, 64, **plain), 512)
    guessing = diffusion_work(transformer(128, 3, 64, **{**plain, "self_conditioning": 1.0}), 512)
    assert 1.8 < two.flop / one.flop < 2.6
    assert guessing.flop / two.flop == pytest.approx(4 / 3, rel=0.02)  # a forward pass beside forward and backward
    assert guessing.activations == two.activations  # it is made without a gradient
    diffusion_work.cache_clear()
    assert diffusion_work(transformer(128, 3, 64, **plain), 512) == two  # whatever was kept before


def test_convolutions_cost_by_pixels_and_attention_by_their_square() -> None:
    small, large = (image_work(unet(attention=False), image_shape(side)) for side in (32, 64))
    assert large.flop / small.flop == pytest.approx(4, rel=0.01)
    assert large.activations / small.activations == pytest.approx(4, rel=0.01)
    assert large.operators == small.operators
    assert image_work(unet(attention=True), image_shape(64)).flop > 2 * large.flop


def test_operators_are_those_that_write() -> None:
    x = torch.zeros(4, 4)
    with Operators() as seen:
        y = x.view(2, 8).t()
        (y + 1).add_(1)
    assert seen.count == 2
