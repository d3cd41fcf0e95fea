"""One optimizer step: gradients, clipping, weights, their average. On a GPU recorded once, and replayed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from core.config import TrainConfig
from core.processes import world as distributed
from core.processes.world import World
from core.randomness import Draws, seed_of
from core.training.casts import Casts
from core.training.compilation import compiled
from core.training.ema import PowerEMA
from core.training.graphs import Graphs
from core.training.objective import Batch, Objective, settle
from core.training.optimizers import Optimizers
from core.training.precision import LossScale, Precision
from core.transfer import to_device

log = logging.getLogger(__name__)


class Step:
    """Trains `model` by a batch at a time; holds all that changes with it.

    A step whose loss or gradients are not finite in some process changes nothing. A GPU decides that by itself: the
    host never waits for it.
    """

    def __init__(self, objective: Objective, config: TrainConfig, world: World, precision: Precision) -> None:
        self.objective, self.config, self.world, self.precision = objective, config, world, precision
        self.model = objective.model.to(world.device)
        self.order = objective.order(config.seed)
        self.optimizers = Optimizers(objective.parameter_groups(), config, world.device)
        self.scale = LossScale(world.device, enabled=precision.scaled)
        self.ema = PowerEMA(self.model, config.ema_std)
        self.forward: Callable[..., Any] = self.model
        self.on_gpu = world.device.type == "cuda"
        # A compiled network has its casts within its kernels, and is compiled for the weights that it has.
        self.casts = Casts(self.model, None if config.compile else precision.dtype)
        if config.compile:
            self.forward = compiled(self.model, world.device)
        if self.on_gpu and config.graphs and world.size > 1 and world.is_first:
            log.warning(
                "on %d GPUs steps are not recorded, so a small network may train faster on one (docs/planning.md)",
                world.size,
            )
        alone = world.size == 1 and len(self._parts()) == 1
        self.graphs = Graphs(on=self.on_gpu and alone and config.graphs)

    def __call__(self, seen: int, rate: float) -> Tensor:
        """Trains on the examples after the first `seen`, at `rate` in [0, 1] of the peak learning rates.

        Returns:
            [3] float64 on the device: the loss over all processes, the gradient's norm, whether the step was skipped.
        """
        self.model.train()
        kept = self.ema.kept(seen + self.config.batch_size, self.config.batch_size)
        if not self.on_gpu:
            return self._update(self._gradients(seen), rate, kept)
        numbers = to_device(torch.tensor([rate, kept]), self.world.device).unbind()  # which a recorded step reads anew
        if not self.graphs.on:
            return self._update(self._gradients(seen), *numbers)
        batch = self._batch(seen, *self._parts()[0])
        return self.graphs(self._recorded, Batch((*numbers, *batch.tensors), batch.kind))

    def _recorded(self, batch: Batch) -> Tensor:
        self._begin()
        rate, kept, *tensors = batch.tensors
        return self._update(self._backward(Batch(tuple(tensors), batch.kind)), rate, kept)

    def _begin(self) -> None:
        self.optimizers.zero_grad()
        self.casts.refresh()

    def _update(self, loss: Tensor, rate: float | Tensor, kept: float | Tensor) -> Tensor:
        """Takes a step by the gradients that `loss` left behind."""
        # A loss can be lost while its gradients stay finite (a clamp, a where), and in one process only.
        loss = distributed.sum_over_processes(loss)
        self.scale.unscale(self.model.parameters())
        distributed.average_gradients(self.model, self.world)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip, foreach=self.on_gpu or None)
        bad = ~(norm.isfinite() & loss.isfinite())
        self.optimizers.set_learning_rate(rate)
        self.optimizers.step(bad)
        self.scale.update(bad)
        settle(self.model, ~bad)
        self.ema.update(self.model, kept)
        return torch.stack([loss.double(), norm.double(), bad.double()])

    def _gradients(self, seen: int) -> Tensor:
        """Gradients of this process's share of the batch; the sum of its losses, over processes the batch's mean."""
        self._begin()
        total = torch.zeros((), device=self.world.device)
        for part in self._parts():
            total += self._backward(self._batch(seen, *part))
        return total

    def _parts(self) -> list[tuple[int, int]]:
        """From where to where in the batch this process holds examples at once."""
        first, last = self.world.share(self.config.batch_size)
        most = self.config.micro_batch or self.config.batch_size
        return [(start, min(last, start + most)) for start in range(first, last, most)]

    def _batch(self, seen: int, start: int, stop: int) -> Batch:
        torch.manual_seed(seed_of(self.config.seed, "dropout", seen, start))
        draws = Draws(self.config.seed, seen, start, stop, self.config.batch_size, self.world.device)
        return self.objective.batch(self.order(seen + start, seen + stop), draws)

    def _backward(self, batch: Batch) -> Tensor:
        with self.precision.autocast(self.world.device), self.casts.in_place():
            losses = self.objective.loss(self.forward, batch)
        loss = losses.float().sum() / self.config.batch_size
        self.scale.scaled(loss * self.world.size).backward()
        return loss.detach()
