"""Hyper-parameter search: which settings of a training are tried, and which of them did best.

Suggestions are points of a scrambled Sobol sequence (Owen 1998; `torch.quasirandom`) over the ranges, or all points of
a grid when every parameter lists its values. They are a pure function of the section, so a search that was killed
tries the same again and finds its finished trials in the cache.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from core.config import Frozen, TrainConfig, validate
from core.errors import UserError

VALIDATION_LOSS = "validation_loss"
SEARCHABLE = (
    "batch_size",
    "optimizer",
    "learning_rate",
    "muon_learning_rate",
    "weight_decay",
    "warmup_examples",
    "decay",
    "decay_start",
    "clip",
    "ema_std",
)
"""Settings of a training that change what is learned; its budget and seed are not among them."""
MOST_PARAMETERS, MOST_TRIALS = 2, 100

Value = bool | int | float | str
Settings = dict[str, Value]


class SearchParameter(Frozen):
    """The values that one setting may take: a range, or a list."""

    min: float | None = None
    max: float | None = None
    scale: Literal["linear", "log"] = "linear"
    values: tuple[Value, ...] | None = Field(None, min_length=2, max_length=MOST_TRIALS)

    @model_validator(mode="after")
    def _one_kind(self) -> SearchParameter:
        if self.values is not None:
            if self.min is not None or self.max is not None:
                raise ValueError("give either min and max, or values")
            if len(set(self.values)) < len(self.values):
                raise ValueError("values has the same value twice")
        elif self.min is None or self.max is None:
            raise ValueError("give both min and max, or values")
        elif self.min >= self.max:
            raise ValueError(f"the range is empty: min {self.min:g} is not below max {self.max:g}")
        elif self.scale == "log" and self.min <= 0:
            raise ValueError(f"scale: log needs a min above 0, found {self.min:g}")
        return self

    def at(self, position: float, *, whole: bool) -> Value:
        """The value at `position` in [0, 1); a whole number for a setting that is counted."""
        if self.values is not None:
            return self.values[int(position * len(self.values))]
        assert self.min is not None
        assert self.max is not None
        if self.scale == "log":
            value = math.exp(math.log(self.min) + position * (math.log(self.max) - math.log(self.min)))
        else:
            value = self.min + position * (self.max - self.min)
        if whole:
            return round(value)
        return min(max(float(f"{value:.4g}"), self.min), self.max)  # four digits: what a person would type


class SearchConfig(Frozen):
    """A search over one or two settings of the training, before it is trained in full."""

    parameters: dict[str, SearchParameter] = Field(
        min_length=1,
        max_length=MOST_PARAMETERS,
        description="setting -> {min, max, scale: linear or log} or {values: [...]}, for example train.learning_rate",
    )
    trials: int = Field(8, ge=2, le=MOST_TRIALS, description="trainings that are compared")
    parallel: int = Field(1, ge=1, le=MOST_TRIALS, description="trials at once; on this machine two at most")
    metric: str = Field(VALIDATION_LOSS, min_length=1, description="validation_loss, or a metric of metrics.json")
    better: Literal["lower", "higher"] = "lower"
    seed: int = Field(0, ge=0, lt=2**31)
    examples: int | None = Field(None, ge=1, le=10**12, description="budget of a trial; alternative to minutes")
    minutes: float | None = Field(None, gt=0, le=60 * 24 * 30, description="budget of a trial in minutes")

    @field_validator("parameters", mode="before")
    @classmethod
    def _dotted(cls, value: object) -> object:
        """`train: {learning_rate: ...}`, which is what `--set search.parameters.train.learning_rate...` makes, is
        laid over `train.learning_rate: ...`."""
        nested = value.get("train") if isinstance(value, Mapping) else None
        if not isinstance(value, Mapping) or not isinstance(nested, Mapping):
            return value
        dotted = {key: item for key, item in value.items() if key != "train"}
        for key, item in nested.items():
            old = dotted.get(f"train.{key}")
            both = isinstance(old, Mapping) and isinstance(item, Mapping)
            dotted[f"train.{key}"] = {**old, **item} if both else item  # type: ignore[dict-item]
        return dotted

    @field_validator("parameters")
    @classmethod
    def _searchable(cls, value: dict[str, SearchParameter]) -> dict[str, SearchParameter]:
        for name in value:
            if not name.startswith("train.") or name.removeprefix("train.") not in SEARCHABLE:
                allowed = ", ".join(f"train.{one}" for one in SEARCHABLE)
                raise ValueError(f"{name} is no setting of a training that can be searched; allowed: {allowed}")
        return value

    @model_validator(mode="after")
    def _fits(self) -> SearchConfig:
        if (self.examples is None) == (self.minutes is None):
            raise ValueError("set exactly one of examples and minutes, the budget of a trial")
        points = math.prod(self._points(name) for name in self.parameters)
        if self.trials > points:
            raise ValueError(f"trials is {self.trials}, but the parameters have only {points:g} different points")
        return self

    def _points(self, name: str) -> float:
        parameter = self.parameters[name]
        if parameter.values is not None:
            return len(parameter.values)
        assert parameter.min is not None
        assert parameter.max is not None
        return round(parameter.max) - round(parameter.min) + 1 if counted(name) else math.inf


def counted(name: str) -> bool:
    """Whether the setting `train.X` is a whole number."""
    return TrainConfig.model_fields[name.removeprefix("train.")].annotation is int


def require_trials(search: SearchConfig, train: TrainConfig, where: str) -> None:
    """The trials of `search` must be valid trainings, shorter than `train`. Asked of jobs that are about to search, so
    that a section which is not used disturbs nobody.

    Raises:
        UserError: they are not; `where` is the job.
    """
    for unit in ("examples", "minutes"):
        trial, whole = getattr(search, unit), getattr(train, unit)
        if trial is not None and whole is not None and trial >= whole:
            raise UserError(f"{where}: search: a trial's {unit} ({trial:g}) are not below the training's ({whole:g})")
    for name, parameter in search.parameters.items():
        for value in parameter.values or (parameter.at(0.0, whole=counted(name)), parameter.max):
            try:
                TrainConfig.model_validate(trial_settings(train.model_dump(), search, {name: value}))
            except ValidationError as error:
                first = error.errors()[0]
                raise UserError(f"{where}: search: {name} cannot be {value}: {first['msg']}") from None


def trial_settings(
    train: Mapping[str, Any], search: SearchConfig, suggestion: Mapping[str, Any], *, full: bool = False
) -> dict[str, Any]:
    """The `train` section with a suggestion laid over it, at the budget of a trial or in `full`."""
    settings = {**train, **{name.removeprefix("train."): value for name, value in suggestion.items()}}
    if full:
        return settings
    budget = {"examples": search.examples, "minutes": search.minutes}
    settings = {key: value for key, value in settings.items() if key not in budget}
    return settings | {key: value for key, value in budget.items() if value is not None}


def make_trial(
    search: SearchConfig, train: Mapping[str, Any], number: int, suggestion: Mapping[str, Any]
) -> dict[str, Any]:
    """All that one trial depends on, as JSON: its number, what was suggested, its `train` section and its metric."""
    section = validate(TrainConfig, trial_settings(train, search, suggestion), "train")
    return {
        "trial": number,
        "parameters": dict(suggestion),
        "train": section.model_dump(mode="json", exclude_none=True),
        "metric": search.metric,
    }


def suggest(config: Mapping[str, Any], train: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The trials of a `search` section, in order and no two alike.

    A search of more trials begins with those of a search of fewer.
    """
    search = validate(SearchConfig, config, "search")
    tried: list[Settings] = []
    for settings in _grid(search) if _is_grid(search) else _sobol(search):
        if settings not in tried:  # whole numbers repeat
            tried.append(settings)
        if len(tried) == search.trials:
            break
    return [make_trial(search, train, number, settings) for number, settings in enumerate(tried, start=1)]


