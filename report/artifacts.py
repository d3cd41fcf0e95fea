"""What a run left behind, read with patience: a missing or broken file becomes a note, never an exception."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict, TypeVar, Unpack, cast

import numpy as np
from pydantic import ValidationError

from core import jsontext
from core.errors import UserError
from core.evaluation import EVALUATION, METRICS, SAMPLING, Evaluation, JudgeFacts, Sampling, Verdict
from core.metrics import Metric
from core.names import inside
from core.records import Record

Json = dict[str, Any]
Known = TypeVar("Known", bound=Record)


class Folders(TypedDict, total=False):
    """The artifact folders that a report reads; any of them may be missing."""

    dataset: Path | None
    judge: Path | None
    model: Path | None
    autoregressive: Path | None
    samples: Path | None
    evaluation: Path | None
    search: Path | None


FOLDERS = tuple(Folders.__annotations__)


@dataclass(frozen=True)
class Folder:
    """One artifact directory, or its absence (`path` None). Unreadable files are listed in `faults`."""

    path: Path | None
    faults: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return self.path is not None and self.path.is_dir()

    def file(self, name: str) -> Path | None:
        """Path of `name` inside the folder if it exists."""
        if self.path is None:
            return None
        try:
            path = inside(self.path, name)
        except UserError as error:  # a link that leads out of a folder which somebody else made
            self.faults.append(str(error))
            return None
        return path if path.is_file() else None

    def json(self, name: str) -> Json:
        """The JSON object in `name`; empty when missing, broken or not an object."""
        path = self.file(name)
        if path is None:
            return {}
        try:
            content = jsontext.parse(path.read_bytes(), name)
        except (OSError, UserError) as error:
            why = "not valid JSON" if isinstance(error, UserError) else type(error).__name__
            self.faults.append(f"{path.name} could not be read ({why}).")
            return {}
        if not isinstance(content, dict):
            self.faults.append(f"{path.name} does not hold a JSON object.")
            return {}
        return content

    def typed(self, name: str, kind: type[Known]) -> Known:
        """The JSON object in `name` as a `kind`; what doesn't fit is left out, with a note."""
        content = self.json(name)
        try:
            return kind.model_validate(content)
        except ValidationError as error:
            odd = {str(one["loc"][0]) for one in error.errors() if one["loc"]}
            self.faults.append(f"{name}: {', '.join(sorted(odd))} could not be read.")
        try:
            return kind.model_validate({key: value for key, value in content.items() if key not in odd})
        except ValidationError:
            return kind()

    def lines(self, name: str) -> list[Json]:
        """The JSON objects of a .jsonl file; broken lines (a run killed while writing) are skipped and counted."""
        path = self.file(name)
        if path is None:
            return []
        broken: list[UserError] = []
        try:
            rows = jsontext.parse_lines(path.read_bytes(), name, odd=broken.append)
        except OSError as error:
            self.faults.append(f"{path.name} could not be read ({type(error).__name__}).")
            return []
        if broken:
            self.faults.append(f"{path.name}: {len(broken)} unreadable line{'s' if len(broken) > 1 else ''} skipped.")
        return [row for row in rows if isinstance(row, dict)]

    def arrays(self, name: str) -> dict[str, np.ndarray[Any, Any]]:
        """The arrays of an .npz file (never unpickled); empty when missing or broken."""
        path = self.file(name)
        if path is None:
            return {}
        try:
            with np.load(path, allow_pickle=False) as content:
                return {key: content[key] for key in content.files}
        except Exception as error:  # zipfile, zlib and numpy each raise their own kinds
            self.faults.append(f"{path.name} could not be read ({type(error).__name__}).")
            return {}

    def files(self, pattern: str) -> list[Path]:
        """Files matching `pattern`, sorted by the number in their name, then by name."""
        if self.path is None:
            return []

        paths = (path for path in self.path.glob(pattern) if path.is_file())
        return sorted(paths, key=lambda path: (number_in(path) or 0, path.name))


def number_in(path: Path) -> int | None:
    """All digits of a file's name, without its suffix, as one number; None if there are none."""
    digits = "".join(character for character in path.stem if character.isdecimal())
    return int(digits) if digits else None


@dataclass(frozen=True)
class Artifacts:
    """Every artifact of one run, as the report's sections read them."""

    dataset: Folder
    judge: Folder
    model: Folder
    autoregressive: Folder
    samples: Folder
    evaluation: Folder
    search: Folder
    run: Json
    faults: list[str]

    @property
    def data_facts(self) -> Json:
        return self.dataset.json("dataset.json")

    @cached_property
    def judge_facts(self) -> JudgeFacts:
        return self.judge.typed("judge.json", JudgeFacts)

    @property
    def model_facts(self) -> Json:
        return self.model.json("model.json")

    @property
    def model_notes(self) -> Json:
        """The plain values of model.json."""
        return {key: value for key, value in self.model_facts.items() if isinstance(value, (str, int, float))}

    @cached_property
    def sampling(self) -> Sampling:
        return self.samples.typed(SAMPLING, Sampling)

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """Metrics by name; one that can't be read is left out, with a note."""
        metrics = {}
        for name, entry in self.evaluation.json(METRICS).items():
            try:
                metrics[name] = Metric.model_validate(entry)
            except ValidationError:
                self.faults.append(f"{METRICS}: {name} could not be read.")
        return metrics

    @cached_property
    def measured(self) -> Evaluation:
        """evaluation.json: everything but the metrics."""
        return self.evaluation.typed(EVALUATION, Evaluation)

    @cached_property
    def verdict(self) -> Verdict | None:
        """The gate's, from run.json; None if it has not decided."""
        if not self.run.get("gate"):
            return None
        try:
            return Verdict.model_validate(self.run["gate"])
        except ValidationError:
            self.faults.append("run.json: gate could not be read.")
            return None

    @property
    def modality(self) -> str:
        """`images` or `text`, from whichever artifact says so."""
        for facts in (self.model_facts, self.data_facts, self.run.get("config") or {}):
            if isinstance(facts, Mapping) and facts.get("modality") in ("images", "text"):
                return str(facts["modality"])
        return "text" if self.samples.file("samples.jsonl") else "images"


def read(run: Json | None = None, **folders: Unpack[Folders]) -> Artifacts:
    """Open the artifact directories of a run, by the names of FOLDERS; all of them share one list of faults."""
    faults: list[str] = []
    given = cast(dict[str, Path | None], folders)
    opened = {name: Folder(None if (path := given.get(name)) is None else Path(path), faults) for name in FOLDERS}
    return Artifacts(run=dict(run or {}), faults=faults, **opened)


def number(value: object) -> float | None:
    """`value` as a finite float, or None; booleans are not numbers."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        return None
    try:
        result = float(value)
    except OverflowError:  # an integer of hundreds of digits
        return None
    return result if np.isfinite(result) else None


def numbers(values: object) -> list[float]:
    """The finite numbers of a list; anything else is dropped."""
    if not isinstance(values, (list, tuple)):
        return []
    return [value for value in map(number, values) if value is not None]


def short_hash(value: object, length: int = 10) -> str:
    """The first characters of a digest, without its algorithm prefix."""
    return str(value).removeprefix("sha256:")[:length] if value else ""
