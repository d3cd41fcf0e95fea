"""What a metric is: its definition, written once, next to the code that computes it, and one measurement of it.

Each modality has a table of definitions (`core/images/glossary.py`, `core/text/glossary.py`). A metric is written
through its definition, so whoever reads it knows its label, explanation, unit and direction.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from core.config import canonical_json
from core.records import Label, Note, Record

MOST_PARTS = 256
SHARE = "share"  # the unit of a number between 0 and 1 that people read in per cent


def finite(value: object) -> float | None:
    """`value` if it is a finite number, else None; booleans and texts are no numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer of hundreds of digits
        return None


Number = Annotated[float | None, BeforeValidator(finite)]
"""A finite number, or None for anything else: what could not be measured has no value."""


class Metric(Record):
    """One measurement: an entry of metrics.json."""

    value: Number = None
    sd: Number = None  # over groups of samples
    se: Number = None  # standard error of the value: its own, not of a single group
    parts: Annotated[list[float], Field(max_length=MOST_PARTS)] | None = None  # of the same held-out data, for pairs
    floor: Number = None  # of real data against real data, at the same count
    n: int | None = None  # images, characters or tokens that were measured
    judge: Label | None = None  # SHA-256 of the judge, if it has a part in this
    better: Literal["lower", "higher"] | None = None
    doubt: Note | None = None  # why the value says little, if it does
    text: Note | None = None  # in place of the definition's explanation, where this measurement is special
    autoregressive: Number = None  # the same of the autoregressive model alone

    @model_validator(mode="before")
    @classmethod
    def _an_object(cls, entry: Any) -> Any:
        return entry if isinstance(entry, Mapping) else {}


Metrics = Mapping[str, Metric]


@dataclass(frozen=True)
class Definition:
    """A metric: its name in metrics.json, and how people are told about it.

    `better` is "floor" where the floor is the aim and neither direction is good. `variants` is the regular expression
    of what may follow the name after an underscore, for example a mode of sampling; empty for nothing. Where it is a
    number, `counts` says of what.
    """

    name: str
    label: str
    explanation: str
    better: Literal["lower", "higher", "floor"] = "lower"
    unit: str = ""
    variants: str = ""
    counts: str = ""

    def measured(
        self,
        value: float | None,
        *,
        n: int,
        floor: float | None = None,
        judge: str | None = None,
        sd: float | None = None,
        se: float | None = None,
        doubt: str = "",
    ) -> Metric:
        """A measurement of this metric; a `doubt` says why it is to be read with care."""
        facts: dict[str, Any] = {"value": value, "floor": floor, "n": n, "judge": judge}
        facts |= {name: value for name, value in (("sd", sd), ("se", se)) if value is not None}
        if self.better != "floor":
            facts["better"] = self.better
        if doubt:
            facts |= {"doubt": doubt, "text": f"{self.explanation} In doubt: {doubt}."}
        return Metric.model_validate(facts)


def table(definitions: Iterable[Definition]) -> dict[str, Definition]:
    """Definitions by name, in the order in which people are shown them."""
    return {one.name: one for one in definitions}


def find(glossary: Mapping[str, Definition], name: str) -> tuple[Definition, str] | None:
    """The definition of the metric `name`, and which of its variants it is ("" for none); None if there is none."""
    if name in glossary:
        return glossary[name], ""
    base, _, variant = name.rpartition("_")
    known = glossary.get(base)
    return (known, variant) if known and known.variants and re.fullmatch(known.variants, variant) else None


def dump(metrics: Metrics) -> dict[str, dict[str, Any]]:
    """Metrics as the content of metrics.json: the facts that were set."""
    return {name: metric.model_dump(mode="json", exclude_unset=True) for name, metric in metrics.items()}


def key_of(*parts: Any) -> str:
    """The evaluation key of what decides the numbers of an evaluation."""
    plain = [part.model_dump(mode="json") if isinstance(part, BaseModel) else part for part in parts]
    return hashlib.sha256(canonical_json(plain).encode()).hexdigest()
