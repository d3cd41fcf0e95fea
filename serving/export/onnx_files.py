"""The ONNX files of a model, and their check by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from core import storage
from serving.export import folder as plain
from serving.export import onnx_graph
from serving.export.check import Difference, by_table, of_images, of_text
from serving.export.programs import named
from serving.export.source import ImageSource, TextSource

DENOISER, SAMPLER, STEP, CONFIG = "denoiser.onnx", "sampler.onnx", "step.onnx", "config.json"


def write(folder: Path, source: ImageSource | TextSource) -> None:
    """Writes the graphs, and config.json with what belongs to them."""
    if isinstance(source, TextSource):
        storage.write_bytes(folder / STEP, onnx_graph.text_step(source).SerializeToString())
        storage.write_json(folder / CONFIG, plain.text_facts(source))
        return
    networks = onnx_graph.Networks.of(source)
    storage.write_bytes(folder / DENOISER, onnx_graph.denoiser(source, networks).SerializeToString())
    storage.write_bytes(folder / SAMPLER, onnx_graph.sampler(source, networks).SerializeToString())
    storage.write_json(folder / CONFIG, plain.image_facts(source))


def check(folder: Path, source: ImageSource | TextSource) -> list[Difference]:
    """Samples by ONNX Runtime beside core's."""
    if isinstance(source, TextSource):
        step = _session(folder / STEP)
        sampler = source.settings.sampler
        return [of_text(source, STEP, lambda *inputs: _run(step, **named(sampler, inputs)))]
    denoiser, whole, settings = _session(folder / DENOISER), _session(folder / SAMPLER), source.settings

    def denoise(x: Tensor, sigma: float, label: Tensor, guidance: float, autoguidance: float) -> Tensor:
        return _run(denoiser, x=x, sigma=sigma, label=label, guidance=guidance, autoguidance=autoguidance)[0]

    def sample(noise: Tensor, label: Tensor) -> Tensor:
        wishes = {"guidance": settings.guidance, "autoguidance": settings.autoguidance}
        return _run(whole, noise=noise, label=label, **wishes)[0]

    return [of_images(source, DENOISER, by_table(source, denoise)), of_images(source, SAMPLER, sample)]


def _session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _run(session: Any, **inputs: Tensor | float) -> list[Tensor]:
    """The outputs; of the inputs, those that the graph has."""
    known = {one.name for one in session.get_inputs()}
    fed = {
        name: value.numpy() if isinstance(value, Tensor) else np.array(value, np.float32)
        for name, value in inputs.items()
        if name in known
    }
    return [torch.from_numpy(one) for one in session.run(None, fed)]
