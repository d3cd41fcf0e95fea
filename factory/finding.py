"""Where the model is that someone names: in the registry, in a run, in a folder, or on the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core import storage
from core.errors import UserError
from core.evaluation import Sampling
from core.names import inside
from core.records import ModelFacts, read
from core.requests import ModalityName
from factory import hub
from factory.registry import Registry
from factory.run_folder import find_run
from factory.versions import Version, is_version, version_in

LATEST = "latest"
MANNER = {"sampler", "steps", "grid", "sigma_min", "sigma_max", "rho", "guidance", "guidance_low", "guidance_high"}
MANNER |= {"start", "autoguidance", "feedback", "block", "temperature", "tilt"}
"""The settings that say how samples are drawn, and not how many, which or from what seed; of both modalities."""


@dataclass(frozen=True)
class FoundModel:
    """A model's folders on this machine by part (model; text: autoregressive), and how its samples were drawn when it
    was measured, by keys of the section `sample`; empty where that is not known."""

    parts: dict[str, Path]
    manner: dict[str, Any]
    version: Version | None = None  # of the registry

    @property
    def modality(self) -> ModalityName:
        return read(ModelFacts, str(inside(self.parts["model"], "model.json"))).modality


def find_model(name: str, registry: str, runs: Path | None, scratch: Path) -> FoundModel:
    """The model that `name` means.

    Args:
        name: MODEL, MODEL@VERSION, a run's id, the path or URI of a model's folder or of a version's, or hf://USER/REPO.
        registry: where registered models are.
        runs: folder of runs.
        scratch: folder for copies of what is in a bucket.

    Raises:
        UserError: there is no such model.
    """
    if hub.is_hub(name):
        return of_version(hub.fetch(name, scratch / "hub"), scratch)
    if is_folder(name):
        if not storage.exists(storage.join(name, "model.json")) and is_version(name):
            return of_version(version_in(name.rstrip("/")), scratch)
        if not storage.is_remote(name):
            return FoundModel({"model": Path(name)}, {})
        storage.copy_tree(name, scratch / "model")
        return FoundModel({"model": scratch / "model"}, {})
    try:
        version = Registry(registry).resolve(name)
    except UserError as error:
        of_run = _of_a_run(name, runs)
        if of_run is not None:
            return of_run
        if name != LATEST and _of_a_run(LATEST, runs) is not None:
            raise UserError(f"{error}; the newest run here has a model: --model {LATEST}") from None
        raise
    return of_version(version, scratch)


def is_folder(name: str) -> bool:
    """Whether a name is a folder's path or URI, and not one of the registry or of a run."""
    return "/" in name or (Path(name) / "model.json").exists()


def of_version(version: Version, scratch: Path) -> FoundModel:
    """A registered version, verified and on this machine.

    Raises:
        UserError: a file is missing or damaged.
    """
    version.verify()
    parts = sorted({file.split("/")[0] for file in version.files})
    manner = _manner(version.lineage.get("sample"))
    if not storage.is_remote(version.uri):
        return FoundModel({part: Path(version.folder(part)) for part in parts}, manner, version)
    for part in parts:
        storage.copy_tree(version.folder(part), inside(scratch, part))
    return FoundModel({part: inside(scratch, part) for part in parts}, manner, version)


def _of_a_run(name: str, runs: Path | None) -> FoundModel | None:
    """The model that a run trained; None if there is no such run, or it trained none."""
    try:
        run = find_run(runs, name) if runs is not None else None
    except UserError:
        return None
    if run is None or name not in (LATEST, run.id):  # a job's name begins its runs' ids, but is a registered model
        return None
    artifacts = run.artifacts()
    parts: dict[str, Path] = {
        part: artifacts[part]["path"] for part in ("model", "autoregressive") if part in artifacts
    }
    if not parts.get("model"):
        return None
    drawn: Path | None = artifacts.get("samples", {}).get("path")
    return FoundModel(parts, _manner(Sampling.read(drawn).settings if drawn is not None else None))


def _manner(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (settings or {}).items() if key in MANNER}
