"""A network with what belongs to it as one module, traced by `torch.export`: what every format is made from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from core.images.model import NoiseProcess, TrainedModel
from core.text.autoregressive import chosen
from core.text.denoiser import Diffusion, Noisy
from core.text.generation import carried_over
from core.text.reverse_steps import MIXTURE, STEPS
from core.text.schedule import delayed, lane_length


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
    """What steps of every sampler share: the noise levels of a block of L tokens, and its logits.

    All take, beside what is their own,

        prefix: int64 [B, P], tokens before the block, the first one V if the text begins there; at least that one.
        tokens, known: int64 and bool [B, L]; clean tokens that are given inside the block.
        z: noisy embeddings [B, L, d]; standard normals before the first step.
        noise: standard normals [B, L, d].
        u, after: times [] from 1 to 0, of this step and of the next; steps are equal.
        temperature: [] of the token probabilities.

    and give logits [B, L, V] divided by the temperature, first, and z [B, L, d] at `after`, last.
    """

    edges: Tensor

    def __init__(self, model: Diffusion, sampler: str, tilt: float | None = None) -> None:
        super().__init__()
        self.model, self.step = model, STEPS[sampler]
        self.tilt = model.config.process.tilt[1] if tilt is None else tilt
        self.lanes = sorted(set(model.config.process.lanes), reverse=True)
        self.register_buffer("edges", model.warp.distribution(), persistent=False)

    def lane(self, free: Tensor, step: Tensor) -> Tensor:
        """Slots of a lane, of `free` ones that take steps of the time `step` []: with `fewest_lanes`."""
        lengths = [lane_length(free, lanes) for lanes in self.lanes]  # from the shortest to the longest
        chosen = lengths[0]
        for length in lengths[1:]:
            chosen = torch.where(length <= torch.round(1 / step), length, chosen)
        return chosen.clamp(min=1)

    def gamma(self, u: Tensor, known: Tensor, step: Tensor) -> Tensor:
        """Noise levels [L] of the slots of a block at time u [], on a path of equal steps `step`: `NoisePath.sampled`,
        and `gamma_max` of the `known` ones [B, L], which end it, as many in each row."""
        warp, slots = self.model.warp, torch.arange(known.shape[1])
        free = (~known[0]).sum()
        lane = self.lane(free, step)
        tilt = (lane - 1).clamp(max=self.tilt)
        times = delayed(u, slots % lane / (lane - 1).clamp(min=1), tilt)
        times = torch.where(slots < free, times, torch.ones(()))
        return warp.low + (warp.high - warp.low) * place(times, self.edges) / (len(self.edges) - 1)

    def logits(
        self, prefix: Tensor, tokens: Tensor, known: Tensor, z: Tensor, levels: Tensor, u: Tensor,
        guess: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Logits [B, L, V] at noise levels [L]: `Diffusion.denoise`, with the prefix read again instead of kept."""
        model, clean = self.model, self.model.autoregressive
        read, slots = prefix.shape[1], tokens.shape[1]
        begins = torch.arange(slots) == 0
        before = prefix[:, -1:].expand(tokens.shape)
        gamma = levels.expand(tokens.shape)
        inputs, own = model.slots(Noisy(z, gamma, tokens, known, before, begins))
        if guess is not None:
            later = model.slots(Noisy(z, gamma, tokens, known, before, begins, guess=guess))
            inputs, own = (torch.where(u >= 1, first, other) for first, other in zip((inputs, own), later, strict=True))
        past = clean.embed(clean.embeddings()[prefix])
        places = torch.cat((torch.arange(read), torch.arange(slots) + (read - 1)))
        row, column = torch.arange(read + slots)[:, None], torch.arange(read + slots)[None, :]
        reads = (row < read) & (column <= row)
        denoises = (row >= read) & (column != read - 1)  # the block's first slot carries that token itself
        features = clean.transformer(torch.cat((past, inputs), dim=1), places, mask=reads | denoises)
        prior: Tensor = clean.head(features[:, read:])
        return prior + own


class DrawingStep(TextStep):
    """A step of the mixture, to tokens that are drawn. `uniform`: uniforms [B, L, V] in [0, 1). `drawn`: int64 [B, L].

    The block is what the last step has drawn.
    """

    def forward(
        self, prefix: Tensor, tokens: Tensor, known: Tensor, z: Tensor, uniform: Tensor, noise: Tensor, u: Tensor,
        after: Tensor, temperature: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        gamma, below = self.gamma(u, known, u - after), self.gamma(after, known, u - after)
        logits = self.logits(prefix, tokens, known, z, gamma, u) / temperature
        drawn = chosen(logits, uniform)
        lower = self.step(z, self.model.embeddings()[drawn], gamma[:, None], below[:, None], noise)
        return logits, torch.where(known, tokens, drawn), lower


class GuessingStep(TextStep):
    """A step of the other samplers, to the mean of all tokens. `guess`, `guess_after`: the means [B, L, d] that a step
    is given by the one before, anything before the first, and what it gives to the next.

    The block is the most probable tokens of the last step's logits.
    """

    def forward(
        self, prefix: Tensor, tokens: Tensor, known: Tensor, z: Tensor, guess: Tensor, noise: Tensor, u: Tensor,
        after: Tensor, temperature: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        gamma, below = self.gamma(u, known, u - after), self.gamma(after, known, u - after)
        logits = self.logits(prefix, tokens, known, z, gamma, u, guess) / temperature
        lower = self.step(z, self.model.mean(logits), gamma[:, None], below[:, None], noise)
        return logits, carried_over(self.model, logits, z, gamma, lower, below, temperature), lower


def step_names(sampler: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Inputs and outputs of a step of text, in their order."""
    given, made = ("uniform", "drawn") if sampler == MIXTURE else ("guess", "guess_after")
    return ("prefix", "tokens", "known", "z", given, "noise", "u", "after", "temperature"), ("logits", made, "z_after")


def named(sampler: str, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
    """The inputs of a step of text by their names."""
    return dict(zip(step_names(sampler)[0], inputs, strict=True))


def image_program(trained: TrainedModel, network: nn.Module) -> ExportedProgram:
    """The traced denoiser of an image model, or of its guide, for any batch."""
    module = ImageDenoiser(network, trained.process).eval()
    batch = Dim("batch", min=1, max=65_536)
    example = (torch.zeros(2, *trained.shape.size), torch.ones(2), torch.zeros(2, dtype=torch.int64))
    with torch.no_grad():
        return torch.export.export(module, example, dynamic_shapes=({0: batch}, {0: batch}, {0: batch}))


def text_program(model: Diffusion, sampler: str, tilt: float | None = None) -> ExportedProgram:
    """The traced step of a text model, for any batch, prefix and block."""
    mixture = sampler == MIXTURE
    module = (DrawingStep if mixture else GuessingStep)(model, sampler, tilt).eval()
    size, top = model.config.process.embedding, model.config.context
    batch, prefix, slots = Dim("batch", min=1, max=4096), Dim("prefix", min=1, max=top), Dim("slots", min=2, max=top)
    sizes = (size, model.vocabulary if mixture else size, size)
    vectors = [torch.zeros(2, 4, one) for one in sizes]  # one tensor three times would be traced as one argument
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
