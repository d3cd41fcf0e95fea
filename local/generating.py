"""One sample here, now: from a registered model, a run, or a model folder, with the sampling code of the pipelines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from secrets import randbelow
from typing import Any

import numpy as np

from core import storage
from core.errors import UserError
from core.evaluation import Sampling
from core.names import inside
from core.records import ModelFacts, read
from core.requests import SampleRequest
from core.storage import scratches
from factory.registry import Registry
from factory.run_folder import find_run
from local import terminal

MANNER = {"sampler", "steps", "grid", "sigma_min", "sigma_max", "rho", "guidance", "guidance_low", "guidance_high"}
MANNER |= {"start", "autoguidance", "block", "temperature", "tilt"}
"""The settings that say how samples are drawn, and not how many, which or from what seed; of both modalities."""


def generate(
    model: str,
    registry: str,
    wishes: Mapping[str, Any],
    *,
    runs: Path | None = None,
    prompt: str | None = None,
    label: str | None = None,
    out: Path | None = None,
    watch: Callable[[float, list[str]], None] | None = None,
) -> dict[str, Any]:
    """Draws samples and returns {"model", "seed", and "texts", or "file" and "picture" (uint8 [H, W(, 3)])}.

    Args:
        model: MODEL, MODEL@VERSION, a run's id, or a model folder's path or URI.
        registry: where registered models are.
        wishes: settings of the sampler; None: as the samples were drawn by which the model was measured, if it comes
            from a run or the registry, else the sampler's default.
        runs: folder of runs.
        prompt: for text.
        label: class by name, for images; None: all classes in turn.
        out: .png, .gif (the denoising path) or folder for images, folder for text.
        watch: for text, sees it while it is written.

    Raises:
        UserError: there is no such model, or a wish does not suit it.
    """
    with scratches.temporary_folder("generate") as scratch:
        folders, measured = _found(model, registry, runs, scratch)
        modality = read(ModelFacts, str(inside(folders["model"], "model.json"))).modality
        section = {key: value for key, value in measured.items() if key in MANNER}
        section |= {key: value for key, value in wishes.items() if value is not None}
        section.setdefault("seed", randbelow(2**31))
        result: dict[str, Any] = {"model": model, "seed": section["seed"]}
        if modality == "text":
            if label is not None:
                raise UserError("--class is for models of images; this one writes text: use --prompt")
            from core.text.sampling import write

            request = SampleRequest(
                modality="text",
                sample=section,
                model=folders["model"],
                out=scratch / "samples",
                autoregressive=folders.get("autoregressive"),
            )
            rows = write(request, prompt or "", watch)
            result["texts"] = [row["text"] for row in rows]
            if out is not None:
                storage.write_json_lines(out / "samples.jsonl", rows)
            return result
        if prompt is not None:
            raise UserError("--prompt is for models of text; this one draws images: use --class")
        from core.images.sampling import sample  # here and at once: for a few samples no processes are started

        section |= {"labels": [label]} if label is not None else {}
        drawn = scratch / "samples"
        sample(SampleRequest(modality="images", sample=section, model=folders["model"], out=drawn))
        result["file"] = str(_save_picture(drawn, out or Path(f"sample-{section['seed']}.png")))
        with np.load(drawn / "samples.npz") as samples:
            result["picture"] = _in_a_row(samples["images"][:10])
        return result


def _found(model: str, registry: str, runs: Path | None, scratch: Path) -> tuple[dict[str, Path], dict[str, Any]]:
    """The model's folders by part, and how the samples were drawn by which it was measured, if that is known."""
    if "/" in model or (Path(model) / "model.json").exists():
        if not storage.is_remote(model):
            return {"model": Path(model)}, {}
        storage.copy_tree(model, scratch / "model")
        return {"model": scratch / "model"}, {}
    try:
        version = Registry(registry).resolve(model)
    except UserError:
        found = _of_a_run(model, runs)
        if found is None:
            raise
        return found
    version.verify()
    parts = sorted({name.split("/")[0] for name in version.files})
    measured = version.lineage.get("sample") or {}
    if not storage.is_remote(version.uri):
        return {part: Path(version.folder(part)) for part in parts}, measured
    for part in parts:
        storage.copy_tree(version.folder(part), inside(scratch, part))
    return {part: inside(scratch, part) for part in parts}, measured


def _of_a_run(name: str, runs: Path | None) -> tuple[dict[str, Path], dict[str, Any]] | None:
    """The models that a run trained, by part, and how it drew from them; None if there is no such run."""
    try:
        artifacts = find_run(runs, name).artifacts() if runs is not None else {}
    except UserError:
        return None
    found: dict[str, Path] = {
        part: artifacts[part]["path"] for part in ("model", "autoregressive") if part in artifacts
    }
    if not found.get("model"):
        return None
    drawn: Path | None = artifacts.get("samples", {}).get("path")
    return found, Sampling.read(drawn).settings if drawn is not None else {}


def _save_picture(drawn: Path, out: Path) -> Path:
    if out.suffix == ".gif":
        with np.load(drawn / "trajectory.npz") as path:
            terminal.save_gif(np.stack([_in_a_row(frame[:8]) for frame in path["images"]]), out)
        return out
    if out.suffix != ".png":
        storage.copy_tree(drawn, out)
        return out / "grid.png"
    storage.write_bytes(out, storage.read_bytes(drawn / "grid.png"))
    return out


def _in_a_row(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """uint8 [N, H, W(, 3)] side by side, one dark pixel apart."""
    edges = [(0, 0)] * images.ndim
    edges[2] = (0, 1)
    return np.concatenate(list(np.pad(images, edges)), axis=1)[:, :-1]
