"""The networks: shapes, what they depend on, and where they start."""

import pytest
import torch
from torch import nn

from core.errors import UserError
from core.images.config import ImageModel
from core.images.model import ImageShape, build_network
from core.images.networks import DDPMUNetConfig, DiTConfig, UNetConfig
from core.images.unet import GroupNorm, UNet, twice_as_large
from tests.core.kernels import Kernels

SMALL = UNetConfig(channels=(8, 16), blocks=(1, 1), embedding=16, head_channels=8)


def shape(side: int, channels: int = 1, classes: int = 3) -> ImageShape:
    return ImageShape(channels=channels, height=side, width=side, class_names=tuple("abcdefghij"[:classes]))


def inputs(side: int, channels: int = 1, count: int = 3):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, channels, side, side, generator=generator)
    return x, torch.randn(count, generator=generator), torch.arange(count) % 4


def awake(network: nn.Module) -> nn.Module:
    """The same network with no weight at zero, as after some training."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return network.eval()


NETWORKS = [
    pytest.param(SMALL, id="unet"),
    pytest.param(SMALL.model_copy(update={"patch": 2}), id="unet-patch2"),
    pytest.param(DiTConfig(patch=2, width=16, depth=2, heads=2), id="dit"),
    pytest.param(DDPMUNetConfig(channels=(8, 16)), id="ddpm_unet"),
]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("side", "channels"), [(8, 1), (28, 1), (32, 3)])
def test_output_has_the_shape_of_the_image(network, side, channels):
    model = build_network(ImageModel(network=network), shape(side, channels))
    x, level, labels = inputs(side, channels)
    assert model(x, level, labels).shape == x.shape


@pytest.mark.parametrize("network", NETWORKS)
def test_output_depends_on_image_noise_level_and_class(network):
    model = awake(build_network(ImageModel(network=network), shape(8)))
    x, level, labels = inputs(8)
    base = model(x, level, labels)
    for other in [(x + 0.1, level, labels), (x, level + 0.1, labels), (x, level, (labels + 1) % 4)]:
        assert (model(*other) - base).abs().amax((1, 2, 3)).min() > 1e-4


@pytest.mark.parametrize("network", NETWORKS)
def test_images_of_a_batch_do_not_see_each_other(network):
    model = awake(build_network(ImageModel(network=network), shape(8)))
    x, level, labels = inputs(8)
    together, alone = model(x, level, labels), model(x[1:2], level[1:2], labels[1:2])
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("network", NETWORKS)
def test_every_parameter_gets_a_gradient(network):
    model = awake(build_network(ImageModel(network=network), shape(8)))
    x, level, _ = inputs(8, count=4)
    model(x, level, torch.arange(4)).square().mean().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert silent == []


@pytest.mark.parametrize("network", NETWORKS[:3])
def test_the_default_networks_start_at_zero_output(network):
    model = build_network(ImageModel(network=network), shape(8))
    assert model(*inputs(8)).abs().max() == 0


def test_every_residual_block_sees_the_whole_image_through_attention_at_the_lowest_resolution():
    model = awake(UNet(SMALL, 1, 3))
    x, level, labels = inputs(28, count=1)
    x.requires_grad_()
    model(x, level, labels)[0, 0, 0, 0].backward()
    assert x.grad is not None
    assert (x.grad != 0).all()


def test_a_transformer_knows_where_its_patches_are():
    model = awake(build_network(ImageModel(network=DiTConfig(patch=2, width=16, depth=1, heads=2)), shape(8)))
    x, level, labels = torch.zeros(1, 1, 8, 8), torch.zeros(1), torch.zeros(1, dtype=torch.long)
    patches = torch.nn.functional.pixel_unshuffle(model(x, level, labels), 2).flatten(2)[0].T  # of an even image
    assert len({tuple(patch) for patch in patches.tolist()}) == 16


def test_sides_of_an_oblong_image_are_not_confused():
    oblong = ImageShape(channels=3, height=8, width=16, class_names=("a",))
    network = DiTConfig(patch=4, width=16, depth=1, heads=2)
    model = awake(build_network(ImageModel(network=network), oblong))
    x = torch.randn(2, 3, 8, 16, generator=torch.Generator().manual_seed(0))
    assert model(x, torch.zeros(2), torch.zeros(2, dtype=torch.long)).shape == x.shape


@pytest.mark.parametrize(
    ("settings", "side", "words"),
    [
        (
            {"patch": 4},
            30,
            r"30x30 pixels; .* divisible by 4: use a smaller model\.network\.patch",
        ),
        ({"patch": 1}, 256, r"65,536 patches, .* at most 16,384: use a larger model\.network\.patch"),
    ],
)
def test_images_that_a_transformer_cannot_take_are_refused(settings, side, words):
    with pytest.raises(UserError, match=words):
        build_network(ImageModel(network=DiTConfig(**settings)), shape(side))


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="width is 100; it must be a multiple of heads, 3, and of 4"):
        DiTConfig(width=100, heads=3)


def test_an_image_size_that_levels_do_not_divide_is_refused_naming_the_divisor():
    config = ImageModel(network=UNetConfig(channels=(8, 8, 8), blocks=(1, 1, 1)))
    with pytest.raises(UserError, match=r"30x30 pixels; this network needs sides divisible by 4"):
        build_network(config, shape(30))


def test_absurd_widths_are_refused():
    with pytest.raises(ValueError, match="less than or equal to 2048"):
        UNetConfig(channels=(10**12, 64), blocks=(1, 1))


def test_levels_of_channels_and_blocks_must_agree():
    with pytest.raises(ValueError, match="channels has 3 levels and blocks 2"):
        UNetConfig(channels=(8, 8, 8), blocks=(1, 1))


def test_a_network_without_a_name_is_the_unet_and_an_unknown_name_is_refused():
    assert ImageModel.model_validate({"network": {"channels": [8], "blocks": [1]}}).network.name == "unet"
    with pytest.raises(ValueError, match="one of the networks unet, dit, ddpm_unet"):
        ImageModel.model_validate({"network": {"name": "mlp"}})


class There(torch.Tensor):
    """A tensor that takes itself for a GPU's."""

    is_cuda = property(lambda self: True)  # type: ignore[assignment]


def test_pixels_become_four_on_a_gpu_as_on_a_cpu() -> None:
    h = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    here, there = h.clone().requires_grad_(), h.clone().as_subclass(There).requires_grad_()
    left, right = twice_as_large(here), twice_as_large(there)
    assert torch.equal(left, right.as_subclass(torch.Tensor))
    weight = torch.randn(left.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradients = [torch.autograd.grad((out * weight).sum(), into)[0] for out, into in ((left, here), (right, there))]
    torch.testing.assert_close(gradients[0], gradients[1].as_subclass(torch.Tensor))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_groups_are_normalised_as_torch_does_in_double(dtype, layout):
    x = torch.randn(2, 16, 5, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    norm = awake(GroupNorm(16))
    found = norm(x.to(memory_format=layout))
    wanted = nn.functional.group_norm(x.double(), 2, norm.weight.double(), norm.bias.double())
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), wanted, rtol=torch.finfo(dtype).eps, atol=4 * torch.finfo(dtype).eps)


def test_on_a_cpu_group_normalisation_never_sees_bf16():
    model = build_network(ImageModel(network=SMALL), shape(8))
    with torch.autocast("cpu", torch.bfloat16), Kernels("group_norm") as kernels:
        model(*inputs(8)).sum().backward()
    assert kernels.seen == {torch.float32}
