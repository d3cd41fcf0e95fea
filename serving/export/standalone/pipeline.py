"""A pipeline for diffusers, copied beside config.json and weights: it needs torch, safetensors and diffusers alone.

pipeline = DiffusionPipeline.from_pretrained(FOLDER, custom_pipeline=FOLDER, trust_remote_code=True)
images = pipeline(label=7, count=4, generator=torch.Generator().manual_seed(0)).images
"""

# mypy: ignore-errors
from __future__ import annotations

import json
import operator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers.image_processor import VaeImageProcessor
from safetensors.torch import load_file
from torch import Tensor


class TablePipeline(DiffusionPipeline):
    """Samples by the table of steps in config.json; the network is its list of torch's operations."""

    def __init__(self) -> None:
        super().__init__()
        self._read: tuple[dict[str, Any], list[dict[str, Tensor]]] | None = None

    @torch.no_grad()
    def __call__(
        self,
        label: int | None = None,
        count: int = 1,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
        output_type: str = "pil",
    ) -> ImagePipelineOutput:
        """Images of class number `label` (None: of no class).

        Args:
            label: from 0; config.json has the names of the classes.
            count: how many.
            generator: of the noise.
            noise: all of it instead, [N, count, C, H, W]: of the start and of each step that takes some.
            output_type: pil, np, or pt for floats from 0 to 1.
        """
        config, parts = self._files()
        size = (count, *config["shape"])
        drawn = None if noise is None else iter(noise)

        def fresh() -> Tensor:
            return next(drawn) if drawn is not None else torch.randn(size, generator=generator)

        nothing = config["no_class"]
        wanted = nothing if label is None else label
        x, before = config["start"] * fresh(), torch.zeros(())
        for row in self.progress_bar(config["rows"]):
            estimates = [
                share * run(config, parts[part], x, row["sigma"], wanted if known else nothing)
                for part, known, share in row["estimates"]
            ]
            denoised = torch.stack(estimates).sum(dim=0)
            x = row["x"] * x + row["denoised"] * denoised + row["before"] * before
            if row["noise"]:
                x = x + row["noise"] * fresh()
            before = denoised
        images = VaeImageProcessor().postprocess(x, output_type=output_type)  # from [-1, 1]
        return ImagePipelineOutput(images=images)

    def _files(self) -> tuple[dict[str, Any], list[dict[str, Tensor]]]:
        if self._read is None:
            folder = Path(self.config._name_or_path)
            if not folder.is_dir():
                raise ValueError(f"{folder} is no folder: download the repository and load it from there")
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            files = [folder / "model.safetensors", folder / "guide.safetensors"][: len(config["weights"])]
            self._read = config, [load_file(str(file)) for file in files]
        return self._read


def run(config: dict[str, Any], weights: dict[str, Tensor], x: Tensor, sigma: float, label: int) -> Tensor:
    """The network's estimate of clean images for x [B, C, H, W] at a noise level and of a class."""
    values: dict[str, Any] = {**weights, "x": x, "sigma": torch.full((len(x),), sigma),
                              "label": torch.full((len(x),), label)}  # fmt: skip

    def look(one: Any) -> Any:
        if isinstance(one, dict):
            return values[one["of"]] if "of" in one else getattr(torch, one["torch"])
        return [look(inner) for inner in one] if isinstance(one, list) else one

    places = SimpleNamespace(torch=torch, operator=operator)
    for name, operation, arguments, keywords in config["graph"]:
        values[name] = operator.attrgetter(operation)(places)(*look(arguments), **dict(look(keywords)))
    denoised: Tensor = values[config["outputs"][0]]
    return denoised
