"""Samples of every mode that a job asks for, as texts; texts for one prompt; for several at once; texts in shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core.config import validate
from core.errors import UserError
from core.jsontext import to_lines
from core.processes import parts as parallel
from core.processes.world import SINGLE_PROCESS, World, own_device
from core.randomness import Noise, seed_of
from core.requests import Facts, SampleRequest, ShardDrawer, ShardRequest
from core.text import autoregressive, fusion, generation, masked, original
from core.text.autoregressive import Autoregressive
from core.text.config import GAP, TextDraw, TextSample, around_gap
from core.text.denoiser import Diffusion
from core.text.generation import Settings, Watch
from core.text.masked import Masked
from core.text.model import TrainedText, load_model, load_models
from core.text.original import Original
from core.text.schedule import NoisePath
from core.text.trajectory import Trajectory, interval
from core.training import numerics, precision
from core.training.casts import cast


@dataclass(frozen=True)
class Writer:
    """Writes texts with a diffusion model, an autoregressive one, or both; from the controls, without prompts."""

    trained: TrainedText
    other: Autoregressive | None  # the autoregressive side
    settings: TextSample
    device: torch.device

    @property
    def denoising(self) -> Settings:
        s = self.settings
        return Settings(s.sampler, s.steps, s.temperature, s.guidance, s.tilt)

    @property
    def length(self) -> int:
        return self.settings.length or self.trained.config.context

    @property
    def block(self) -> int:
        return self.trained.config.block(self.settings.block)

    @property
    def path(self) -> NoisePath:
        """The noise levels of a block that has as many steps as one likes."""
        return self._denoiser.path(self.block, self.block, self.settings.tilt)

    def path_by(self, evaluations: float) -> tuple[NoisePath, int]:
        """The noise levels of a block, and its steps, with so many evaluations a token."""
        return generation.path_by_evaluations(self._denoiser, evaluations, self.settings.block, self.settings.tilt)

    @property
    def _denoiser(self) -> Diffusion:
        assert isinstance(self.trained.network, Diffusion)
        return self.trained.network

    def rows(self, world: World = SINGLE_PROCESS) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """All samples, as rows of samples.jsonl, and the frames of trajectory.jsonl; in every process of `world`, which
        divide the batches and prompts."""
        self.require_modes()
        blocks = -(-self.length // self.block)
        every = interval(blocks * self.settings.steps)
        work = self._batches()

        def draw(index: int) -> dict[str, Any]:
            method, mode, prompt, count, place = work[index]
            trajectory = Trajectory(every, self.trained)
            first = (mode, prompt, place) == ("diffusion", "", 0)
            return {
                "rows": method(mode, prompt, count, place, trajectory if first else None),
                "frames": trajectory.frames,
            }

        parts = parallel.values(draw, len(work), world)
        return [row for part in parts for row in part["rows"]], [row for part in parts for row in part["frames"]]

    def _batches(self) -> list[tuple[Callable[..., list[dict[str, Any]]], str, str, int, int]]:
        """What is drawn, in order: the method that draws it, mode, prompt, how many and the place in the noise."""
        batches: list[tuple[Callable[..., list[dict[str, Any]]], str, str, int, int]] = []
        plain = [mode for mode in self.settings.modes if mode != "infill"]
        for mode in plain:
            total = min(self.settings.count, self.settings.guided_count) if mode == "guided" else self.settings.count
            for start in range(0, total, self.settings.batch_size):
                batches.append((self.continued, mode, "", min(self.settings.batch_size, total - start), start))
        for index, prompt in enumerate(self.settings.prompts):
            place, few = (index + 1) * 1_000_000, min(self.settings.count, 4)
            if GAP in prompt:
                batches += [(self.filled, mode, prompt, few, place) for mode in ("infill", "guided")]
            else:
                batches += [(self.continued, mode, prompt, few, place) for mode in plain]
        return batches

    def span(self, mode: str, start: int, stop: int) -> list[dict[str, Any]]:
        """Samples [start, stop) of a mode without a prompt; `start` is where a batch begins."""
        self.require_modes()
        size = self.settings.batch_size
        return [
            row
            for place in range(start, stop, size)
            for row in self.continued(mode, "", min(size, stop - place), place, None)
        ]

    def texts(self, mode: str, count: int) -> list[str]:
        """`count` texts of a mode without a prompt."""
        return [str(row["text"]) for row in self.continued(mode, "", count, 0, None)]

    def require_modes(self) -> None:
        """Raises UserError for modes and prompts that the model cannot serve."""
        if isinstance(self.trained.network, Diffusion):
            return
        if self.settings.prompts or set(self.settings.modes) - {"diffusion", "autoregressive"}:
            raise UserError(
                f"sample: a model trained as {self.trained.objective} allows mode diffusion without prompts;"
                " prompts, infill and guided need a diffusion model"
            )

    def continued(
        self, mode: str, prompt: str, count: int, place: int, watch: Watch | None = None
    ) -> list[dict[str, Any]]:
        """Continuations of a prompt (empty: none)."""
        noise = self._noise(mode, place, count)
        made = self.continuations(mode, [prompt] * count, noise, watch)
        return [{"mode": mode, "prompt": prompt, "text": text, "seed": self.settings.seed} for text in made]

    def continuations(self, mode: str, prompts: Sequence[str], noise: Noise, watch: Watch | None = None) -> list[str]:
        """A continuation of each prompt; prompts of one batch have the same number of tokens."""
        start = self._encoded(prompts, slice(-(self.trained.config.context // 2), None))
        with self._number_format():
            drawn = self._tokens(mode, start, self.length + start.shape[1], noise, watch)
        decode, new = self.trained.tokenizer.decode, drawn[:, start.shape[1] :].tolist()
        return [prompt + decode(row) for prompt, row in zip(prompts, new, strict=True)]

    @contextmanager
    def _number_format(self) -> Iterator[None]:
        """The number format that is asked for."""
        chosen = precision.choose(self.device, self.settings.precision)
        with (
            numerics.switched(chosen, self.device),
            chosen.autocast(self.device),
            cast(chosen.dtype, self.trained.network, self.other),
        ):
            yield

    def _noise(self, mode: str, first: int, count: int) -> Noise:
        """That of `count` samples of a mode from number `first` on."""
        return Noise.of(self.settings.seed, "sample", mode, rows=range(first, first + count), device=self.device)

    def _encoded(self, texts: Sequence[str], kept: slice) -> Tensor:
        """The `kept` tokens of each text: [B, P]."""
        known = {text: self.trained.tokenizer.encode(text)[kept] for text in set(texts)}
        return torch.tensor([known[text] for text in texts], dtype=torch.long).to(self.device)

    def _tokens(self, mode: str, start: Tensor, length: int, noise: Noise, watch: Watch | None) -> Tensor:
        s, network = self.settings, self.trained.network
        if mode == "diffusion" and isinstance(network, Diffusion):
            return generation.generate(network, start, length, self.block, self.denoising, noise, watch)
        if isinstance(network, Masked):
            return masked.generate(network, length, s.steps, noise, s.temperature)
        if isinstance(network, Original):
            return original.generate(network, length, max(s.steps, 100), noise)
        if isinstance(network, Autoregressive):
            return autoregressive.generate(network, start, length, noise, s.temperature)
        assert isinstance(network, Diffusion)
        other = self.other or network.autoregressive
        if mode == "autoregressive":
            return autoregressive.generate(other, start, length, noise, s.temperature)
        if s.fusion == "verify":
            return fusion.verify(other, network, start, length, self.block, self.denoising, noise).tokens
        many = start.repeat_interleave(s.candidates, dim=0)
        drawn = generation.generate(network, many, length, self.block, self.denoising, noise.repeated(s.candidates))
        return fusion.reweight(other, drawn.view(len(start), s.candidates, length), s.fusion_weight, noise)

    def _join(self, own: Tensor, both: Tensor, alone: Tensor) -> Tensor:
        """The law of a token in the gap, by the configured way of fusion."""
        s = self.settings
        if s.fusion == "mix":
            return fusion.mix(own, both, s.fusion_weight) / s.temperature
        return fusion.bayes(own, both, alone, s.fusion_weight) / s.temperature

    def filled(
        self, mode: str, prompt: str, count: int, place: int, watch: Watch | None = None
    ) -> list[dict[str, Any]]:
        """What may stand in the prompt's gap, by diffusion alone (infill) or by both models (guided)."""
        noise = self._noise(mode, place, count)
        made = self.fillings(mode, [prompt] * count, noise, watch)
        return [{"mode": mode, "prompt": prompt, "text": text, "seed": self.settings.seed} for text in made]

    def fillings(self, mode: str, prompts: Sequence[str], noise: Noise, watch: Watch | None = None) -> list[str]:
        """Each prompt with its gap filled; prompts of one batch have as many tokens before the gap, and after it."""
        s, network = self.settings, self.trained.network
        assert isinstance(network, Diffusion)
        sides = [around_gap(prompt) for prompt in prompts]
        room = max(self.trained.config.process.blocks)
        if s.gap >= room:
            raise UserError(f"sample.gap: found {s.gap}; the model fills gaps of at most {room - 1} tokens")
        left = self._encoded([before for before, _ in sides], slice(None))
        right = self._encoded([after for _, after in sides], slice(room - s.gap))
        with self._number_format():
            if mode == "infill":
                ids = generation.fill(network, left, s.gap, right, self.denoising, noise, watch)
            else:
                other = self.other or network.autoregressive
                ids = fusion.fill(other, network, left, s.gap, right, self._join, noise)
        decode = self.trained.tokenizer.decode
        return [before + decode(row) + after for (before, after), row in zip(sides, ids.tolist(), strict=True)]


