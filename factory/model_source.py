"""Where a model that somebody names is: in the registry, in a run, or a folder; and how its samples were drawn when it
was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core import storage
from core.errors import UserError
from core.evaluation import Sampling
from core.names import inside
from factory.registry import Registry
from factory.run_folder import find_run
from factory.versions import Version

MANNER = {"sampler", "steps", "grid", "sigma_min", "sigma_max", "rho", "guidance", "guidance_low", "guidance_high"}
MANNER |= {"start", "autoguidance", "block", "temperature", "tilt"}
"""The settings that say how samples are drawn, and not how many, which or from what seed; of both modalities."""


@dataclass(frozen=True)
class ModelSource:
    """The model's folders on this machine by part, and the settings of `sample` by which it was measured."""

    parts: Mapping[str, Path]
    measured: Mapping[str, Any]
    version: Version | None = None

    @property
    def manner(self) -> dict[str, Any]:
        """Those of the settings that say how samples are drawn."""
        return {key: value for key, value in self.measured.items() if key in MANNER}


def locate(model: str, registry: str, runs: Path | None, scratch: Path) -> ModelSource:
    """The model that `model` names: MODEL, MODEL@VERSION, a run's id, or a model folder's path or URI.

    Args:
        model: the name.
        registry: where registered models are.
        runs: folder of runs, if names of runs are allowed.
        scratch: what is not on this machine is copied there.

    Raises:
        UserError: there is no such model, or it is damaged.
    """
    if is_folder(model):
        if not storage.is_remote(model):
            return ModelSource({"model": Path(model)}, {})
        storage.copy_tree(model, scratch / "model")
        return ModelSource({"model": scratch / "model"}, {})
    try:
        version = Registry(registry).resolve(model)
    except UserError:
        found = _of_a_run(model, runs)
        if found is None:
            raise
        return found
    return of_version(version, scratch)


def is_folder(model: str) -> bool:
    """Whether a name is a folder's path or URI, and not one of the registry or of a run."""
    return "/" in model or (Path(model) / "model.json").exists()


def of_version(version: Version, scratch: Path) -> ModelSource:
    """A registered version, verified and on this machine.

    Raises:
        UserError: a file is missing or damaged.
    """
    version.verify()
    parts = sorted({name.split("/")[0] for name in version.files})
    measured = version.lineage.get("sample") or {}
    if not storage.is_remote(version.uri):
        return ModelSource({part: Path(version.folder(part)) for part in parts}, measured, version)
    for part in parts:
        storage.copy_tree(version.folder(part), inside(scratch, part))
    return ModelSource({part: inside(scratch, part) for part in parts}, measured, version)


def _of_a_run(name: str, runs: Path | None) -> ModelSource | None:
    """The models that a run trained, and how it drew from them; None if there is no such run."""
    try:
        artifacts = find_run(runs, name).artifacts() if runs is not None else {}
    except UserError:
        return None
    parts: dict[str, Path] = {
        part: artifacts[part]["path"] for part in ("model", "autoregressive") if part in artifacts
    }
    if not parts.get("model"):
        return None
    drawn: Path | None = artifacts.get("samples", {}).get("path")
    return ModelSource(parts, Sampling.read(drawn).settings if drawn is not None else {})
