"""Samples of an export beside core's own, from the same noise. An export that differs by more is refused.

Images are compared as floats in [-1, 1], of which a grey level is 0.0078. Texts are compared by the logits after the
last step of a block, and token by token. The mixture draws tokens at every step, both sides by the same uniforms: where
one differs, so do all logits after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from core.errors import UserError
from core.images.sampling import choose_sigmas, denoise_batch, sample_seed
from core.randomness import Noise, generator_of, normal, uniform
from core.text.generation import Prefix, Settings, denoise_block
from core.text.reverse_steps import MIXTURE
from serving.export.source import ImageSource, TextSource

TOLERANCE = {"images": 2e-3, "text": 5e-2}
COUNT = 4
Denoise = Callable[[Tensor, float, Tensor, float, float], Tensor]  # x, sigma, label, guidance, autoguidance
Step = Callable[..., Sequence[Tensor]]  # as `programs.DrawingStep` or `GuessingStep`


@dataclass(frozen=True)
class Difference:
    """How far an export is from core: the largest difference, and what is allowed."""

    what: str
    largest: float
    allowed: float

    def require(self) -> None:
        """Raises UserError if it is too far."""
        if not self.largest <= self.allowed:  # nan is no agreement
            raise UserError(f"{self.what}: differs from this project's samples by {self.largest:.2g};"
                            f" allowed: {self.allowed:g}")  # fmt: skip


def image_noise(source: ImageSource) -> tuple[list[int], Tensor, Tensor]:
    """Seeds, labels [B] and all noise [N, B, C, H, W] of the samples that are compared."""
    seeds = [sample_seed(0, index) for index in range(COUNT)]
    none = len(source.trained.shape.class_names)
    labels = torch.arange(COUNT) % none if source.trained.config.conditional and none else torch.full((COUNT,), none)
    noise, size = Noise(seeds), source.trained.shape.size
    return seeds, labels, torch.stack([noise.normal(*size) for _ in range(source.table.noises)])


def of_images(source: ImageSource, what: str, sample: Callable[[Tensor, Tensor], Tensor]) -> Difference:
    """Compares `sample(noise [N, B, C, H, W], labels [B])` with core's sampler."""
    seeds, labels, noise = image_noise(source)
    settings = source.settings.model_copy(update={"precision": "fp32"})  # as exports are, whatever this CPU draws in
    sigmas = choose_sigmas(settings, source.trained.process)
    ours = denoise_batch(source.trained, settings, seeds, labels.numpy(), sigmas, torch.device("cpu"))
    return Difference(what, float((sample(noise, labels) - ours).abs().max()), TOLERANCE["images"])


def by_table(source: ImageSource, denoise: Denoise) -> Callable[[Tensor, Tensor], Tensor]:
    """The sampler that the table says, around a guided denoiser."""

    def sample(noise: Tensor, labels: Tensor) -> Tensor:
        draws = iter(noise)
        x: Tensor = source.table.start * next(draws)
        before = torch.zeros(())
        for row in source.table.rows:
            estimate = denoise(x, row.sigma, labels, row.guidance, row.autoguidance)
            x = row.x * x + row.denoised * estimate + row.before * before
            if row.noise:
                x = x + row.noise * next(draws)
            before = estimate
        return x

    return sample


@torch.inference_mode()
def of_text(source: TextSource, what: str, step: Step) -> Difference:
    """Compares logits and tokens of a block after some text, its last two tokens given, with core's sampler."""
    network, s = source.network, source.settings
    size = max(source.block, 2)
    draws = generator_of(0, "tokens")
    before = torch.randint(network.vocabulary, (1, min(7, network.config.context - size)), generator=draws)
    tokens = torch.randint(network.vocabulary, (1, size), generator=draws)
    known = torch.arange(size)[None] >= size - 2
    settings = Settings(s.sampler, s.steps, s.temperature, 1.0, s.tilt)
    prefix = Prefix(network, before, size)
    wanted, ours = denoise_block(network, prefix, tokens, known, settings, Noise.of("noise", rows=1), free=size - 2)
    inputs = network.autoregressive.shifted(before)[:, -prefix.cache.length - 1 :]
    theirs, found = denoised_block(step, source, inputs, tokens, known, Noise.of("noise", rows=1))
    if not torch.equal(wanted[~known], found[~known]):
        return Difference(f"{what}: tokens", float("inf"), TOLERANCE["text"])
    return Difference(what, float((ours - theirs).abs().max()), TOLERANCE["text"])


def denoised_block(
    step: Step, source: TextSource, prefix: Tensor, tokens: Tensor, known: Tensor, noise: Noise
) -> tuple[Tensor, Tensor]:
    """Logits [B, L, V] and tokens [B, L] of a block after all steps of `step`."""
    network, s, mixture = source.network, source.settings, source.settings.sampler == MIXTURE
    shape = (tokens.shape[1], network.config.process.embedding)
    normals = noise.keys(s.steps)
    uniforms = noise.keys(s.steps) if mixture else ()
    z, logits, made = normal(normals[0], *shape), torch.empty(0), torch.zeros(1, *shape)
    times = np.linspace(1, 0, s.steps + 1)
    for index in range(s.steps):
        last = index + 1 == s.steps
        fresh = torch.zeros(1, *shape) if last else normal(normals[index + 1], *shape)
        own = uniform(uniforms[index], shape[0], network.vocabulary) if mixture else made
        logits, made, z = step(prefix, tokens, known, z, own, fresh, *map(_scalar, times[index : index + 2]),
                               _scalar(s.temperature))  # fmt: skip
    return logits, made if mixture else logits.argmax(dim=-1)


def _scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float32)
