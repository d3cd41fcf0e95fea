"""Every setting, as frozen pydantic models; YAML files and `--set` overrides become one `JobConfig`.

A job's YAML has one section for each step, so that a step is handed only what it depends on and caching follows.
Sections that differ by modality are defined next to their code: `core/images/config.py`, `core/text/config.py`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from core import yamltext
from core.errors import UserError
from core.refusals import sentence, short
from core.schemes import allowed_place
from core.secrets import without_secrets


class Frozen(BaseModel):
    """Base of every section: immutable, unknown keys refused, no NaN or infinity, and no text with a password or token
    in it, which would be kept in every record of the run."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    kept_nowhere: ClassVar[frozenset[str]] = frozenset()  # fields that may hold a credential

    @field_validator("*")
    @classmethod
    def _holds_no_credential(cls, value: Any, info: ValidationInfo) -> Any:
        if info.field_name not in cls.kept_nowhere:
            for text in _texts(value):
                without_secrets(text)
        return value


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.items():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


S = TypeVar("S", bound=BaseModel)
Place = Annotated[str, AfterValidator(allowed_place)]
"""A path, a name, or a URI of a scheme that core/schemes.py allows."""


class TrainConfig(Frozen):
    """The training loop. One clock, examples seen, drives learning rate, EMA, noise and data order."""

    examples: int | None = Field(None, ge=1, le=10**12, description="budget in examples; alternative to minutes")
    minutes: float | None = Field(
        None, gt=0, le=60 * 24 * 30, description="budget in minutes of steps; validations and previews come on top"
    )
    batch_size: int = Field(128, ge=1, le=1_048_576, description="global batch: all processes, all micro-batches")
    micro_batch: int | None = Field(None, ge=1, description="examples a process holds at once; null: no accumulation")
    seed: int = Field(0, ge=0, lt=2**63)
    optimizer: Literal["adamw", "muon"] = Field("adamw", description="muon: matrices by Muon, the rest by AdamW")
    learning_rate: float = Field(1e-3, gt=0, le=10)
    muon_learning_rate: float = Field(0.02, gt=0, le=10, description="for matrices, with optimizer: muon")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.99)
    weight_decay: float = Field(0.0, ge=0, le=10)
    warmup_examples: int = Field(10_000, ge=0)
    decay: Literal["linear", "cosine", "constant"] = "linear"
    decay_start: float = Field(0.1, ge=0.05, le=1, description="fraction of the budget at which decay begins")
    clip: float = Field(1.0, gt=0, description="gradient norm")
    ema_std: float = Field(0.05, gt=0, lt=0.289, description="relative width of the power-function EMA (EDM2)")
    guide_at: float | None = Field(
        None, gt=0, lt=1, description="fraction of the budget whose averaged weights are kept to guide sampling"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="auto: what the hardware has; a named format is also that of validations and previews",
    )
    deterministic: bool = Field(
        False, description="on CUDA: the same weights to the last bit, also after a resume, at the cost of speed"
    )
    compile: bool = Field(
        False,
        description="torch.compile: a minute at the start, then faster by half on a GPU; needs a C compiler there",
    )
    graphs: bool = Field(True, description="on one GPU: a step is recorded as a CUDA graph and replayed")
    log_every: int = Field(20, ge=1, description="optimizer steps between log lines")
    validate_every: float = Field(0.1, gt=0, le=1, description="fraction of the budget between validations")
    preview_every: float = Field(0.2, gt=0, le=1, description="fraction of the budget between previews")
    checkpoint_minutes: float = Field(2.0, gt=0, description="minutes between checkpoints: the most that a kill loses")
    keep: int = Field(2, ge=1, le=100, description="checkpoints kept")
    early_stop: int | None = Field(None, ge=1, description="validations without improvement before stopping")

    @model_validator(mode="after")
    def _one_budget(self) -> TrainConfig:
        if (self.examples is None) == (self.minutes is None):
            raise ValueError("set exactly one of examples and minutes")
        if self.micro_batch is not None and self.micro_batch > self.batch_size:
            raise ValueError(f"micro_batch {self.micro_batch} is larger than batch_size {self.batch_size}")
        return self

    def shared(self, share: float, rate: float) -> tuple[TrainConfig, TrainConfig]:
        """Settings of two trainings, one after the other, that have this budget together: `share` of it the second, at
        `rate` times the learning rates."""

        def part(fraction: float, **changes: Any) -> TrainConfig:
            examples = None if self.examples is None else max(1, round(fraction * self.examples))
            minutes = None if self.minutes is None else fraction * self.minutes
            return self.model_copy(update={"examples": examples, "minutes": minutes, **changes})

        slower = {name: rate * getattr(self, name) for name in ("learning_rate", "muon_learning_rate")}
        return part(1 - share), part(share, guide_at=None, **slower)


