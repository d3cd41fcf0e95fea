"""The networks that an image job can name in `model.network`: their settings, and the modules that build them.

Needs no torch, so that commands which only read a job stay fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator
from pydantic_core import PydanticCustomError

from core.config import Frozen

MOST_TOKENS = 16_384
Channels = Annotated[int, Field(ge=4, le=2048)]
Blocks = Annotated[int, Field(ge=0, le=16)]


class NetworkConfig(Frozen):
    """What every network's settings have: the name in NETWORKS under which a job asks for it."""

    name: str

    smaller: ClassVar[str] = "use fewer levels in model.network.channels"  # what makes the divisor smaller

    @property
    def divisor(self) -> int:
        """Sides of images must be multiples of this."""
        return 1

    def obstacle(self, height: int, width: int) -> str:
        """Why this network cannot take images of a size in pixels; empty if it can."""
        divisor = self.divisor
        if height % divisor == 0 == width % divisor:
            return ""
        side = max(divisor, round(min(height, width) / divisor) * divisor)
        return (
            f"model.network: images of {height}x{width} pixels; this network needs sides divisible by {divisor}:"
            f" {self.smaller}, or set data.resolution, for example to {side}"
        )


class UNetConfig(NetworkConfig):
    """A UNet conditioned on noise level and class by FiLM; one entry of `channels` and `blocks` per resolution."""

    name: Literal["unet"] = "unet"
    channels: tuple[Channels, ...] = Field(default=(32, 64, 128), min_length=1, max_length=6)
    blocks: tuple[Blocks, ...] = Field(default=(1, 2, 2), min_length=1, max_length=6)
    patch: Literal[1, 2, 4] = Field(default=1, description="The first resolution works on patches of this side")
    attention: bool = Field(default=True, description="Self-attention at the lowest resolution")
    head_channels: int = Field(default=32, ge=4, le=256)
    embedding: int = Field(default=128, ge=8, le=4096, description="Width of the noise level and class embedding")
    dropout: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _one_count_per_level(self) -> UNetConfig:
        if len(self.channels) != len(self.blocks):
            raise ValueError(
                f"channels has {len(self.channels)} levels and blocks {len(self.blocks)}; both need one entry a level"
            )
        heads = max(1, self.channels[-1] // self.head_channels)
        if self.attention and self.channels[-1] % heads:
            raise ValueError(
                f"{self.channels[-1]} channels at the lowest level cannot be divided over {heads} heads of attention;"
                " take a multiple of head_channels, or attention: false"
            )
        return self

    @property
    def divisor(self) -> int:
        return int(self.patch * 2 ** (len(self.channels) - 1))


class DDPMUNetConfig(NetworkConfig):
    """The small residual UNet of the first DDPM: ReLU, no normalisation, noise level as a scalar bias."""

    name: Literal["ddpm_unet"] = "ddpm_unet"
    channels: tuple[Channels, Channels] = (32, 64)

    @property
    def divisor(self) -> int:
        return 2


class DiTConfig(NetworkConfig):
    """A diffusion transformer over patches, conditioned on noise level and class in every block (adaLN-Zero)."""

    name: Literal["dit"] = "dit"
    smaller: ClassVar[str] = "use a smaller model.network.patch"
    patch: Literal[1, 2, 4, 8, 16] = Field(default=4, description="Side of a patch in pixels; a patch is a token")
    width: int = Field(default=128, ge=16, le=8192, description="Of a token; of the embedding of level and class too")
    depth: int = Field(default=6, ge=1, le=128, description="Blocks, each of attention and an MLP four times as wide")
    heads: int = Field(default=4, ge=1, le=256)

    @model_validator(mode="after")
    def _divisible(self) -> DiTConfig:
        if self.width % self.heads or self.width % 4:
            raise ValueError(f"width is {self.width}; it must be a multiple of heads, {self.heads}, and of 4")
        return self

    @property
    def divisor(self) -> int:
        return int(self.patch)

    def obstacle(self, height: int, width: int) -> str:
        tokens = (height // self.patch) * (width // self.patch)
        if tokens > MOST_TOKENS:
            return (
                f"model.network: images of {height}x{width} pixels are {tokens:,} patches, each of which attends to all"
                f" others; at most {MOST_TOKENS:,}: use a larger model.network.patch, or set data.resolution"
            )
        return super().obstacle(height, width)


def network_for(height: int, width: int) -> UNetConfig:
    """A UNet for images of this size that runs in minutes on a CPU: most of its work is done at 14x14 and less."""
    side = max(height, width)
    plans: list[tuple[tuple[int, ...], tuple[int, ...], Literal[1, 2, 4]]] = [((64, 96), (1, 2), 1)]
    if side <= 16:
        plans = [((32, 64), (1, 2), 1)]
    elif side <= 48:
        plans.insert(0, ((64, 96), (1, 2), 2))
    else:
        plans.insert(0, ((64, 96, 128), (1, 1, 2), 1))
        plans.insert(0, ((64, 96, 128), (1, 1, 2), 2))
    if side > 96:
        plans.insert(0, ((64, 96, 128), (1, 1, 2), 4))
    for channels, blocks, patch in plans:
        network = UNetConfig(channels=channels, blocks=blocks, patch=patch)
        if height % network.divisor == 0 == width % network.divisor:
            return network
    return UNetConfig(channels=(64,), blocks=(2,), attention=height * width <= 1024)  # odd sides: one level


NETWORKS = {
    "unet": "core.images.unet",
    "dit": "core.images.dit",
    "ddpm_unet": "core.images.ddpm_unet",
}
"""The networks that a job can name, each with its module: `Config` and `build(config, shape)`."""


def _network(value: object) -> object:
    """The settings of the network that `value` names, as its module's `Config`, which says what is allowed."""
    if isinstance(value, NetworkConfig):
        return value
    name = value.get("name", "unet") if isinstance(value, dict) else None
    if not isinstance(name, str) or name not in NETWORKS:
        allowed = ", ".join(NETWORKS)
        raise PydanticCustomError("network", "Input should name one of the networks {allowed}", {"allowed": allowed})
    # The built-in ones are known without importing torch, so that commands which only read a job stay fast.
    known: dict[str, type[NetworkConfig]] = {"unet": UNetConfig, "dit": DiTConfig, "ddpm_unet": DDPMUNetConfig}
    section = known.get(name) or import_module(NETWORKS[name]).Config
    return section.model_validate(value)


Network = Annotated[SerializeAsAny[UNetConfig | DiTConfig | DDPMUNetConfig | NetworkConfig], BeforeValidator(_network)]
