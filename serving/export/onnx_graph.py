"""A model as ONNX: the traced network, and around it, by hand, guidance and the loop of the sampler.

    denoiser.onnx   x [B, C, H, W], sigma [], label [B], guidance [], autoguidance [] -> denoised [B, C, H, W]
    sampler.onnx    noise [N, B, C, H, W], label [B], guidance [], autoguidance [] -> images [B, C, H, W]
    step.onnx       of text: what `programs.DrawingStep` takes and gives, or `GuessingStep`

The sampler is one graph: ONNX's Loop over the rows of its table. The table is an input with a default, so that one file
samples in any number of steps. Guidance costs nothing where it is off: the network sees the batch twice, with the class
and without it, only where both are needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch.export import ExportedProgram

from serving.export.programs import step_names
from serving.export.source import ImageSource, TextSource
from serving.export.table import Table

OPSET, IR_VERSION = 18, 9
COLUMNS = ("sigma", "x", "denoised", "before", "noise")  # of the input `rows`


@dataclass(frozen=True)
class Networks:
    """The converted denoisers of an image model and of its guide: [x, sigma [B], label] -> [denoised]."""

    network: GraphProto
    guide: GraphProto | None

    @classmethod
    def of(cls, source: ImageSource) -> Networks:
        """Those of a model."""
        names = ("network_x", "network_sigma", "network_label"), ("network_denoised",)
        guide = _converted(source.guide_program, *names).graph if source.guide else None
        return cls(_converted(source.program, *names).graph, guide)


def text_step(source: TextSource) -> ModelProto:
    """step.onnx."""
    return _converted(source.program, *step_names(source.settings.sampler))


def denoiser(source: ImageSource, networks: Networks) -> ModelProto:
    """denoiser.onnx."""
    part = _Guided(source, networks)
    batch: list[int | str] = ["B", *source.trained.shape.size]
    inputs = [_value("x", TensorProto.FLOAT, batch), _value("sigma", TensorProto.FLOAT, []), *_wishes()]
    graph = helper.make_graph(
        part.nodes("x", "sigma"), "denoiser", inputs, [_value("denoised", TensorProto.FLOAT, batch)], part.initializers
    )
    return part.model(graph)


def sampler(source: ImageSource, networks: Networks) -> ModelProto:
    """sampler.onnx."""
    part = _Guided(source, networks)
    image: list[int | str] = ["B", *source.trained.shape.size]
    b = _Builder("loop")
    b.out("row", "Gather", "rows", "index")
    for place, name in enumerate(COLUMNS):
        b.out(f"of_{name}", "Gather", "row", b.integer(place))
    b.nodes += part.nodes("x", "of_sigma")
    b.out("noisy", "Cast", b.out("has_noise", "Greater", "of_noise", b.number(0.0)), to=TensorProto.INT64)
    b.out("drawn_after", "Add", "drawn", "noisy")
    b.out("fresh", "Gather", "noise", "drawn_after")
    parts = [b.out(f"part_{one}", "Mul", f"of_{one}", state) for one, state in
             (("x", "x"), ("denoised", "denoised"), ("before", "before"), ("noise", "fresh"))]  # fmt: skip
    b.out("x_after", "Sum", *parts)
    b.out("go_on", "Identity", "condition")
    b.out("estimate", "Identity", "denoised")
    state = [_value("x", TensorProto.FLOAT, image), _value("before", TensorProto.FLOAT, image),
             _value("drawn", TensorProto.INT64, [])]  # fmt: skip
    body = helper.make_graph(
        b.nodes, "step",
        [_value("index", TensorProto.INT64, []), _value("condition", TensorProto.BOOL, []), *state],
        [_value("go_on", TensorProto.BOOL, []), _value("x_after", TensorProto.FLOAT, image),
         _value("estimate", TensorProto.FLOAT, image), _value("drawn_after", TensorProto.INT64, [])],
        b.initializers,
    )  # fmt: skip
    outer = _Builder("sampler")
    outer.out("first", "Gather", "noise", outer.integer(0))
    outer.out("x_first", "Mul", "start", "first")
    outer.out("nothing", "Mul", "first", outer.number(0.0))
    outer.out("count", "Gather", outer.out("shape_of_rows", "Shape", "rows"), outer.integer(0))
    outer.out("none_drawn", "Identity", outer.integer(0))
    outer.out("true", "Identity", outer.constant(np.array(True)))
    outer.nodes.append(helper.make_node("Loop", ["count", "true", "x_first", "nothing", "none_drawn"],
                                        ["images", "last_estimate", "all_drawn"], body=body))  # fmt: skip
    rows = _value("rows", TensorProto.FLOAT, ["S", len(COLUMNS)])
    noise = _value("noise", TensorProto.FLOAT, ["N", *image])
    graph = helper.make_graph(
        outer.nodes, "sampler",
        [noise, *_wishes(), _value("start", TensorProto.FLOAT, []), rows],
        [_value("images", TensorProto.FLOAT, image)],
        [*part.initializers, *outer.initializers,
         numpy_helper.from_array(np.array(source.table.start, np.float32), "start"),
         numpy_helper.from_array(rows_of(source.table), "rows")],
    )  # fmt: skip
    return part.model(graph)


def rows_of(table: Table) -> np.ndarray[Any, Any]:
    """A table as the input `rows`: float32 [S, 5]."""
    return np.array([[getattr(row, name) for name in COLUMNS] for row in table.rows], np.float32)


def _wishes() -> list[Any]:
    return [_value("label", TensorProto.INT64, ["B"]), _value("guidance", TensorProto.FLOAT, []),
            _value("autoguidance", TensorProto.FLOAT, [])]  # fmt: skip


def _value(name: str, kind: int, shape: Sequence[int | str]) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def _converted(program: ExportedProgram, inputs: Sequence[str], outputs: Sequence[str]) -> ModelProto:
    made = torch.onnx.export(
        program, dynamo=True, input_names=list(inputs), output_names=list(outputs), opset_version=OPSET, verbose=False
    )
    assert made is not None
    model: ModelProto = made.model_proto
    model.ir_version = IR_VERSION
    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    del model.graph.value_info[:]
    return model


class _Builder:
    """Nodes by the names of what they give, and their constants."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []

    def out(self, name: str, kind: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, value: np.ndarray[Any, Any]) -> str:
        name = f"{self.name}/constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(value, name))
        return name

    def integer(self, value: int) -> str:
        return self.constant(np.array(value, np.int64))

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def number(self, value: float) -> str:
        return self.constant(np.array(value, np.float32))


