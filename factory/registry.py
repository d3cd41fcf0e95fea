"""The model registry: a folder (local or `gs://`) of versioned models with a champion, each with where it came from.

    <root>/<model>/versions/00003/model/...          the files of the version (text: autoregressive/... too)
    <root>/<model>/versions/00003/manifest.json      written last: metrics, lineage, the hash of every file and its own
    <root>/<model>/champion.json                     {"version", "previous": [...], "history": {name: its line}, ...}
    <root>/<model>/history/<time>-<nonce>.json       every promotion, rollback and refusal, with its reason

A version is there when its manifest is; the champion pointer is one small object that is replaced, never removed. It
carries its own line of the history, so that a line whose writer was killed is read from it and written later. Of two
that replace it at the same moment none is lost: it is changed under a lock, in a bucket by its generation.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from core import jsontext, storage
from core.config import validate
from core.errors import UserError
from core.evaluation import Decision
from core.names import inside
from core.records import facts, or_none, parsed, read
from core.secrets import redact
from core.similar import did_you_mean
from core.storage import integrity
from core.storage.exchange import exchange
from core.storage.faults import StorageError, UnconfirmedError
from factory.versions import MANIFEST, Event, Pointer, Version, is_version, version_in

_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_MANIFEST = re.compile(r"(\d{5,9})/manifest\.json", re.ASCII)
_REGISTERED = re.compile(rf"({_NAME.pattern})/versions/\d+/manifest\.json", re.ASCII)
_LINE = re.compile(r"[0-9T.+]{1,40}-[0-9a-f]{8}\.json")
CHAMPION = "champion"
Step = Callable[[Pointer | None], tuple[int, list[int]]]  # pointer -> champion, those before it


class Registry:
    """The registry below `root`, a folder or a `gs://` prefix."""

    def __init__(self, root: str | Path) -> None:
        if not str(root):
            raise UserError("registry: none is set; write `registry: FOLDER or gs://BUCKET/registry`")
        self.root = str(root).rstrip("/")

    def models(self) -> list[str]:
        """Names of the models that have at least one version."""
        names = {match[1] for name in storage.list_files(self.root) if (match := _REGISTERED.fullmatch(name))}
        return sorted(names)

    def versions(self, model: str) -> list[Version]:
        """Versions of `model`, oldest first; empty if there is no such model. A manifest that does not parse costs a
        warning and that version alone."""
        return [entry for number in self._numbers(model) if (entry := or_none(partial(self.version, model, number)))]

    def unreadable(self, model: str, readable: Sequence[Version]) -> list[str]:
        """Names of the versions of `model` that are not among those `found`: their manifests do not parse."""
        read_well = {version.version for version in readable}
        return [f"{model}@{number}" for number in self._numbers(model) if number not in read_well]

    def version(self, model: str, number: int) -> Version:
        """One version.

        Raises:
            UserError: there is no such version.
        """
        uri = self._version_uri(model, number)
        if not is_version(uri):
            have = ", ".join(map(str, self._numbers(model))) or "none"
            raise UserError(f"{model}@{number}: no such version in {self.root}; there are: {have}")
        return version_in(uri).model_copy(update={"model": model, "version": number})

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
        provisional: bool = False,
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
            provisional=provisional,
        )
        version = validate(Version, made, f"{model}@{number}")
        integrity.write_json(storage.join(uri, MANIFEST), version.model_dump())
        return version

    def promote(self, model: str, number: int, reason: str) -> Version:
        """Makes a version the champion; the one before it is remembered for `rollback`."""
        version = self.version(model, number)
        version.verify()

        def step(pointer: Pointer | None) -> tuple[int, list[int]]:
            before = [pointer.version, *pointer.previous] if pointer else []
            return number, before[1:] if before[:1] == [number] else before

        self._point(model, step, reason, Decision.PROMOTE)
        return version

    def rollback(self, model: str, reason: str) -> Version:
        """Makes the champion before the present one champion again.

        Raises:
            UserError: there is none.
        """

        def step(pointer: Pointer | None) -> tuple[int, list[int]]:
            if model not in (known := self.models()):
                raise UserError(
                    f"{model}: no such model in {self.root}; registered models: {', '.join(known) or 'none'}"
                )
            if not pointer or not pointer.previous:
                raise UserError(f"{model}: there is no earlier champion to roll back to")
            number, *rest = pointer.previous
            self.version(model, number).verify()
            return number, rest

        step(self._pointer(model))  # refused here, it leaves no lock behind
        return self.version(model, self._point(model, step, reason, "rollback"))

    def record(self, model: str, event: str, reason: str, **facts: Any) -> None:
        """Adds a line to the model's history."""
        name, entry = _line(event, reason, **facts)
        storage.write_json(self._line_uri(model, name), entry)

    def history(self, model: str) -> list[dict[str, Any]]:
        """Promotions, rollbacks and refusals, oldest first. One that does not parse costs a warning."""
        folder = storage.join(self._model(model), "history")
        lines = _line_of(or_none(partial(self._pointer, model)))
        for name in storage.list_files(folder):
            event = or_none(partial(read, Event, inside(folder, name)))
            if event is not None:
                lines[name] = facts(event)
        return [lines[name] for name in sorted(lines)]

    def resolve(self, name: str) -> Version:
        """The version that `model`, `model@champion` or `model@3` names.

        Raises:
            UserError: there is none, or it cannot be read as one of these.
        """
        model, _, wanted = name.partition("@")
        if wanted in ("", CHAMPION):
            version = self.champion(model)
            if version is None:
                known = did_you_mean(model, self.models()) + f"registered models: {', '.join(self.models()) or 'none'}"
                newest = self.versions(model)[-1:] if model in self.models() else []
                hint = (
                    f"; {newest[0].name} is {newest[0].state(champion=False)}: name it, or promote it" if newest else ""
                )
                raise UserError(f"{name}: no champion in {self.root}; {known}{hint}")
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

    def _line_uri(self, model: str, name: str) -> str:
        return inside(self._model(model), f"history/{name}")

    def _pointer(self, model: str) -> Pointer | None:
        path = storage.join(self._model(model), "champion.json")
        return read(Pointer, path) if storage.exists(path) else None

    def _point(self, model: str, step: Step, reason: str, event: str) -> int:
        """Lets the pointer be what `step` makes of it, and adds a line to the history; the new champion.

        Raises:
            UserError: the pointer could not be replaced, or what is said of it else: it is, and the line is missing.
        """
        path = storage.join(self._model(model), "champion.json")
        made: dict[str, Any] = {}

        def change(content: bytes | None) -> bytes:
            now = parsed(Pointer, jsontext.parse(content, path), path) if content is not None else None
            with suppress(UnconfirmedError):
                self._write_line(model, _line_of(now))  # of one who was killed before
            number, previous = step(now)
            before = previous[0] if previous else None
            name, line = _line(event, reason, version=number, before=before)
            made.update(version=number, line={name: line})
            pointer = {"version": number, "previous": previous, "reason": line["reason"], "created": line["created"]}
            return storage.to_json(integrity.sealed({**pointer, "history": made["line"]}))

        unconfirmed = None
        try:
            exchange(path, change)
        except UnconfirmedError as error:
            unconfirmed = error
        done = f"{model}: version {made['version']} is champion now"
        try:
            self._write_line(model, made["line"])
        except UnconfirmedError as error:
            unconfirmed = unconfirmed or error
        except StorageError as error:
            raise UserError(f"{done}, but its line in the history is not: {error}; the next change adds it") from None
        if unconfirmed is not None:
            raise UserError(f"{done}, but {unconfirmed}")
        return int(made["version"])

    def _write_line(self, model: str, lines: Mapping[str, Any]) -> None:
        for name, line in lines.items():
            if not storage.exists(self._line_uri(model, name)):
                storage.write_json(self._line_uri(model, name), line)


def _line(event: str, reason: str, **facts: Any) -> tuple[str, dict[str, Any]]:
    """The name and content of a line of the history."""
    when = _now()
    name = f"{when.replace(':', '').replace('-', '')}-{uuid.uuid4().hex[:8]}.json"
    return name, {"created": when, "event": event, "reason": redact(reason), **facts}


def _line_of(pointer: Pointer | None) -> dict[str, Any]:
    """The line of the history that a pointer carries, by its name; empty if there is none."""
    lines = pointer.history if pointer else {}
    return {name: facts(event) for name, event in lines.items() if _LINE.fullmatch(name)}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
