"""A model as a program of `torch.export`: denoiser.pt2 of images, step.pt2 of text. It runs with torch alone."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from core import storage
from serving.export import folder as plain
from serving.export.check import Difference, by_table, of_images, of_text
from serving.export.source import ImageSource, TextSource

DENOISER, GUIDE, STEP, CONFIG = "denoiser.pt2", "guide.pt2", "step.pt2", "config.json"


def write(folder: Path, source: ImageSource | TextSource) -> None:
    """Writes the programs, and config.json with what belongs to them."""
    if isinstance(source, TextSource):
        torch.export.save(source.program, folder / STEP)
        storage.write_json(folder / CONFIG, plain.text_facts(source))
        return
    torch.export.save(source.program, folder / DENOISER)
    if source.guide:
        torch.export.save(source.guide_program, folder / GUIDE)
    storage.write_json(folder / CONFIG, plain.image_facts(source))


def check(folder: Path, source: ImageSource | TextSource) -> list[Difference]:
    """Samples by the programs beside core's."""
    if isinstance(source, TextSource):
        return [of_text(source, STEP, torch.export.load(folder / STEP).module())]
    network = torch.export.load(folder / DENOISER).module()
    guide = torch.export.load(folder / GUIDE).module() if source.guide else None
    none = len(source.trained.shape.class_names)

    def denoise(x: Tensor, sigma: float, label: Tensor, guidance: float, autoguidance: float) -> Tensor:
        level = torch.full((len(x),), sigma)
        with_class = network(x, level, label)
        denoised: Tensor = with_class
        if guidance != 1:
            denoised = denoised + (guidance - 1) * (with_class - network(x, level, torch.full_like(label, none)))
        if guide is not None and autoguidance != 1:
            denoised = denoised + (autoguidance - 1) * (with_class - guide(x, level, label))
        return denoised

    return [of_images(source, DENOISER, by_table(source, denoise))]
