"""Copies of runs and models: verified where hashes are known, and picked up where an earlier copy stopped."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from core import storage
from core.errors import UserError
from core.names import inside
from factory import hub
from factory.registry import Registry
from factory.run_folder import find_run

RECORD = "run.json"


def fetch(name: str, target: Path, runs: Path, registry: str) -> int:
    """Copies a run, a model version or any folder into `target`; returns the number of files.

    Args:
        name: a run on this machine, MODEL or MODEL@VERSION of the registry, hf://USER/REPO, or a folder's URI.
        target: folder; files that are already there with the registered hash are left alone.
        runs: folder of runs.
        registry: model registry.

    Raises:
        UserError: there is no such thing, a file is not what was registered, or `target` holds something else.
    """
    if hub.is_hub(name):
        return len(hub.fetch(name, target).files)
    if storage.is_remote(name):
        files = storage.list_files(name)
        _require_own(target, files)
        storage.copy_tree(name, target)
        return len(files)
    store = Registry(registry)
    if "@" in name or name in store.models():
        version = store.resolve(name)
        places = {file: inside(target, file) for file in version.files}
        _require_own(target, version.files)
        for file, path in places.items():  # none is written if one is refused
            expected = version.files[file]
            if path.exists() and storage.sha256(path) == expected:
                continue
            storage.write_bytes(path, storage.read_bytes(inside(version.uri, file)))
            if storage.sha256(path) != expected:
                path.unlink()
                raise UserError(f"{name}: {file} is damaged in the registry: its SHA-256 is another one")
        return len(version.files)
    run = find_run(runs, name)
    if not storage.may_become(target, RECORD) or (
        (target / RECORD).is_file() and find_run(runs, str(target.absolute())).id != run.id
    ):
        raise UserError(f"{target}: holds something else than run {run.id}; choose another folder")
    storage.write_bytes(target / RECORD, storage.read_bytes(run.folder / RECORD))  # first: a part is known by it
    storage.copy_tree(run.folder, target)
    return len(storage.list_files(run.folder))


def _require_own(target: Path, files: Collection[str]) -> None:
    """Raises UserError if `target` holds a file that is none of `files`: nobody's own files are mixed into a copy."""
    others = sorted(set(storage.list_files(target)) - set(files)) if target.exists() else []
    if others:
        raise UserError(f"{target}: holds other files, such as {others[0]}; choose another folder")