@dataclass(frozen=True)
class Row:
    """Sample `index` of those that `write` gives for `prompt` and `seed`."""

    prompt: str
    seed: int
    index: int


@torch.inference_mode()
def write_rows(writer: Writer, rows: Sequence[Row], watch: Watch | None = None) -> list[str]:
    """Texts of several draws in one batch. Prompts have the same number of tokens, before a gap and after it.

    Raises:
        UserError: the settings ask for what the model cannot do.
    """
    mode = "infill" if GAP in rows[0].prompt else "diffusion"
    noise = Noise([seed_of(row.seed, "sample", mode, row.index) for row in rows], writer.device)
    make = writer.fillings if mode == "infill" else writer.continuations
    return make(mode, [row.prompt for row in rows], noise, watch)


def write(request: SampleRequest, prompt: str, watch: Callable[[float, list[str]], None] | None = None) -> list[Facts]:
    """Texts by diffusion for one prompt, as rows of samples.jsonl: new ones, continued ones, or with ___ filled in.

    Args:
        request: which model, and how; nothing is written to `out`.
        prompt: empty for none.
        watch: is called with the noise level gamma and the texts as they are then, at every evaluation.

    Raises:
        UserError: the model is damaged, or the settings ask for what it cannot do.
    """
    device = own_device()
    trained, other = load_models(request.model, request.autoregressive, device)
    return written(trained, other, request.sample, prompt, device, watch)