class GateConfig(Frozen):
    """When a challenger replaces the champion."""

    metric: str = Field(description="the metric of metrics.json that decides")
    better: Literal["lower", "higher"] = "lower"
    min_improvement: float = Field(0.0, ge=0, description="relative improvement that a challenger must show")
    require: dict[str, float] = Field(
        default_factory=dict, description="metric name -> the worst value that is still promoted"
    )
    confidence: float = Field(
        0.9, ge=0.5, lt=1, description="how sure it must be that the challenger is better: 0.9 promotes 10 % of equals"
    )
    first_floors: float = Field(  # 0 and not null for none: Vertex drops nulls on the way to a custom job
        5.0,
        ge=0,
        description="without a champion to beat: at most so many floors away, else provisional; 0: no limit",
    )
    incomparable: Literal["keep", "promote"] = Field(
        "keep",
        description="where the champion cannot be measured on the new data: it stays, or the challenger replaces it",
    )


class ResourcesConfig(Frozen):
    """Which row of resources.yaml each kind of step runs on in the cloud."""

    train: str = "t4"
    sample: str = "t4"
    cpu: str = "cpu"
    spot: bool = False
    replicas: int = Field(1, ge=1, le=64)
    timeout_hours: float = Field(24, gt=0, le=168, description="longest that a step with accelerators may take")

    def alone(self) -> ResourcesConfig:
        """The same for a step that is no training: one machine, on demand."""
        return self.model_copy(update={"spot": False, "replicas": 1})


def validate(section: type[S], values: object, where: str) -> S:
    """`values` as a `section`, or a UserError of one line that names `where` and the key.

    What YAML takes for a number, a truth or a day stays text where the field is text.
    """
    try:
        return section.model_validate(yamltext.resolve(section, values))
    except ValidationError as error:
        first, more = error.errors()[0], error.error_count() - 1
        raise UserError(f"{where}: {sentence(section, dict(first))}{f' (and {more} more)' if more else ''}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, with values as YAML reads them."""
    return dict(yamltext.plain(read_written(path)))


def read_written(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, with values as they were written until `validate` knows their fields.

    Raises:
        UserError: it cannot be read, or is not such a mapping.
    """
    try:
        if path.stat().st_size > yamltext.MAX_BYTES:
            raise UserError(f"{path}: larger than {yamltext.MAX_BYTES} bytes; a configuration is a page of text")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text: {error}") from None
    return _mapping(yamltext.parse(text, str(path)), str(path))


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """The mapping in a YAML text, with values as YAML reads them; `where` names it in errors."""
    return _mapping(parse_value(text, where), where)


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if yamltext.plain(value) is None:
        return {}
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected a mapping of names to values, found {short(value)}")
    return value


def parse_value(text: str, where: str) -> Any:
    """The value of a YAML text, as YAML reads it (core/yamltext.py)."""
    return yamltext.plain(yamltext.parse(text, where))


def parse_override(text: str) -> tuple[list[str], Any]:
    """`train.batch_size=64` as (["train", "batch_size"], 64); the value is read as YAML, and 1e-3 is a number.

    Raises:
        UserError: no `=`, an empty part of the key, or a value that is not YAML.
    """
    path, value = _override(text)
    value = yamltext.plain(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"--set {short(text)}: expected a finite number")
    return path, value


def _override(text: str) -> tuple[list[str], Any]:
    """An override with its value as it was written."""
    key, separator, raw = text.partition("=")
    path = key.strip().split(".")
    if not separator or not all(part.replace("_", "a").isalnum() for part in path):
        raise UserError(f"--set {short(text)}: expected section.key=value, for example train.batch_size=64")
    value = yamltext.parse(raw, f"--set {short(key)}")
    if isinstance(value, str) and not isinstance(value, yamltext.Written):
        try:
            value = yamltext.Written(value, float(value))  # YAML 1.1 reads 1e-3 as text; a person means a number
        except ValueError:
            pass
    return path, value


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, mapping by mapping; anything but a mapping replaces what was there."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def with_overrides(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """`values` with `section.key=value` texts laid over them.

    `minutes` and `examples` of a training, or of a trial, are two ways to say one budget: setting one clears the other.
    """
    result = dict(values)
    for text in overrides:
        path, value = _override(text)
        nested: Any = value
        for part in reversed(path):
            nested = {part: nested}
        if path[0] in ("train", "autoregressive", "search") and path[-1] in ("minutes", "examples"):
            other = "examples" if path[-1] == "minutes" else "minutes"
            nested[path[0]] = {other: None, **nested[path[0]]}
        result = merge(result, nested)
    return result


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def config_hash(value: object) -> str:
    """The first 16 hex digits of the SHA-256 of `value` as canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]