def _is_grid(search: SearchConfig) -> bool:
    return all(parameter.values is not None for parameter in search.parameters.values())


def _grid(search: SearchConfig) -> Iterator[Settings]:
    """All points in a random order: a search of fewer trials than points is spread over them."""
    lists = [parameter.values or () for parameter in search.parameters.values()]
    points = list(itertools.product(*lists))
    random.Random(search.seed).shuffle(points)
    for point in points:
        yield dict(zip(search.parameters, point, strict=True))


def _sobol(search: SearchConfig) -> Iterator[Settings]:
    from torch.quasirandom import SobolEngine

    engine = SobolEngine(len(search.parameters), scramble=True, seed=search.seed)
    while True:
        position = engine.draw(1)[0].tolist()
        yield {
            name: parameter.at(min(place, 1 - 1e-7), whole=counted(name))
            for place, (name, parameter) in zip(position, search.parameters.items(), strict=True)
        }


def choose(config: Mapping[str, Any], train: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a search found, as search.json keeps it; `train` of it is the winner's section at the full budget.

    Args:
        config: the `search` section.
        train: the job's `train` section.
        trials: {"trial": number, "parameters": {...}, "value": metric or None, "error": text or None, ...} each.

    Raises:
        UserError: no trial came to its end.
    """
    search = validate(SearchConfig, config, "search")
    ordered = sorted(trials, key=lambda trial: int(trial["trial"]))
    finished = [trial for trial in ordered if trial["value"] is not None]
    if not finished:
        reason = next((trial["error"] for trial in ordered if trial.get("error")), "none was run")
        raise UserError(f"search: none of {len(ordered)} trials came to its end; the first: {reason}")
    sign = 1 if search.better == "lower" else -1
    best = min(finished, key=lambda trial: sign * float(trial["value"]))  # the first of equals
    section = validate(TrainConfig, trial_settings(train, search, best["parameters"], full=True), "train")
    return {
        "metric": search.metric,
        "better": search.better,
        "parameters": search.model_dump(mode="json", exclude_none=True)["parameters"],
        "budget": {"examples": search.examples} if search.examples else {"minutes": search.minutes},
        "trials": [dict(trial) for trial in ordered],
        "best": int(best["trial"]),
        "value": best["value"],
        "settings": dict(best["parameters"]),
        "train": section.model_dump(mode="json", exclude_none=True),
    }
