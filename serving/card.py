"""What the service knows of its model without torch: modality, classes, tokenizer, and how it draws unless asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.config import validate
from core.images.config import ImageSample
from core.records import Label, ModelFacts, Record, read
from core.storage import integrity
from core.text import tokenizer as tokenizers
from core.text.config import TextSample
from core.text.tokenizer import Tokenizer
from factory.finding import FoundModel
from serving.options import Options


class _Shape(Record):
    channels: int = 1
    height: int = 1
    width: int = 1
    class_names: tuple[Label, ...] = ()


SECTIONS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "images": lambda values: validate(ImageSample, values, "sample").model_dump(mode="json"),
    "text": lambda values: validate(TextSample, values, "sample").model_dump(mode="json"),
}
"""The validated section `sample` of each modality."""


@dataclass(frozen=True)
class ModelCard:
    """A model as requests see it."""

    name: str
    version: str
    modality: str
    weights_sha256: str
    parts: Mapping[str, Path]
    manner: Mapping[str, Any]  # of `sample`, by default
    classes: tuple[str, ...] = ()  # empty: the model draws without classes
    shape: tuple[int, ...] = ()  # of an image: H, W or H, W, 3
    tokenizer: Tokenizer | None = field(default=None, repr=False)
    run: str | None = None  # that trained it, if the registry says

    @property
    def steps(self) -> int:
        """Steps of the sampler unless a request asks for others."""
        return int(self.section["steps"])

    @property
    def section(self) -> dict[str, Any]:
        """The section `sample` of a request that asks for nothing in particular; as JSON."""
        return SECTIONS[self.modality](self.manner)


def read_card(source: FoundModel, name: str, options: Options) -> ModelCard:
    """The card of a model that was located.

    Raises:
        UserError: its description is missing or damaged.
    """
    folder = source.parts["model"]
    path = str(folder / "model.json")
    facts = read(ModelFacts, path)
    description = integrity.read_json(path)
    asked = {"steps": options.steps, "guidance": options.guidance}
    manner = {**source.manner, **{key: value for key, value in asked.items() if value is not None}}
    version = str(source.version.version) if source.version else facts.weights_sha256[:12]
    run = str(source.version.lineage.get("run") or "") or None if source.version else None
    common = (name, version, facts.modality, facts.weights_sha256, source.parts, manner)
    if facts.modality == "text":
        expected = str(description.get("tokenizer_sha256"))
        return ModelCard(*common, tokenizer=tokenizers.load(str(folder / "tokenizer.json"), expected), run=run)
    shape = validate(_Shape, description.get("data"), f"{path}: data")
    model = description.get("model")
    conditional = bool(model.get("conditional", True)) if isinstance(model, dict) else True
    size = (shape.height, shape.width, *([3] if shape.channels == 3 else []))
    return ModelCard(*common, classes=shape.class_names if conditional else (), shape=size, run=run)
