"""Samples of every mode a job asks for, as texts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from core.errors import UserError
from core.processes import parts as parallel
from core.processes.world import ALONE, World
from core.randomness import generator_of
from core.text import autoregressive, fusion, generation, masked, original
from core.text.autoregressive import Autoregressive, NextToken
from core.text.config import GAP, TextSample
from core.text.denoiser import Diffusion
from core.text.generation import Settings, Watch
from core.text.masked import Masked
from core.text.model import TrainedText
from core.text.original import Original

FRAMES, FRAME_TEXTS = 64, 4


@dataclass
class Trajectory:
    """What the first texts look like while they are denoised: every so many evaluations, the most probable tokens."""

    every: int
    trained: TrainedText
    frames: list[dict[str, Any]] = field(default_factory=list)
    _seen: int = 0

    def __call__(self, gamma: float, tokens: Tensor) -> None:
        if self._seen % self.every == 0:
            decode = self.trained.tokenizer.decode
            texts = [[decode([index]) for index in row] for row in tokens[:FRAME_TEXTS].tolist()]
            self.frames.append({"gamma": round(gamma, 4), "tokens": texts})
        self._seen += 1


@dataclass(frozen=True)
class Sampler:
    """Draws texts from a diffusion model, an autoregressive one, or both; from the controls, without prompts."""

    trained: TrainedText
    other: NextToken | None  # the autoregressive side
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
        block = self.settings.block or self.trained.config.process.blocks[0]
        if block > self.trained.config.context:
            raise UserError(f"sample.block: found {block}; the model's context is {self.trained.config.context} tokens")
        return block

    def rows(self, world: World = ALONE) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """All samples, as rows of samples.jsonl, and the frames of trajectory.jsonl; in every process of `world`, which
        divide the batches and prompts."""
        self.require_modes()
        blocks = -(-self.length // self.block)
        every = max(1, -(-blocks * self.settings.steps // FRAMES))
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
        found: list[tuple[Callable[..., list[dict[str, Any]]], str, str, int, int]] = []
        plain = [mode for mode in self.settings.modes if mode != "infill"]
        for mode in plain:
            total = min(self.settings.count, self.settings.guided_count) if mode == "guided" else self.settings.count
            for start in range(0, total, self.settings.batch_size):
                found.append((self.continued, mode, "", min(self.settings.batch_size, total - start), start))
        for index, prompt in enumerate(self.settings.prompts):
            place, few = (index + 1) * 1_000_000, min(self.settings.count, 4)
            if GAP in prompt:
                found += [(self.filled, mode, prompt, few, place) for mode in ("infill", "guided")]
            else:
                found += [(self.continued, mode, prompt, few, place) for mode in plain]
        return found

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
        draws = generator_of(self.settings.seed, "sample", mode, place)
        ids = torch.tensor(self.trained.tokenizer.encode(prompt), dtype=torch.long).to(self.device)
        if len(ids) > self.trained.config.context // 2:
            ids = ids[-(self.trained.config.context // 2) :]
        start = ids.expand(count, -1)
        drawn = self._tokens(mode, start, self.length + len(ids), draws, watch)
        made = [prompt + self.trained.tokenizer.decode(row[len(ids) :].tolist()) for row in drawn]
        return [{"mode": mode, "prompt": prompt, "text": text, "seed": self.settings.seed} for text in made]

    def _tokens(self, mode: str, start: Tensor, length: int, draws: torch.Generator, watch: Watch | None) -> Tensor:
        s, network = self.settings, self.trained.network
        if isinstance(network, Masked):
            return masked.generate(network, len(start), length, s.steps, draws, s.temperature)
        if isinstance(network, Original):
            return original.generate(network, len(start), length, max(s.steps, 100), draws)
        if isinstance(network, Autoregressive):
            return autoregressive.generate(network, start, length, draws, s.temperature)
        assert isinstance(network, Diffusion)
        if mode == "diffusion":
            return generation.generate(network, start, length, self.block, self.denoising, draws, watch)
        other = self.other or network.autoregressive
        if mode == "autoregressive":
            return _continue(other, start, length, draws, s.temperature)
        if s.fusion == "verify":
            return fusion.verify(other, network, start, length, self.block, self.denoising, draws).tokens
        return fusion.reweight(
            other, network, start, length, self.block, s.candidates, s.fusion_weight, self.denoising, draws
        )

    def filled(
        self, mode: str, prompt: str, count: int, place: int, watch: Watch | None = None
    ) -> list[dict[str, Any]]:
        """What may stand in the prompt's gap, by diffusion alone (infill) or by both models (guided)."""
        s, network, tokenizer = self.settings, self.trained.network, self.trained.tokenizer
        assert isinstance(network, Diffusion)
        before, _, after = prompt.partition(GAP)
        if GAP in after:
            raise UserError(f"sample.prompts: found more than one {GAP} in {prompt!r}; one gap a prompt is allowed")
        room = max(self.trained.config.process.blocks)
        if s.gap >= room:
            raise UserError(f"sample.gap: found {s.gap}; the model fills gaps of at most {room - 1} tokens")
        left = torch.tensor(tokenizer.encode(before), dtype=torch.long).to(self.device).expand(count, -1)
        right = (
            torch.tensor(tokenizer.encode(after), dtype=torch.long)[: room - s.gap].to(self.device).expand(count, -1)
        )
        draws = generator_of(s.seed, "sample", mode, place)
        if mode == "infill":
            ids = generation.fill(network, left, s.gap, right, self.denoising, draws, watch)
        else:
            method = "mix" if s.fusion == "mix" else "bayes"
            other = self.other or network.autoregressive
            ids = fusion.fill(other, network, left, s.gap, right, method, s.fusion_weight, s.temperature, draws)
        made = [before + tokenizer.decode(row) + after for row in ids.tolist()]
        return [{"mode": mode, "prompt": prompt, "text": text, "seed": s.seed} for text in made]


def _continue(model: NextToken, start: Tensor, length: int, draws: torch.Generator, temperature: float) -> Tensor:
    """Tokens after start [B, P] until there are `length`, from any autoregressive model."""
    if isinstance(model, Autoregressive):
        return autoregressive.generate(model, start, length, draws, temperature)
    ids = start
    while ids.shape[1] < length:
        ids = torch.cat((ids, autoregressive.draw(model(ids)[:, -1] / temperature, draws)[:, None]), dim=1)
    return ids
