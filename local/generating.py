"""One sample here, now: from a registered model or a model folder, with the sampling code of the pipelines."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from secrets import randbelow
from typing import Any

from core import steps, storage
from core.errors import UserError
from core.registry import Registry


def generate(
    model: str,
    registry: str,
    wishes: Mapping[str, Any],
    *,
    prompt: str | None = None,
    label: int | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """Draws samples and returns {"model", "seed", "file" or "texts"}.

    Args:
        model: MODEL, MODEL@VERSION, or a model folder's path or URI.
        registry: where registered models are.
        wishes: settings of the sampler; None: its default.
        prompt: for text.
        label: class, for images; None: all classes in turn.
        out: .png or folder for images, folder for text.

    Raises:
        UserError: there is no such model, or a wish does not suit it.
    """
    with tempfile.TemporaryDirectory(prefix="textdiffusion-") as scratch:
        folders = _folders(model, registry, Path(scratch))
        modality = storage.read_json(folders["model"] / "model.json").get("modality", "images")
        section = {key: value for key, value in wishes.items() if value is not None}
        section.setdefault("seed", randbelow(2**31))
        if modality == "text":
            if label is not None:
                raise UserError("--class is for models of images; this one writes text: use --prompt")
            section["modes"] = ["infill" if prompt and "___" in prompt else "diffusion"]
            section |= {"prompts": [prompt]} if prompt else {}
        else:
            if prompt is not None:
                raise UserError("--prompt is for models of text; this one draws images: use --class")
            section |= {"labels": [label]} if label is not None else {}
        drawn = Path(scratch) / "samples"
        steps.sample(modality, section, folders["model"], drawn, autoregressive=folders.get("autoregressive"))
        result: dict[str, Any] = {"model": model, "seed": section["seed"]}
        if modality == "text":
            lines = (drawn / "samples.jsonl").read_text(encoding="utf-8").splitlines()
            result["texts"] = [json.loads(line)["text"] for line in lines if line.strip()]
            if out is not None:
                storage.copy_tree(drawn, out)
        else:
            result["file"] = str(_save_picture(drawn, out or Path(f"sample-{section['seed']}.png")))
        return result


def _folders(model: str, registry: str, scratch: Path) -> dict[str, Path]:
    if "/" in model or (Path(model) / "model.json").exists():
        if not storage.is_remote(model):
            storage.read_json(Path(model) / "model.json")  # says so if it is not there
            return {"model": Path(model)}
        storage.copy_tree(model, scratch / "model")
        return {"model": scratch / "model"}
    version = Registry(registry).resolve(model)
    version.verify()
    parts = sorted({name.split("/")[0] for name in version.files})
    if not storage.is_remote(version.uri):
        return {part: Path(version.folder(part)) for part in parts}
    for part in parts:
        storage.copy_tree(version.folder(part), scratch / part)
    return {part: scratch / part for part in parts}


def _save_picture(drawn: Path, out: Path) -> Path:
    if out.suffix != ".png":
        storage.copy_tree(drawn, out)
        return out / "grid.png"
    storage.write_bytes(out, storage.read_bytes(drawn / "grid.png"))
    return out