def written(
    trained: TrainedText,
    other: Autoregressive | None,
    sample: Mapping[str, Any],
    prompt: str,
    device: torch.device,
    watch: Callable[[float, list[str]], None] | None = None,
) -> list[Facts]:
    """The same from models in memory; `sample` are keys of the section `sample`.

    Raises:
        UserError: the settings ask for what the model cannot do.
    """
    asked = {"modes": ["infill" if GAP in prompt else "diffusion"], "prompts": [prompt] if prompt else []}
    settings = validate(TextDraw, {**sample, **asked}, "sample")
    writer = Writer(trained, other, settings, device)
    writer.require_modes()

    def show(gamma: float, tokens: Tensor) -> None:
        if watch is not None:
            watch(gamma, [trained.tokenizer.decode(row) for row in tokens.tolist()])

    if GAP in prompt:
        return writer.filled("infill", prompt, settings.count, 0, show)
    return writer.continued("diffusion", prompt, settings.count, 0, show)


def shard_drawer(request: ShardRequest) -> ShardDrawer:
    """Ranges of very many texts of one mode, without prompts, as lines of samples.jsonl.

    Raises:
        UserError: the model is damaged, or the settings ask for what it cannot do.
    """
    settings = validate(TextSample, {"modes": ("diffusion",), **request.sample, "count": request.size}, "sample")
    if len(settings.modes) != 1 or settings.modes[0] not in ("diffusion", "autoregressive") or settings.prompts:
        raise UserError("sample.modes: shards take one mode, diffusion or autoregressive, and no prompts")
    device = own_device()
    trained = load_model(request.model, device)
    writer = Writer(trained, None, settings, device)
    facts = settings.model_dump(mode="json", exclude={"count"})
    return ShardDrawer(
        lambda start, stop: to_lines(writer.span(settings.modes[0], start, stop)),
        ".jsonl",
        {"sample": facts, "weights_sha256": trained.description["weights_sha256"]},
    )
