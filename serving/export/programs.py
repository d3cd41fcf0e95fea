"""A network with what belongs to it as one module, traced by `torch.export`: what every format is made from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from core.images.model import NoiseProcess, TrainedModel
from core.text.denoiser import Diffusion, Noisy
from core.text.generation import carried_over
from core.text.reverse_steps import STEPS
from core.text.schedule import tilted

STEP_INPUTS = ("prefix", "tokens", "known", "z", "guess", "noise", "u", "after", "temperature")
STEP_OUTPUTS = ("logits", "guess_after", "z_after")  # of `TextStep`


class ImageDenoiser(nn.Module):
    """D(x, sigma) for each label. x [B, C, H, W], sigma [B], label int64 [B] -> [B, C, H, W]; label K is no class."""

    knots: Tensor

    def __init__(self, network: nn.Module, process: NoiseProcess) -> None:
        super().__init__()
        self.network, self.process = network, process
        self.register_buffer("knots", process.table.log().float(), persistent=False)

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor) -> Tensor:
        c = self.process.coefficients(sigma)
        level = sigma.log() / 4
        if self.process.config.parameterisation == "epsilon":
            level = place(sigma.log(), self.knots) / (len(self.knots) - 1)
        return c.denoised(x, self.network(x * c.in_[:, None, None, None], level, label))


def place(values: Tensor, knots: Tensor) -> Tensor:
    """Where values [...] stand among rising knots [N], from 0 to N - 1, linear between them.

    A sum over all intervals instead of a search for the right one, which not every format has.
    """
    low, high = knots[:-1], knots[1:]
    return ((values[..., None] - low) / (high - low)).clamp(0, 1).sum(dim=-1)


class TextStep(nn.Module):
    """One step of the denoising of a block of L tokens, after the clean text before it.

    Args:
        prefix: int64 [B, P], tokens before the block, the first one V if the text begins there; at least that one.
        tokens, known: int64 and bool [B, L]; clean tokens that are given inside the block.
        z: noisy embeddings [B, L, d]; standard normals before the first step.
        guess: the means [B, L, d] that the step before gave for this one; anything before the first.
        noise: standard normals [B, L, d].
        u, after: times [] from 1 to 0, of this step and of the next.
        temperature: [] of the token probabilities.

    Returns:
        logits [B, L, V] divided by the temperature; the next step's guess [B, L, d]; z [B, L, d] at `after`.
    """

    edges: Tensor

    def __init__(self, model: Diffusion, sampler: str = "ddpm", tilt: float | None = None) -> None:
        super().__init__()
        self.model, self.step = model, STEPS[sampler]
        self.tilt = model.config.process.tilt[1] if tilt is None else tilt
        self.register_buffer("edges", model.warp.distribution(), persistent=False)

    def gamma(self, u: Tensor, slots: int) -> Tensor:
        """Noise levels [L] of the slots of a block at time u []: `NoisePath.gamma`."""
        warp = self.model.warp
        times = tilted(u, slots, self.tilt)
        return warp.low + (warp.high - warp.low) * place(times, self.edges) / (len(self.edges) - 1)

    def forward(
        self, prefix: Tensor, tokens: Tensor, known: Tensor, z: Tensor, guess: Tensor, noise: Tensor, u: Tensor,
        after: Tensor, temperature: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        logits = self.logits(prefix, tokens, known, z, guess, u) / temperature
        slots = tokens.shape[1]
        gamma, below = self.gamma(u, slots), self.gamma(after, slots)
        lower = self.step(z, self.model.mean(logits), gamma[:, None], below[:, None], noise)
        return logits, carried_over(self.model, logits, z, gamma, lower, below, temperature), lower

    def logits(self, prefix: Tensor, tokens: Tensor, known: Tensor, z: Tensor, guess: Tensor, u: Tensor) -> Tensor:
        """Logits [B, L, V]: `Diffusion.denoise`, with the prefix read again instead of kept."""
        model, clean = self.model, self.model.autoregressive
        read, slots = prefix.shape[1], tokens.shape[1]
        begins = torch.arange(slots) == 0
        before = prefix[:, -1:].expand(tokens.shape)
        gamma = self.gamma(u, slots).expand(tokens.shape)
        alone = Noisy(z, gamma, tokens, known, before, begins)
        first, own = model.slots(alone)
        later, _ = model.slots(Noisy(z, gamma, tokens, known, before, begins, guess=guess))
        inputs = torch.where(u >= 1, first, later)
        past = clean.embed(clean.embeddings()[prefix])
        places = torch.cat((torch.arange(read), torch.arange(slots) + (read - 1)))
        row, column = torch.arange(read + slots)[:, None], torch.arange(read + slots)[None, :]
        reads = (row < read) & (column <= row)
        denoises = (row >= read) & (column != read - 1)  # the block's first slot carries that token itself
        features = clean.transformer(torch.cat((past, inputs), dim=1), places, mask=reads | denoises)
        prior: Tensor = clean.head(features[:, read:])
        return prior + own


def named(inputs: Sequence[Tensor]) -> dict[str, Tensor]:
    """The inputs of a step of text by their names."""
    return dict(zip(STEP_INPUTS, inputs, strict=True))


def image_program(trained: TrainedModel, network: nn.Module) -> ExportedProgram:
    """The traced denoiser of an image model, or of its guide, for any batch."""
    module = ImageDenoiser(network, trained.process).eval()
    batch = Dim("batch", min=1, max=65_536)
    example = (torch.zeros(2, *trained.shape.size), torch.ones(2), torch.zeros(2, dtype=torch.int64))
    with torch.no_grad():
        return torch.export.export(module, example, dynamic_shapes=({0: batch}, {0: batch}, {0: batch}))


def text_program(model: Diffusion, sampler: str = "ddpm", tilt: float | None = None) -> ExportedProgram:
    """The traced step of a text model, for any batch, prefix and block."""
    module = TextStep(model, sampler, tilt).eval()
    size, top = model.config.process.embedding, model.config.context
    batch, prefix, slots = Dim("batch", min=1, max=4096), Dim("prefix", min=1, max=top), Dim("slots", min=2, max=top)
    vectors = [torch.zeros(2, 4, size) for _ in range(3)]  # one tensor three times would be traced as one argument
    tokens = torch.zeros(2, 4, dtype=torch.int64)
    example = (
        torch.zeros(2, 3, dtype=torch.int64),
        tokens,
        tokens.bool(),
        *vectors,
        *map(torch.tensor, (1.0, 0.5, 1.0)),
    )
    block = {0: batch, 1: slots}
    shapes = ({0: batch, 1: prefix}, block, block, block, block, block, None, None, None)
    with torch.no_grad():
        return torch.export.export(module, example, dynamic_shapes=shapes)
