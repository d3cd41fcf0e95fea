"""Safetensors and JSON that torch and safetensors alone sample from: docs/how-to/export.md has the script.

config.json         the graph of the network (`graph.py`), the sampler's table (`table.py`), shape, classes, vocabulary
model.safetensors   the weights;  guide.safetensors   those of the guide, if there is one
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core import storage
from core.names import inside
from core.storage.checkpoint import deserialize, serialize
from core.text.tokenizer import Tokenizer
from serving.export.check import Difference, by_table, of_images, of_text
from serving.export.graph import graph_of, run
from serving.export.programs import named
from serving.export.source import ImageSource, TextSource

CONFIG, WEIGHTS, GUIDE = "config.json", "model.safetensors", "guide.safetensors"


def write(folder: Path, source: ImageSource | TextSource) -> None:
    """Writes the files into `folder`."""
    graph = graph_of(source.program)
    storage.write_bytes(folder / WEIGHTS, serialize(graph.weights))
    if isinstance(source, ImageSource) and source.guide:
        storage.write_bytes(folder / GUIDE, serialize(graph_of(source.guide_program).weights))
    facts = text_facts(source) if isinstance(source, TextSource) else image_facts(source)
    storage.write_json(folder / CONFIG, {**facts, **graph.json()})


def image_facts(source: ImageSource) -> dict[str, Any]:
    """What samples need to know of an image model beside its network."""
    shape = source.trained.shape
    rows = []
    for row, values in zip(source.table.rows, source.table.json()["rows"], strict=True):
        mixed = [
            [0, True, row.guidance + row.autoguidance - 1],
            [0, False, 1 - row.guidance],
            [1, True, 1 - row.autoguidance],
        ]
        rows.append({**values, "estimates": [one for one in mixed if one[2] != 0]})
    return {
        "modality": "images",
        "weights": [WEIGHTS, GUIDE] if source.guide else [WEIGHTS],
        "shape": list(shape.size),
        "classes": list(shape.class_names) if source.trained.config.conditional else [],
        "no_class": len(shape.class_names),
        "start": source.table.start,
        "rows": rows,
        "sample": source.settings.model_dump(mode="json"),
    }


def text_facts(source: TextSource) -> dict[str, Any]:
    """What samples need to know of a text model beside its network."""
    config = source.trained.config
    return {
        "modality": "text",
        "weights": [WEIGHTS],
        "context": config.context,
        "embedding": config.process.embedding,
        "block": source.block,
        "largest_block": max(config.process.blocks),
        "start": source.trained.tokenizer.size,
        "sampler": source.settings.sampler,
        "steps": source.settings.steps,
        "temperature": source.settings.temperature,
        "vocabulary": vocabulary(source.trained.tokenizer),
        "sample": source.settings.model_dump(mode="json"),
    }


def vocabulary(tokenizer: Tokenizer) -> list[str]:
    """The bytes of each token, a character of Latin-1 for each: joined and decoded as UTF-8 they are text."""
    read = getattr(tokenizer, "decode_bytes", lambda ids: tokenizer.decode(ids).encode())
    return [read([index]).decode("latin-1") for index in range(tokenizer.size)]


def check(folder: Path, source: ImageSource | TextSource) -> list[Difference]:
    """Samples by the files in `folder`, as the script of the documentation draws them, beside core's."""
    config = storage.read_json(folder / CONFIG)
    parts = [
        deserialize(inside(folder, name).read_bytes(), name) for name in (WEIGHTS, GUIDE) if name in config["weights"]
    ]
    if isinstance(source, TextSource):
        sampler = source.settings.sampler
        return [of_text(source, CONFIG, lambda *inputs: run(config, parts[0], **named(sampler, inputs)))]

    def denoise(x: Tensor, sigma: float, labels: Tensor, guidance: float, autoguidance: float) -> Tensor:
        row = next(row for row in config["rows"] if row["sigma"] == sigma)
        nothing = torch.full_like(labels, config["no_class"])
        levels = torch.full((len(x),), sigma)
        mixed = [
            weight * run(config, parts[part], x=x, sigma=levels, label=labels if known else nothing)[0]
            for part, known, weight in row["estimates"]
        ]
        return torch.stack(mixed).sum(dim=0)

    return [of_images(source, CONFIG, by_table(source, denoise))]
