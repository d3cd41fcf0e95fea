"""One sample here, now: from a registered model, a run, or a model folder, with the sampling code of the pipelines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from secrets import randbelow
from typing import Any

import numpy as np

from core import storage
from core.errors import UserError
from core.requests import SampleRequest
from core.storage import scratches
from factory.finding import FoundModel, find_model
from local import terminal

Watch = Callable[[float, list[str]], None]
PICTURES = (".png", ".gif")


def generate(
    model: str,
    registry: str,
    wishes: Mapping[str, Any],
    *,
    runs: Path | None = None,
    prompt: str | None = None,
    label: str | None = None,
    out: Path | None = None,
    watch: Watch | None = None,
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
        source = find_model(model, registry, runs, scratch)
        section = dict(source.manner) | {key: value for key, value in wishes.items() if value is not None}
        section.setdefault("seed", randbelow(2**31))
        result = {"model": model, "seed": section["seed"]}
        if out is not None and (source.modality == "text" or out.suffix not in PICTURES):
            _require_folder(out)
        if source.modality == "text":
            if label is not None:
                raise UserError("--class is for models of images; this one writes text: use --prompt")
            return result | _text(source, section, prompt or "", out, watch, scratch / "samples")
        if prompt is not None:
            raise UserError("--prompt is for models of text; this one draws images: use --class")
        if wishes.get("block") is not None:
            raise UserError("--block is for models of text; this one draws images")
        from core.images.classes import class_indices
        from core.images.terms import described

        if label is not None:
            shape, conditional = described(source.parts["model"])
            section["labels"] = class_indices([label], shape.class_names if conditional else (), "--class")
        return result | _images(source, section, out, scratch / "samples")


def _text(
    source: FoundModel, section: dict[str, Any], prompt: str, out: Path | None, watch: Watch | None, drawn: Path
) -> dict[str, Any]:
    from core.text.sampling import write

    request = SampleRequest(
        modality="text",
        sample=section,
        model=source.parts["model"],
        out=drawn,
        autoregressive=source.parts.get("autoregressive"),
    )
    rows = write(request, prompt, watch)
    if out is not None:
        storage.write_json_lines(out / "samples.jsonl", rows)
    return {"texts": [row["text"] for row in rows]}


def _images(source: FoundModel, section: dict[str, Any], out: Path | None, drawn: Path) -> dict[str, Any]:
    from core.images.sampling import sample  # not by the table of steps: for a few samples no processes are started

    sample(SampleRequest(modality="images", sample=section, model=source.parts["model"], out=drawn), tiled=True)
    file = _save_picture(drawn, out or Path(f"sample-{section['seed']}.png"))
    with np.load(drawn / "samples.npz") as samples:
        return {"file": str(file), "picture": _in_a_row(samples["images"][:10])}


def _save_picture(drawn: Path, out: Path) -> Path:
    if out.suffix == ".gif":
        with np.load(drawn / "trajectory.npz") as path:
            terminal.save_gif(np.stack([_in_a_row(frame[:8]) for frame in path["images"]]), out)
        return out
    if out.suffix not in PICTURES:
        storage.copy_tree(drawn, out)
        return out / "grid.png"
    storage.write_bytes(out, storage.read_bytes(drawn / "grid.png"))
    return out


def _require_folder(out: Path) -> None:
    """Raises UserError if `out` cannot be the folder of samples, or holds what is none."""
    if out.suffix and not out.is_dir():
        raise UserError(f"--out {out}: pictures end in .png, animations in .gif; a folder's name has no ending")
    if not storage.may_become(out, "samples.npz", "samples.jsonl"):
        raise UserError(f"--out {out}: holds something else than samples; choose another folder")


def _in_a_row(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """uint8 [N, H, W(, 3)] side by side, one dark pixel apart."""
    edges = [(0, 0)] * images.ndim
    edges[2] = (0, 1)
    return np.concatenate(list(np.pad(images, edges)), axis=1)[:, :-1]
