"""Which step with which inputs made which artifacts; an entry is used only while their files are what was written.

    <root>/<key>.json   {"outputs": as kfp.local lays them out, "files": {"artifact": hash}, "own_sha256"}

kfp.local's own cache looks whether a folder exists, no more: with a digit of an evaluation changed it would promote
the worse model, and with a file deleted no run would come to its end again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kfp.local.cache import LocalCache, _MissingArtifactError

from core import storage
from core.errors import UserError
from core.storage import integrity


class VerifiedCache(LocalCache):  # type: ignore[misc]  # kfp has no types
    """kfp.local's cache below `root`; `refused` is told of each entry that cannot be used any more, and why.

    Verifying reads every file of an artifact once: under a second for MNIST and its model on two busy cores.
    """

    def __init__(self, root: Path, refused: Callable[[str], None]) -> None:
        super().__init__(str(root))
        self._root, self._refused = root, refused

    def get(self, key: str) -> dict[str, Any] | None:
        """The outputs of a task, or None if it is to run: it never ran, or what it left is not as it left it."""
        path = self._root / f"{key}.json"
        if not path.exists():
            return None
        try:
            entry = integrity.read_json(path)
            outputs: dict[str, Any] = self._deserialize_outputs(entry["outputs"])
            for name, artifact in _artifacts(outputs):
                if integrity.files_sha256(artifact.path) != entry["files"][name]:
                    raise UserError(f"the files of {name} were changed or removed since ({artifact.path})")
        except _MissingArtifactError as error:
            self._refused(f"its files are gone ({error.uri})")
        except (UserError, KeyError, TypeError, AttributeError) as error:
            self._refused(str(error) if isinstance(error, UserError) else f"{path}: not an entry of the cache")
        else:
            return outputs
        return None

    def put(self, key: str, outputs: Mapping[str, Any]) -> None:
        """Keeps the outputs of a task, with the hash of each artifact's files."""
        files = {
            name: artifact.metadata.get(integrity.FILES_HASH) or integrity.files_sha256(artifact.path)
            for name, artifact in _artifacts(outputs)
        }
        integrity.write_json(
            self._root / f"{key}.json", {"outputs": self._serialize_outputs(dict(outputs)), "files": files}
        )


def _artifacts(outputs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The artifacts on this machine among a task's outputs; what lies in a bucket its readers verify."""
    for name, value in outputs.items():
        many = value if isinstance(value, list) else [value]
        for number, artifact in enumerate(many):
            if hasattr(artifact, "uri") and not storage.is_remote(artifact.uri):
                yield (f"{name}[{number}]" if isinstance(value, list) else name), artifact