class _Guided:
    """The nodes of `core.images.guidance.guided`; they give `denoised`."""

    def __init__(self, source: ImageSource, networks: Networks) -> None:
        self.source, self.networks, self._builder = source, networks, _Builder("guided")

    @property
    def initializers(self) -> list[TensorProto]:
        return self._builder.initializers

    def model(self, graph: GraphProto) -> ModelProto:
        """A checked model of `graph`."""
        opsets = [helper.make_operatorsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="textdiffusion")
        onnx.checker.check_model(model)
        return model

    def nodes(self, x: str, sigma: str) -> list[NodeProto]:
        b, settings = self._builder, self.source.settings
        b.out("size", "Shape", x, start=0, end=1)
        above = b.out("above", "Greater", sigma, b.number(settings.guidance_low))
        below = b.out("below", "LessOrEqual", sigma, b.number(settings.guidance_high))
        one = b.number(1.0)
        weight = b.out("weight", "Where", b.out("inside", "And", above, below), "guidance", one)
        copies = b.out("copies", "Where", b.out("off", "Equal", weight, one), b.integers(1), b.integers(2))
        both = b.out("both", "Mul", "size", copies)
        b.out("network_x", "Tile", x, b.out("repeats", "Concat", copies, b.integers(1, 1, 1), axis=0))
        b.out("network_sigma", "Expand", sigma, both)
        nothing = b.out("nothing_label", "Expand", b.integer(len(self.source.trained.shape.class_names)), "size")
        labels = b.out("labels", "Concat", "label", nothing, axis=0)
        zero = b.integers(0)
        b.out("network_label", "Slice", labels, zero, both)
        self._add(self.networks.network, "", {})
        b.out("with_class", "Slice", "network_denoised", zero, "size", zero)
        b.out("without", "Slice", "network_denoised", b.out("from", "Sub", both, "size"), both, zero)
        b.out("difference", "Sub", "with_class", "without")
        guided = b.out("guided", "Add", "without", b.out("led", "Mul", weight, "difference"))
        if self.networks.guide is not None:
            guided = self._away_from(self.networks.guide, x, sigma, above)
        b.out("denoised", "Identity", guided)
        return b.nodes

    def _away_from(self, guide: GraphProto, x: str, sigma: str, above: str) -> str:
        b = self._builder
        level = b.out("guide_sigma", "Expand", sigma, "size")
        self._add(guide, "guide/", {"network_x": x, "network_sigma": level, "network_label": "label"})
        one = b.number(1.0)
        strength = b.out("strength", "Sub", b.out("away", "Where", above, "autoguidance", one), one)
        ahead = b.out("ahead", "Sub", "with_class", "guide/network_denoised")
        return b.out("led_away", "Add", "guided", b.out("step_away", "Mul", strength, ahead))

    def _add(self, graph: GraphProto, prefix: str, bound: Mapping[str, str]) -> None:
        """The nodes of a network, all their names after `prefix` but those that are `bound`."""

        def renamed(name: str) -> str:
            return bound.get(name, prefix + name) if name else name

        for node in graph.node:
            copy = NodeProto()
            copy.CopyFrom(node)
            copy.input[:] = [renamed(name) for name in node.input]
            copy.output[:] = [renamed(name) for name in node.output]
            copy.name = prefix + node.name
            self._builder.nodes.append(copy)
        for tensor in graph.initializer:
            weight = TensorProto()
            weight.CopyFrom(tensor)
            weight.name = prefix + tensor.name
            self._builder.initializers.append(weight)
