"""What was written earlier, perhaps by another version or another hand, read back as what it should be.

A record that does not parse is skipped with one warning line; the others are still read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from core import jsontext, storage
from core.config import validate
from core.errors import UserError
from core.storage import integrity

log = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R", bound="Record")

Label = Annotated[str, Field(max_length=1000)]
"""A name, an id, a time, a hash."""
Note = Annotated[str, Field(max_length=100_000)]
"""A reason, an error, a description, an address, JSON text."""
Seconds = Annotated[float, Field(ge=0, le=1e12)]
Real = Annotated[int, Field(ge=-(2**63), le=2**63)] | float


class Record(BaseModel):
    """Base of all records: immutable, no NaN; keys that a later version wrote are kept."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)
    SEALED: ClassVar[bool] = False  # whether it states its own hash (core/storage/integrity.py)


class Search(Record):
    """What of search.json a run's record keeps."""

    metric: Label
    value: Real | None
    best: int = Field(ge=0, le=2**31)
    settings: dict[str, Any]
    train: dict[str, Any]


class ModelFacts(Record):
    """What of model.json is read before the modality's own code reads it."""

    SEALED: ClassVar[bool] = True
    modality: Literal["images", "text"] = "images"
    weights_sha256: Label = ""


class Parent(Record):
    """One entry of `parents` in an artifact's metadata."""

    uri: Note
    hash: Label = ""


class _Parents(Record):
    parents: Annotated[dict[Label, Parent], Field(max_length=1000)]


def read(kind: type[R], uri: str) -> R:
    """The record in a JSON file.

    Raises:
        UserError: it cannot be read, or is not such a record; the line names file and key.
    """
    return parsed(kind, storage.read_json(uri), uri)


def parsed(kind: type[R], value: Any, uri: str) -> R:
    """The record that the JSON value `value` of `uri` is.

    Raises:
        UserError: it is not such a record, or not what was written.
    """
    if not (kind.SEALED and isinstance(value, dict)):
        return validate(kind, value, uri)
    record = validate(kind, {key: item for key, item in value.items() if key != integrity.OWN_HASH}, uri)
    integrity.unsealed(value, uri)  # after it: what is no such record at all is one line, not two
    return record


def facts(record: Record) -> dict[str, Any]:
    """A record as it was written: its keys, and what a later version added, without defaults."""
    return record.model_dump(exclude_unset=True)


def parse_parents(text: object, where: str) -> dict[str, Parent]:
    """The parents in an artifact's metadata, which keeps them as JSON text; `where` names it in errors.

    Raises:
        UserError: it is something else.
    """
    parents = jsontext.parse(text, where) if isinstance(text, str) and text else text or {}
    return validate(_Parents, {"parents": parents}, where).parents


def warn(error: UserError) -> None:
    """The warning line of a record that is left out."""
    log.warning("%s; left out", error)


def or_none(make: Callable[[], T]) -> T | None:
    """What `make` reads; None, and a warning line, where it raises a UserError."""
    try:
        return make()
    except UserError as error:
        warn(error)
        return None
