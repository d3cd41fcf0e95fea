"""The model registry: a folder (local or `gs://`) of versioned models with a champion, each with where it came from.

    <root>/<model>/versions/00003/model/...          the files of the version (text: autoregressive/... beside them)
    <root>/<model>/versions/00003/manifest.json      written last: metrics, evaluation key, lineage, hash of every file
    <root>/<model>/champion.json                     {"version", "previous": [...], "reason", "created"}
    <root>/<model>/history/<time>-<nonce>.json       every promotion, rollback and refusal, with its reason

A version is there when its manifest is; the champion pointer is one small object that is replaced, never removed.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core import storage
from core.errors import UserError

_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_MANIFEST = re.compile(r"(\d{5,})/manifest\.json")
CHAMPION = "champion"


@dataclass(frozen=True)
class Version:
    """One registered model. `metrics` is metrics.json as it was when the version was judged."""

    model: str
    version: int
    uri: str
    created: str
    metrics: dict[str, Any]
    evaluation_key: str
    weights_sha256: str
    lineage: dict[str, Any]
    files: dict[str, str] = field(repr=False)

    def folder(self, part: str = "model") -> str:
        """Where the files of `part` are; a UserError if the version has none."""
        if not any(name.startswith(f"{part}/") for name in self.files):
            raise UserError(f"{self.model}@{self.version}: holds no {part} model")
        return storage.join(self.uri, part)

    def verify(self) -> None:
        """Raises UserError if a file is missing or is not what was registered."""
        for name, expected in self.files.items():
            if not storage.exists(storage.join(self.uri, name)):
                raise UserError(f"{self.model}@{self.version}: {name} is missing from {self.uri}")
            if storage.sha256(storage.join(self.uri, name)) != expected:
                raise UserError(f"{self.model}@{self.version}: {name} is damaged: its SHA-256 is another one")


class Registry:
    """The registry below `root`, a folder or a `gs://` prefix."""

    def __init__(self, root: str | Path) -> None:
        if not str(root):
            raise UserError("registry: none is set; write `registry: FOLDER or gs://BUCKET/registry`")
        self.root = str(root).rstrip("/")

    def models(self) -> list[str]:
        """Names of the models that have at least one version."""
        found = {
            name.split("/")[0]
            for name in storage.list_files(self.root)
            if re.search(r"/versions/\d+/manifest\.json$", name)
        }
        return sorted(found)

    def versions(self, model: str) -> list[Version]:
        """Versions of `model`, oldest first; empty if there is no such model."""
        names = storage.list_files(storage.join(self._model(model), "versions"))
        numbers = sorted(int(match[1]) for name in names if (match := _MANIFEST.fullmatch(name)))
        return [self.version(model, number) for number in numbers]

    def version(self, model: str, number: int) -> Version:
        """One version.

        Raises:
            UserError: there is no such version.
        """
        uri = self._version_uri(model, number)
        if not storage.exists(storage.join(uri, "manifest.json")):
            known = [match[1] for name in storage.list_files(storage.join(self._model(model), "versions"))
                     if (match := _MANIFEST.fullmatch(name))]  # fmt: skip
            have = ", ".join(str(int(value)) for value in sorted(known)) or "none"
            raise UserError(f"{model}@{number}: no such version in {self.root}; there are: {have}")
        manifest = storage.read_json(storage.join(uri, "manifest.json"))
        try:
            return Version(**{**manifest, "uri": uri})
        except TypeError as error:
            raise UserError(f"{uri}/manifest.json: not a version's manifest: {error}") from None

    def champion(self, model: str) -> Version | None:
        """The model in service, or None while none was promoted."""
        pointer = self._pointer(model)
        return self.version(model, int(pointer["version"])) if pointer else None

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
            storage.copy_tree(folder, storage.join(uri, part))
            for name in storage.list_files(folder):
                files[f"{part}/{name}"] = storage.sha256(storage.join(str(folder), name))
        version = Version(
            model, number, uri, _now(), dict(metrics), evaluation_key, weights_sha256, dict(lineage), files
        )
        storage.write_json(storage.join(uri, "manifest.json"), asdict(version))
        return version

    def promote(self, model: str, number: int, reason: str) -> Version:
        """Makes a version the champion; the one before it is remembered for `rollback`."""
        version = self.version(model, number)
        version.verify()
        pointer = self._pointer(model) or {"previous": []}
        before = [pointer["version"]] if "version" in pointer and pointer["version"] != number else []
        self._point(model, number, [*before, *pointer["previous"]], reason, "promote")
        return version

    def rollback(self, model: str, reason: str) -> Version:
        """Makes the champion before the present one champion again.

        Raises:
            UserError: there is none.
        """
        pointer = self._pointer(model)
        if not pointer or not pointer["previous"]:
            raise UserError(f"{model}: there is no earlier champion to roll back to")
        number, *rest = pointer["previous"]
        version = self.version(model, int(number))
        version.verify()
        self._point(model, int(number), rest, reason, "rollback")
        return version

    def record(self, model: str, event: str, reason: str, **facts: Any) -> None:
        """Adds a line to the model's history."""
        when = _now()
        name = f"{when.replace(':', '').replace('-', '')}-{uuid.uuid4().hex[:8]}.json"
        entry = {"created": when, "event": event, "reason": reason, **facts}
        storage.write_json(storage.join(self._model(model), "history", name), entry)

    def history(self, model: str) -> list[dict[str, Any]]:
        """Promotions, rollbacks and refusals, oldest first."""
        folder = storage.join(self._model(model), "history")
        return [storage.read_json(storage.join(folder, name)) for name in storage.list_files(folder)]

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
        return storage.join(self.root, model)

    def _version_uri(self, model: str, number: int) -> str:
        return storage.join(self._model(model), "versions", f"{number:05d}")

    def _reserve(self, model: str) -> int:
        folder = storage.join(self._model(model), "versions")
        taken = [int(name.split("/")[0]) for name in storage.list_files(folder) if name.split("/")[0].isdecimal()]
        number = max(taken, default=0) + 1
        mine = f"{_now()} {uuid.uuid4().hex}".encode()
        while not storage.create(storage.join(self._version_uri(model, number), "reserved"), mine):
            number += 1  # another run registers at the same moment
        return number

    def _pointer(self, model: str) -> dict[str, Any] | None:
        path = storage.join(self._model(model), "champion.json")
        if not storage.exists(path):
            return None
        pointer = storage.read_json(path)
        if not (isinstance(pointer, dict) and isinstance(pointer.get("version"), int)):
            raise UserError(f"{path}: expected {{'version': NUMBER, ...}}, found {json.dumps(pointer)[:60]}")
        return {"previous": [], **pointer}

    def _point(self, model: str, number: int, previous: list[int], reason: str, event: str) -> None:
        pointer = {"version": number, "previous": previous, "reason": reason, "created": _now()}
        storage.write_json(storage.join(self._model(model), "champion.json"), pointer)
        self.record(model, event, reason, version=number, before=previous[0] if previous else None)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
