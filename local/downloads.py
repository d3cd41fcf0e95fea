"""Copies of runs and models: verified where hashes are known, and picked up where an earlier copy stopped."""

from __future__ import annotations

from pathlib import Path

from core import storage
from core.errors import UserError
from core.names import inside
from factory import hub
from factory.registry import Registry
from factory.run_folder import find_run


def fetch(name: str, target: Path, runs: Path, registry: str) -> int:
    """Copies a run, a model version or any folder into `target`; returns the number of files.

    Args:
        name: a run on this machine, MODEL or MODEL@VERSION of the registry, hf://USER/REPO, or a folder's URI.
        target: folder; files that are already there with the registered hash are left alone.
        runs: folder of runs.
        registry: model registry.

    Raises:
        UserError: there is no such thing, or a file is not what was registered.
    """
    if hub.is_hub(name):
        return len(hub.fetch(name, target).files)
    if storage.is_remote(name):
        storage.copy_tree(name, target)
        return len(storage.list_files(name))
    store = Registry(registry)
    if "@" in name or name in store.models():
        version = store.resolve(name)
        places = {file: inside(target, file) for file in version.files}
        for file, path in places.items():  # none is written if one is refused
            expected = version.files[file]
            if path.exists() and storage.sha256(path) == expected:
                continue
            storage.write_bytes(path, storage.read_bytes(inside(version.uri, file)))
            if storage.sha256(path) != expected:
                path.unlink()
                raise UserError(f"{name}: {file} is damaged in the registry: its SHA-256 is another one")
        return len(version.files)
    folder = find_run(runs, name).folder
    storage.copy_tree(folder, target)
    return len(storage.list_files(folder))
