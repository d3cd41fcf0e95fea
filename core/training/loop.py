"""The one training loop, for every model. Its clock is examples seen.

Learning rate, EMA, noise, dropout and data order are pure functions of (seed, examples seen); so a training that was
killed at any moment goes on from its last checkpoint and ends with the very same weights: on a CPU always, on CUDA
with `train.deterministic`.

Between two rows of the log the host never waits for a GPU: a step that is not finite is skipped there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.config import TrainConfig
from core.errors import UserError
from core.processes import world as distributed
from core.processes.interrupt import stop_requested
from core.processes.world import World
from core.progress import Progress
from core.storage.checkpoint import CheckpointStore
from core.training import divergence, machine, numerics, precision
from core.training.budget import Budget
from core.training.capacity import require_memory_to_train
from core.training.live import Live
from core.training.log import TrainingLog
from core.training.objective import Objective
from core.training.outcomes import Outcomes
from core.training.result import FitResult, InterruptedTrainingError
from core.training.state import TrainingState
from core.training.step import Step

log = logging.getLogger(__name__)


def fit(
    objective: Objective,
    config: TrainConfig,
    store: CheckpointStore,
    world: World,
    *,
    name: str = "train",
    tensorboard: Path | None = None,
    beside: Mapping[str, bytes] | None = None,
) -> FitResult:
    """Trains `objective.model` until the budget is spent, resuming from `store` if there is a checkpoint.

    `beside` are files that every checkpoint holds, so that it can be read as a model (`core.storage.snapshot`).

    Raises:
        InterruptedTrainingError: SIGTERM or SIGINT came; the checkpoint is written.
        DivergedError: too many steps in a row were not finite; the examples at fault are named.
    """
    training = _Training(objective, config, store, world, name, tensorboard, dict(beside or {}))
    with numerics.switched(training.precision, world.device, deterministic=config.deterministic):
        return training.run()


class _Training:
    def __init__(
        self,
        objective: Objective,
        config: TrainConfig,
        store: CheckpointStore,
        world: World,
        name: str,
        tensorboard: Path | None,
        beside: dict[str, bytes],
    ) -> None:
        distributed.require_shares(config.batch_size, world)
        self.objective, self.config, self.store, self.world = objective, config, store, world
        self.name, self.beside = name, beside
        require_memory_to_train(objective.model, world.device, name)
        self.precision = precision.choose(world.device, config.precision)
        self.step = Step(objective, config, world, self.precision)
        self.model, self.ema = self.step.model, self.step.ema
        self.kept: dict[str, dict[str, Tensor]] = {}  # averages of other moments: "best", "guide"
        self.previews: dict[str, bytes] = {}
        self.state = TrainingState()
        rows = self._restore()
        distributed.broadcast_weights(self.model, world)
        self.resumed_at = self.state.examples_seen
        self.budget = Budget(config, self.state.total)
        self.log = TrainingLog(rows, tensorboard if world.is_first else None)
        self.live = Live()
        self.state.machine = machine.settle_on(
            name, self.state.machine, world, self.precision, deterministic=config.deterministic
        )
        self.outcomes = Outcomes(world.device)
        self.norm = 0.0  # of the last step's gradient; 0 if it was skipped

    def run(self) -> FitResult:
        state, start = self.state, self.state.examples_seen
        with stop_requested() as stop, Progress(self.name, self.budget.total, "examples", start=start) as progress:
            self._start_clock()
            progress.update(start)
            while not (self.budget.finished(state.examples_seen) or self._stopped_early()):
                self._step()
                row_is_due = self._row_is_due()
                if row_is_due or self.outcomes.due:
                    self._read_outcomes()
                stopped, save = self._meet(stop.is_set())
                if row_is_due and state.losses:
                    self._write_log(progress)
                else:
                    progress.update(state.examples_seen, total=self.budget.total)
                self._look()
                if stopped:
                    self._save()
                    raise InterruptedTrainingError(f"{self.name}: stopped by signal at {state.examples_seen} examples")
                if save:
                    self._save()
        if state.examples_seen > self.resumed_at:
            self._save()
        self.log.close()
        return self._result()

    def _start_clock(self) -> None:
        now = time.monotonic()
        self._began = now - self.state.seconds  # as if the processes before had run without a break
        self._saved_at = now
        self._last_row = (self.state.examples_seen, now)

    def _meet(self, signalled: bool) -> tuple[bool, bool]:
        """Takes the time, by the slowest process, and agrees with all others: (to stop, to write a checkpoint).

        One is due from time to time, and where the budget's minutes have turned into examples, which it must keep.
        """
        self.state.seconds = time.monotonic() - self._began
        mine = (self.state.seconds, signalled, self._checkpoint_is_due())
        slowest, stopped, due = distributed.largest(mine, self.world)
        fixed = self.budget.observe(self.state.examples_seen, slowest)
        self.state.total = self.budget.total
        return bool(stopped), bool(due) or fixed

    def _checkpoint_is_due(self) -> bool:
        return self.world.is_first and time.monotonic() - self._saved_at >= 60 * self.config.checkpoint_minutes

    def _row_is_due(self) -> bool:
        seen, config = self.state.examples_seen, self.config
        return seen // config.batch_size % config.log_every == 0 or self.budget.finished(seen)

    def _write_log(self, progress: Progress) -> None:
        """A row: the mean loss of good steps since the last one, and the last step's gradient norm."""
        seen, config = self.state.examples_seen, self.config
        mean = float(torch.tensor(self.state.losses).mean())
        now, (seen_before, before) = time.monotonic(), self._last_row
        self._last_row, self.state.losses = (seen, now), []
        self.log.add(
            seen,
            seconds=round(self.state.seconds, 3),
            rate=round((seen - seen_before) / max(now - before, 1e-9), 1),
            loss=mean,
            lr=self.budget.learning_rate(seen - config.batch_size) * config.learning_rate,
            grad_norm=self.norm,
        )
        progress.update(seen, total=self.budget.total, loss=mean)
        divergence.refuse_growth(self.name, self.log.rows)
        self.live.show(self.log.rows, self.previews)

    def _result(self) -> FitResult:
        if "best" in self.kept:
            self.ema.model.load_state_dict(self.kept["best"])
        return FitResult(
            model=self.ema.model,
            guide=self.kept.get("guide", {}),
            examples_seen=self.state.examples_seen,
            seconds=self.state.seconds,
            log=self.log.rows,
            previews=self.previews,
            precision=self.precision,
            device=self.world.device,
            machine=self.state.machine,
            resumed_at=self.resumed_at,
            skipped_steps=self.state.skipped_steps,
        )

    def _step(self) -> None:
        seen = self.state.examples_seen
        self.outcomes.add(seen, self.step(seen, self.budget.learning_rate(seen)))
        self.state.examples_seen += self.config.batch_size

    def _read_outcomes(self) -> None:
        """Counts what steps came to since the last time.

        Raises:
            DivergedError: too many in a row were skipped.
        """
        state = self.state
        for step in self.outcomes.read():
            if not step.bad:
                state.bad_steps, self.norm = 0, step.norm
                state.losses.append(step.loss)
                continue
            state.bad_steps, self.norm = state.bad_steps + 1, 0.0
            state.skipped_steps += 1
            indices = self.step.order(step.seen, step.seen + self.config.batch_size)
            divergence.refuse_bad_steps(self.name, state.bad_steps, step.seen, indices)

    def _look(self) -> None:
        """The guide's weights, validation and previews when they are due."""
        seen, config = self.state.examples_seen, self.config
        if config.guide_at is not None and "guide" not in self.kept and self.budget.passed(seen, config.guide_at):
            self._keep("guide")
        end = self.budget.finished(seen)
        if self.budget.crosses(seen, config.validate_every) or end:
            with self.precision.looking(self.world.device):
                losses = self.objective.validate(self.ema.model) if self.world.is_first else {}
            losses = distributed.from_first(losses, self.world)  # so that all stop early at the same step
            self.log.add(seen, seconds=round(self.state.seconds, 3), validation=losses)
            divergence.refuse_not_finite(self.name, losses["loss"], seen)
            if self.state.best_loss is None or losses["loss"] < self.state.best_loss:
                self.state.best_loss, self.state.bad_validations = losses["loss"], 0
                if config.early_stop is not None:
                    self._keep("best")
            else:
                self.state.bad_validations += 1
        if self.world.is_first and (self.budget.crosses(seen, config.preview_every) or end):
            with self.precision.looking(self.world.device):
                preview = self.objective.preview(self.ema.model)
            if preview is not None:
                self.previews[f"preview-{seen:012d}{preview[0]}"] = preview[1]

    def _keep(self, name: str) -> None:
        self.kept[name] = {key: value.clone() for key, value in self.ema.state_dict().items()}

    def _stopped_early(self) -> bool:
        return self.config.early_stop is not None and self.state.bad_validations >= self.config.early_stop

    def _save(self) -> None:
        """Writes a checkpoint; no process goes on, or away, before it is there.

        Raises:
            UserError: it could not be written. Every process raises, so that none waits for one that is gone.
        """
        self._read_outcomes()
        distributed.by_first(self._write, self.world)
        self._saved_at = time.monotonic()

    def _write(self) -> None:
        self.state.scaler = self.step.scale.state_dict()
        tensors = {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.step.optimizers.state_dict(),
            **self.kept,
        }
        files = {"log.jsonl": self.log.to_bytes(), **self.previews, **self.beside}
        self.store.save(tensors, files, vars(self.state))
        self.log.publish()

    def _restore(self) -> list[dict[str, Any]]:
        """Continues from the newest whole checkpoint, if any; the rows of its log.

        Raises:
            UserError: it is of another training, or the processes do not find the same one.
        """
        checkpoint = self.store.load()
        index = -1 if checkpoint is None else checkpoint.index
        if not distributed.agree(index, self.world):
            raise UserError(
                f"{self.store.root}: process {self.world.rank} finds checkpoint {index}, others another one;"
                " the folder of checkpoints must be the same place for all processes"
            )
        if checkpoint is None:
            return []
        try:
            self.state = TrainingState(**checkpoint.meta)
            self.model.load_state_dict(checkpoint.tensors["model"])
            self.ema.load_state_dict(checkpoint.tensors["ema"])
            self.step.optimizers.load_state_dict(checkpoint.tensors["optimizer"])
            self.step.scale.load_state_dict(self.state.scaler)
            rows = TrainingLog.parse(checkpoint.files["log.jsonl"])
        except (RuntimeError, TypeError, KeyError, ValueError) as error:
            raise UserError(
                f"{self.store.root}: checkpoint {index} is of another model or version: {error};"
                " remove the folder to begin anew"
            ) from None
        self.kept = {name: checkpoint.tensors[name] for name in ("best", "guide") if name in checkpoint.tensors}
        self.previews = {name: data for name, data in checkpoint.files.items() if name.startswith("preview-")}
        log.info("%s goes on at %d examples, from %s", self.name, self.state.examples_seen, self.store.root)
        return rows
