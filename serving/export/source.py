"""What is exported: a loaded model, how it is sampled, and its traced programs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch.export import ExportedProgram

from core.config import validate
from core.errors import UserError
from core.images.config import ImageSample
from core.images.model import TrainedModel, load_model
from core.images.sampling import choose_sigmas
from core.storage.model_folder import read_description
from core.text import model as text
from core.text.config import TextSample
from core.text.denoiser import Diffusion
from core.text.model import TrainedText
from factory.finding import FoundModel
from serving.export.programs import image_program, text_program
from serving.export.table import Table, table_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageSource:
    """A model of images."""

    trained: TrainedModel
    settings: ImageSample

    @property
    def guide(self) -> bool:
        """Whether sampling is led away from the model's guide."""
        return self.trained.guide is not None and self.settings.autoguidance != 1

    @cached_property
    def table(self) -> Table:
        return self.table_for(self.settings.steps)

    def table_for(self, steps: int) -> Table:
        """The sampler's table for so many steps."""
        settings = self.settings.model_copy(update={"steps": steps})
        return table_of(settings, choose_sigmas(settings, self.trained.process), self.guide)

    @cached_property
    def program(self) -> ExportedProgram:
        """The traced denoiser."""
        return image_program(self.trained, self.trained.network)

    @cached_property
    def guide_program(self) -> ExportedProgram:
        """The traced denoiser of the guide."""
        assert self.trained.guide is not None
        return image_program(self.trained, self.trained.guide)


@dataclass(frozen=True)
class TextSource:
    """A diffusion model of text."""

    trained: TrainedText
    settings: TextSample

    @property
    def network(self) -> Diffusion:
        assert isinstance(self.trained.network, Diffusion)
        return self.trained.network

    @property
    def block(self) -> int:
        """Tokens that are denoised together."""
        return self.trained.config.block(self.settings.block)

    @cached_property
    def program(self) -> ExportedProgram:
        """The traced step."""
        return text_program(self.network, self.settings.sampler, self.settings.tilt)


Source = ImageSource | TextSource


def load(found: FoundModel, wishes: Mapping[str, Any]) -> Source:
    """The model that was found, sampled as it was measured unless `wishes` say otherwise, and without feedback.

    Raises:
        UserError: it is damaged, or of a kind that no export knows.
    """
    folder = found.parts["model"]
    manner = {**found.manner, **{key: value for key, value in wishes.items() if value is not None}}
    if found.modality == "images":
        if manner.pop("feedback", 0):
            log.warning("its files draw without sample.feedback, which follows each sample's path")
        return ImageSource(load_model(folder), validate(ImageSample, manner, "sample"))
    read_description(folder, "text")
    trained = text.load_model(folder)
    if not isinstance(trained.network, Diffusion):
        raise UserError(f"export: a model trained as {trained.objective}; allowed: diffusion models")
    settings = validate(TextSample, manner, "sample")
    if settings.guidance != 1:
        raise UserError(f"sample.guidance: found {settings.guidance}; text is exported without it: --guidance 1")
    return TextSource(trained, settings)
