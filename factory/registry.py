"""The model registry: a folder (local or `gs://`) of versioned models with a champion, each with where it came from.

    <root>/<model>/versions/00003/model/...          the files of the version (text: autoregressive/... beside them)
    <root>/<model>/versions/00003/manifest.json      written last: metrics, evaluation key, lineage, hash of every file
    <root>/<model>/champion.json                     {"version", "previous": [...], "reason", "created"}
    <root>/<model>/history/<time>-<nonce>.json       every promotion, rollback and refusal, with its reason

A version is there when its manifest is; the champion pointer is one small object that is replaced, never removed.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from core import storage
from core.config import validate
from core.errors import UserError
from core.names import inside, relative
from core.records import Label, Note, Record, facts, or_none, read

_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_MANIFEST = re.compile(r"(\d{5,9})/manifest\.json", re.ASCII)
_REGISTERED = re.compile(rf"({_NAME.pattern})/versions/\d+/manifest\.json", re.ASCII)
CHAMPION = "champion"
Number = Annotated[int, Field(ge=0, le=10**9)]


class Lineage(Record):
    """Where a version came from; what else is known of it stands beside these."""

    run: Label | None = None
    parents: dict[Label, Note] = Field(default_factory=dict)
    sample: dict[str, Any] | None = None


def _lineage(value: dict[str, Any]) -> dict[str, Any]:
    Lineage.model_validate(value)
    return value


class Pointer(Record):
    """champion.json: the version in service, and those before it."""

    version: Number
    previous: Annotated[list[Number], Field(max_length=100_000)] = Field(default_factory=list)


class Event(Record):
    """One entry of the history."""

    created: Label
    event: Label
    reason: Note = ""
    version: Number | None = None


class Version(Record):
    """One registered model. `metrics` is metrics.json as it was when the version was judged."""

    model: Label
    version: Number
    uri: Note
    created: Label
    metrics: dict[Label, dict[str, Any]]
    evaluation_key: Note
    weights_sha256: Label
    lineage: Annotated[dict[str, Any], AfterValidator(_lineage)]
    files: dict[Note, Label] = Field(repr=False)

    def folder(self, part: str = "model") -> str:
        """Where the files of `part` are; a UserError if the version has none."""
        if not any(name.startswith(f"{part}/") for name in self.files):
            raise UserError(f"{self.model}@{self.version}: holds no {part} model")
        return inside(self.uri, part)

    def verify(self) -> None:
        """Raises UserError if a file is missing or is not what was registered."""
        for name, expected in self.files.items():
            uri = inside(self.uri, name)
            if not storage.exists(uri):
                raise UserError(f"{self.model}@{self.version}: {name} is missing from {self.uri}")
            if storage.sha256(uri) != expected:
                raise UserError(f"{self.model}@{self.version}: {name} is damaged: its SHA-256 is another one")


class Registry:
    """The registry below `root`, a folder or a `gs://` prefix."""

    def __init__(self, root: str | Path) -> None:
        if not str(root):
            raise UserError("registry: none is set; write `registry: FOLDER or gs://BUCKET/registry`")
        self.root = str(root).rstrip("/")

    def models(self) -> list[str]:
        """Names of the models that have at least one version."""
        found = {match[1] for name in storage.list_files(self.root) if (match := _REGISTERED.fullmatch(name))}
        return sorted(found)

    def versions(self, model: str) -> list[Version]:
        """Versions of `model`, oldest first; empty if there is no such model. A manifest that does not parse costs a
        warning and that version alone."""
        return [found for number in self._numbers(model) if (found := or_none(partial(self.version, model, number)))]

    def unreadable(self, model: str, found: Sequence[Version]) -> list[str]:
        """Names of the versions of `model` that are not among those `found`: their manifests do not parse."""
        read_well = {version.version for version in found}
        return [f"{model}@{number}" for number in self._numbers(model) if number not in read_well]

    def version(self, model: str, number: int) -> Version:
        """One version.

        Raises:
            UserError: there is no such version.
        """
        uri = self._version_uri(model, number)
        if not storage.exists(storage.join(uri, "manifest.json")):
            have = ", ".join(map(str, self._numbers(model))) or "none"
            raise UserError(f"{model}@{number}: no such version in {self.root}; there are: {have}")
        found = read(Version, storage.join(uri, "manifest.json"))
        for name in found.files:
            if "/" not in relative(name, f"{uri}/manifest.json"):
                raise UserError(f"{uri}/manifest.json: files: found {name!r}; expected PART/FILE")
        return found.model_copy(update={"uri": uri, "model": model, "version": number})

    def champion(self, model: str) -> Version | None:
        """The model in service, or None while none was promoted.

        Raises:
            UserError: the pointer or what it points at does not parse: who is in service is never guessed.
        """
        pointer = self._pointer(model)
        return self.version(model, pointer.version) if pointer else None

    def listed(self, model: str) -> list[tuple[Version, bool]]:
        """Versions of `model`, oldest first, each with whether it is the champion; for who only looks. What does not
        parse costs a warning."""
        pointer = or_none(partial(self._pointer, model))
        return [(one, pointer is not None and pointer.version == one.version) for one in self.versions(model)]

    def register(
        self,
        model: str,
        parts: Mapping[str, Path],
        *,
        metrics: Mapping[str, Any],
        evaluation_key: str,
        weights_sha256: str,
        lineage: Mapping[str, Any],
    ) -> Version:
        """Copies the folders in `parts` (by name: model, autoregressive) into a new version.

        A retried step that registers the same weights with the same lineage again gets the version it made before.
        """
        for old in reversed(self.versions(model)):
            if (old.weights_sha256, old.lineage) == (weights_sha256, dict(lineage)):
                return old
        number = self._reserve(model)
        uri = self._version_uri(model, number)
        files: dict[str, str] = {}
        for part, folder in parts.items():
            storage.copy_tree(folder, inside(uri, part))
            for name in storage.list_files(folder):
                files[f"{part}/{name}"] = storage.sha256(inside(folder, name))
        made = dict(
            model=model,
            version=number,
            uri=uri,
            created=_now(),
            metrics=dict(metrics),
            evaluation_key=evaluation_key,
            weights_sha256=weights_sha256,
            lineage=dict(lineage),
            files=files,
        )
        version = validate(Version, made, f"{model}@{number}")
        storage.write_json(storage.join(uri, "manifest.json"), version.model_dump())
        return version

    def promote(self, model: str, number: int, reason: str) -> Version:
        """Makes a version the champion; the one before it is remembered for `rollback`."""
        version = self.version(model, number)
        version.verify()
        pointer = self._pointer(model)
        before = [pointer.version, *pointer.previous] if pointer else []
        self._point(model, number, before[1:] if before[:1] == [number] else before, reason, "promote")
        return version

    def rollback(self, model: str, reason: str) -> Version:
        """Makes the champion before the present one champion again.

        Raises:
            UserError: there is none.
        """
        pointer = self._pointer(model)
        if not pointer or not pointer.previous:
            raise UserError(f"{model}: there is no earlier champion to roll back to")
        number, *rest = pointer.previous
        version = self.version(model, number)
        version.verify()
        self._point(model, number, rest, reason, "rollback")
        return version

    def record(self, model: str, event: str, reason: str, **facts: Any) -> None:
        """Adds a line to the model's history."""
        when = _now()
        name = f"{when.replace(':', '').replace('-', '')}-{uuid.uuid4().hex[:8]}.json"
        entry = {"created": when, "event": event, "reason": reason, **facts}
        storage.write_json(inside(self._model(model), f"history/{name}"), entry)

    def history(self, model: str) -> list[dict[str, Any]]:
        """Promotions, rollbacks and refusals, oldest first. One that does not parse costs a warning."""
        folder = storage.join(self._model(model), "history")
        read_well = (or_none(partial(read, Event, inside(folder, name))) for name in storage.list_files(folder))
        return [facts(event) for event in read_well if event is not None]

    def resolve(self, name: str) -> Version:
        """The version that `model`, `model@champion` or `model@3` names.

        Raises:
            UserError: there is none, or it cannot be read as one of these.
        """
        model, _, wanted = name.partition("@")
        if wanted in ("", CHAMPION):
            version = self.champion(model)
            if version is None:
                known = ", ".join(self.models()) or "none"
                raise UserError(f"{name}: no champion in {self.root}; registered models: {known}")
            return version
        if not re.fullmatch("[0-9]{1,9}", wanted):
            raise UserError(f"{name}: expected model, model@champion or model@NUMBER")
        return self.version(model, int(wanted))

    def _model(self, model: str) -> str:
        if not _NAME.fullmatch(model):
            raise UserError(f"model {model!r}: expected lower case letters, digits and dashes")
        return inside(self.root, model)

    def _numbers(self, model: str) -> list[int]:
        names = storage.list_files(storage.join(self._model(model), "versions"))
        return sorted(int(match[1]) for name in names if (match := _MANIFEST.fullmatch(name)))

    def _version_uri(self, model: str, number: int) -> str:
        return inside(self._model(model), f"versions/{number:05d}")

    def _reserve(self, model: str) -> int:
        folder = storage.join(self._model(model), "versions")
        taken = [int(name.split("/")[0]) for name in storage.list_files(folder) if name.split("/")[0].isdecimal()]
        number = max(taken, default=0) + 1
        mine = f"{_now()} {uuid.uuid4().hex}".encode()
        while not storage.create(storage.join(self._version_uri(model, number), "reserved"), mine):
            number += 1  # another run registers at the same moment
        return number

    def _pointer(self, model: str) -> Pointer | None:
        path = storage.join(self._model(model), "champion.json")
        return read(Pointer, path) if storage.exists(path) else None

    def _point(self, model: str, number: int, previous: list[int], reason: str, event: str) -> None:
        pointer = {"version": number, "previous": previous, "reason": reason, "created": _now()}
        storage.write_json(storage.join(self._model(model), "champion.json"), pointer)
        self.record(model, event, reason, version=number, before=previous[0] if previous else None)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
