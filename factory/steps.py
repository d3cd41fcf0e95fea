"""The steps of all pipelines. Whatever lists, orders, places, loads or traces steps reads this one table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Cost = Literal["light", "computes", "trains"]


@dataclass(frozen=True)
class Step:
    """One step.

    Args:
        name: of its task in every pipeline.
        component: `module:function` in components/.
        artifact: its main output; empty if it has none.
        cost: light: needs no torch; computes: works with the modality's code; trains: makes an optimizer too.
        machine: the key of the job's `resources` that names its machine.
        cached: whether it may be served from cache; what depends on the registry, or on
            shards that lie elsewhere, may not.
        budget: the section of the job that holds its budget, if it trains a model of the job.
    """

    name: str
    component: str
    artifact: str
    cost: Cost = "light"
    machine: Literal["cpu", "sample", "train"] = "cpu"
    cached: bool = True
    budget: str = ""

    def imports(self, modality: str) -> tuple[str, ...]:
        """The slow modules that it needs, for a process that imports them once for many steps."""
        if self.cost == "light" or not modality:
            return ()
        return (f"core.{modality}.modality", *(("torch.utils.tensorboard",) if self.cost == "trains" else ()))


STEPS: Mapping[str, Step] = {
    step.name: step
    for step in (
        Step("check-data", "check_data:check_data", "found", cached=False),
        Step("import-model", "import_model:import_model", "model", cached=False),
        Step("prepare-data", "prepare_data:prepare_data", "dataset", "computes"),
        Step("train-judge", "train_judge:train_judge", "judge", "computes", "sample"),
        Step("train-autoregressive", "train:train_autoregressive", "autoregressive", "trains", "train",
             budget="autoregressive"),
        Step("suggest", "suggest:suggest", ""),
        Step("trial", "trial:trial", "tried", "trains", "train"),
        Step("plan-trials", "plan_trials:plan_trials", "plan"),
        Step("choose", "choose:choose", "search"),
        Step("train", "train:train", "model", "trains", "train", budget="train"),
        Step("train-diffusion", "train:train_diffusion", "model", "trains", "train", budget="train"),
        Step("sample", "sample:sample", "samples", "computes", "sample"),
        Step("evaluate", "evaluate:evaluate", "evaluation", "computes", "sample"),
        Step("plan-shards", "many:plan_shards", ""),
        Step("draw-shards", "many:draw_shards", "drawn", "computes", "sample", cached=False),
        Step("collect-shards", "many:collect_shards", "shards", cached=False),
        Step("gate", "gate:gate", "verdict", "light", "sample", cached=False),
        Step("register", "register:register", "registered", cached=False),
        Step("keep", "keep:keep", "kept", cached=False),
        Step("remember-data", "check_data:remember_data", "", cached=False),
    )
}  # fmt: skip
"""By name, in the order in which they are shown."""


def step_of(task: str) -> Step | None:
    """The step of a task; `trial-3` is the third `trial` of a loop. None: no step of ours."""
    return STEPS.get(task) or STEPS.get(re.sub(r"-\d+$", "", task))
