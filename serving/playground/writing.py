"""A playground from a model's name to a folder: its graph checked as an export's, the page beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core import storage
from core.errors import UserError
from core.storage import scratches
from core.text.config import around_gap
from factory.finding import find_model
from serving.export import source as sources
from serving.export.source import TextSource
from serving.export.writing import needing_extra
from serving.playground import page
from serving.playground.runtime import runtime


def write(
    model: str,
    out: Path,
    registry: str,
    runs: Path | None,
    wishes: Mapping[str, Any],
    prompt: str = "",
    tarball: Path | None = None,
) -> dict[str, Any]:
    """Writes the playground of a model into the folder `out`; what it holds in bytes, and the differences.

    Args:
        model: MODEL, MODEL@VERSION, a run's id, or a model folder's path or URI.
        out: a folder that is not there, is empty, or holds a playground.
        registry: where registered models are.
        runs: folder of runs.
        wishes: steps and guidance to begin with; None: as measured.
        prompt: text to begin with, of a text model.
        tarball: ONNX Runtime Web's npm package; None: from the cache or by npm.

    Raises:
        UserError: there is no such model, `out` holds something else, a package is missing, or the browser's graph
            would not give our samples; nothing is written then.
    """
    if not storage.may_become(out, page.PAGE):
        raise UserError(f"{out}: holds something that is no playground; choose another folder")
    with scratches.temporary_folder("playground") as scratch:
        source = sources.load(find_model(model, registry, runs, scratch), wishes)
        if isinstance(source, TextSource):
            for side in around_gap(prompt):
                source.trained.tokenizer.encode(side)
        elif prompt:
            raise UserError("--prompt is for models of text; this one draws images")
        onnx_files = needing_extra("serving.export.onnx_files")
        files = runtime(tarball)
        made = scratch / "graph"
        onnx_files.write(made, source)
        differences = onnx_files.check(made, source)
        for one in differences:
            one.require()
        step, denoiser = made / onnx_files.STEP, made / onnx_files.DENOISER
        graph = (step if isinstance(source, TextSource) else denoiser).read_bytes()
        with storage.atomic_folder(out, page.PAGE) as folder:
            page.write(folder, source, graph, files, title(model), prompt)
            sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    return {
        "model": model,
        "files": sizes,
        "differences": [{"file": d.what, "largest": d.largest, "allowed": d.allowed} for d in differences],
    }


def title(model: str) -> str:
    """A model's name for the page: without the folders of a path."""
    return model.rstrip("/").rpartition("/")[2] or model
