"""Checkpoints that survive being killed at any byte: safetensors and JSON, the manifest last, verified on load.

    <root>/manifest-00000007.json      {"index", "files": {name: {"path", "sha256", "bytes"}}, "meta": {...}, "sha256"}
    <root>/data/7-<nonce>-<name>       the files it names

Data goes up under names that were never used before; then the manifest is *created*, which fails if another writer
has taken that index. So a reader sees a whole checkpoint or none, and of two writers one wins and the other is told.
A manifest states its own hash too: a flipped bit in a counter would otherwise be believed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from core import storage
from core.errors import UserError
from core.names import inside, single
from core.storage.faults import StorageError
from core.storage.integrity import digest

log = logging.getLogger(__name__)
_MANIFEST = re.compile(r"manifest-(\d{8})\.json")


class CheckpointRaceError(UserError):
    """Another process wrote this checkpoint first: two trainings share one folder."""


@dataclass(frozen=True)
class Checkpoint:
    """One whole, verified checkpoint: tensors by group, other files as bytes, and JSON."""

    index: int
    tensors: dict[str, dict[str, Tensor]]
    files: dict[str, bytes]
    meta: dict[str, Any]


class CheckpointStore:
    """The checkpoints of one training, in a local folder or under a `gs://` prefix.

    Args:
        root: where they are.
        keep: how many of the newest are kept.
    """

    def __init__(self, root: str, keep: int = 2) -> None:
        self.root, self._keep = str(root).rstrip("/"), keep
        self.guard: Callable[[], None] = lambda: None
        """Raises unless this process still holds the folder; called before anything is written."""
        self._damaged: set[int] = set()

    def indices(self) -> list[int]:
        """Indices of the manifests there are, oldest first."""
        matches = (_MANIFEST.fullmatch(name) for name in storage.list_files(self.root))
        return sorted(int(match[1]) for match in matches if match)

    def save(
        self, tensors: Mapping[str, Mapping[str, Tensor]], files: Mapping[str, bytes], meta: Mapping[str, Any]
    ) -> int:
        """Writes a checkpoint after the newest there is and returns its index.

        Raises:
            CheckpointRaceError: somebody else has just written the same index.
            LockedError: the folder is another process's by now.
            StorageError: the folder cannot be written; earlier checkpoints are as they were.
        """
        self.guard()
        before = self.indices()
        index = before[-1] + 1 if before else 0
        contents = {f"{group}.safetensors": serialize(group_tensors) for group, group_tensors in tensors.items()}
        contents.update(files)
        entries = self._write_data(index, contents)
        manifest = {"index": index, "files": entries, "meta": dict(meta)}
        signed = json.dumps({**manifest, "sha256": digest(manifest)}, allow_nan=False)
        if not storage.create(self._manifest_uri(index), signed.encode()):
            self._forget(entries)
            raise CheckpointRaceError(
                f"{self.root}: checkpoint {index} was written by another process meanwhile;"
                " two trainings share the folder"
            )
        try:
            self._prune()
        except StorageError as error:  # what is superfluous may stay; the next save tries again
            log.warning("old checkpoints were not removed: %s", error)
        return index

    def load(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; what is damaged is named in the log and passed over.

        Raises:
            StorageError: the storage does not answer, which says nothing about what is in it.
        """
        for index in reversed(self.indices()):
            try:
                return self.at(index)
            except StorageError:
                raise
            except UserError as error:
                self._damaged.add(index)
                log.warning("checkpoint %d is damaged, trying the one before it: %s", index, error)
        return None

    def clear(self) -> None:
        """Removes all checkpoints of this training."""
        storage.remove(self.root)

    def at(self, index: int) -> Checkpoint:
        """The checkpoint of that index.

        Raises:
            UserError: there is none, or it is damaged.
        """
        manifest = storage.read_json(self._manifest_uri(index))
        tensors: dict[str, dict[str, Tensor]] = {}
        files: dict[str, bytes] = {}
        try:
            stated = manifest.pop("sha256")
            if stated != digest(manifest) or manifest["index"] != index:
                raise ValueError("its content does not match its SHA-256")
            meta = dict(manifest["meta"])
            entries = [
                (name, entry["path"], str(entry["sha256"]), int(entry["bytes"]))
                for name, entry in manifest["files"].items()
            ]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{self._manifest_uri(index)}: not a manifest: {error}") from None
        for name, path, expected, size in entries:
            single(name, self._manifest_uri(index))  # readers write files of that name
            if not isinstance(path, str) or not path.startswith("data/"):
                raise UserError(f"{self._manifest_uri(index)}: refuses the file name {str(path)[:100]!r}")
            uri = inside(self.root, path)
            data = storage.read_bytes(uri, limit=size)
            if hashlib.sha256(data).hexdigest() != expected:
                raise UserError(f"{uri}: content does not match its SHA-256")
            if name.endswith(".safetensors"):
                tensors[name.removesuffix(".safetensors")] = deserialize(data, uri)
            else:
                files[name] = data
        return Checkpoint(index, tensors, files, meta)

    def _write_data(self, index: int, contents: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
        """Writes files under names never used before; their entries for the manifest. All or none stays."""
        nonce = uuid.uuid4().hex[:12]
        entries: dict[str, dict[str, Any]] = {}
        try:
            for name, data in contents.items():
                path = f"data/{index}-{nonce}-{name}"
                entries[name] = {"path": path, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
                storage.write_bytes(inside(self.root, path), data)
        except StorageError:
            self._forget(entries)
            raise
        return entries

    def _forget(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        for entry in entries.values():
            with suppress(StorageError):
                storage.remove(inside(self.root, entry["path"]))

    def _prune(self) -> None:
        """Forgets all but the newest checkpoints, and data that no manifest names (left by a kill)."""
        indices = self.indices()
        whole = [index for index in indices if index not in self._damaged]
        oldest = whole[-self._keep :][0]
        for index in indices:
            if index < oldest:
                storage.remove(self._manifest_uri(index))  # first the manifest, so that nothing names missing data
        for name in storage.list_files(storage.join(self.root, "data")):
            prefix = name.lstrip(".").split("-", 1)[0]  # a dot: the temporary name of a write that was killed
            if prefix.isdecimal() and int(prefix) < oldest:
                storage.remove(inside(self.root, f"data/{name}"))

    def _manifest_uri(self, index: int) -> str:
        return inside(self.root, f"manifest-{index:08d}.json")


def serialize(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as safetensors bytes. Contiguous: the format refuses channels_last weights."""
    return safetensors.torch.save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})


def deserialize(data: bytes, where: str) -> dict[str, Tensor]:
    """Tensors from safetensors bytes.

    Raises:
        UserError: they are not whole, or not all finite; `where` is named.
    """
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{where}: not a safetensors file: {error}") from None
    require_finite(tensors, where)
    return tensors


def require_finite(tensors: Mapping[str, Tensor], where: str | Path) -> None:
    """Raises a UserError if a number of `tensors` is NaN or infinite; such a network draws pictures all the same."""
    for name, value in tensors.items():
        if value.dtype.itemsize == 1 and value.is_floating_point():
            value = value.float()  # for the 8-bit formats torch has no isfinite
        if not value.isfinite().all():
            raise UserError(f"{where}: {name} holds numbers that are NaN or infinite; use an earlier model")
