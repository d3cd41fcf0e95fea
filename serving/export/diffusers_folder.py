"""The files of `folder.py` with a pipeline for diffusers beside them, and their check by `from_pretrained`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor

from core import storage
from core.errors import UserError
from serving.export import folder as plain
from serving.export.check import Difference, of_images
from serving.export.source import ImageSource, TextSource

PIPELINE, INDEX = "pipeline.py", "model_index.json"
STANDALONE = Path(__file__).parent / "standalone"


def write(folder: Path, source: ImageSource | TextSource) -> None:
    """Writes the files.

    Raises:
        UserError: the model is not of images.
    """
    if isinstance(source, TextSource):
        raise UserError("--to diffusers is for models of images; allowed for text: hub, onnx, torch")
    plain.write(folder, source)
    storage.write_bytes(folder / PIPELINE, (STANDALONE / PIPELINE).read_bytes())
    index = {"_class_name": "TablePipeline", "_diffusers_version": diffusers.__version__}
    storage.write_json(folder / INDEX, index)


def check(folder: Path, source: ImageSource | TextSource) -> list[Difference]:
    """Samples by diffusers' `from_pretrained` beside core's."""
    assert isinstance(source, ImageSource)
    place = str(folder.absolute())
    from_pretrained: Any = diffusers.DiffusionPipeline.from_pretrained  # which has no types
    pipeline = from_pretrained(place, custom_pipeline=place, trust_remote_code=True)
    pipeline.set_progress_bar_config(disable=True)

    def sample(noise: Tensor, labels: Tensor) -> Tensor:
        each = [
            pipeline(label=int(label), noise=noise[:, i : i + 1], output_type="latent").images
            for i, label in enumerate(labels)
        ]
        return torch.cat(each)

    return [of_images(source, PIPELINE, sample)]
