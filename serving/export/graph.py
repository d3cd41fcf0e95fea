"""A traced program as JSON: every operation by its name in torch, so that a loop over them runs the network anywhere.

A node is [name, operation, arguments, keywords]. In its arguments {"of": NAME} is an input, a weight or an earlier
node, {"torch": NAME} a dtype or a memory format; everything else is itself. Weights are safetensors by name. No code is
stored: an operation is looked up by its name in torch or among Python's operators.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

Node = list[Any]


@dataclass(frozen=True)
class Graph:
    """Operations in order, the names of inputs and outputs, and the weights that the operations name."""

    inputs: list[str]
    nodes: list[Node]
    outputs: list[str]
    weights: dict[str, Tensor]

    def json(self) -> dict[str, Any]:
        """As configuration files have it; the weights are files of their own."""
        return {"inputs": self.inputs, "outputs": self.outputs, "graph": self.nodes}


def graph_of(program: ExportedProgram) -> Graph:
    """What `program` does, without checks of shapes and whatever no output needs."""
    signature = program.graph_signature
    stored = {**signature.inputs_to_parameters, **signature.inputs_to_buffers,
              **signature.inputs_to_lifted_tensor_constants}  # fmt: skip
    tensors: Mapping[str, Any] = {**program.state_dict, **program.constants}
    needed: set[torch.fx.Node] = set()
    kept: list[torch.fx.Node] = []
    for node in reversed(program.graph.nodes):
        if node.op == "output" or node in needed:
            needed.update(node.all_input_nodes)
            kept.insert(0, node)
    inputs = [node.name for node in program.graph.nodes if node.op == "placeholder" and node.name not in stored]
    nodes: list[Node] = []
    outputs: list[str] = []
    weights: dict[str, Tensor] = {}
    for node in kept:
        if node.op == "output":
            outputs = [one.name for one in node.all_input_nodes]
        elif node.op == "call_function":
            keywords = [[key, _argument(value, stored)] for key, value in node.kwargs.items() if key not in _PLACES]
            nodes.append([node.name, _name(node.target), _argument(node.args, stored), keywords])
        elif node.name in stored:
            weights[stored[node.name]] = tensors[stored[node.name]].detach().contiguous().clone()
    return Graph(inputs, nodes, outputs, weights)


_PLACES = {"device", "layout", "pin_memory"}
"""Keywords of where a tensor lies, which is for whoever runs the graph to say."""


def _name(target: Any) -> str:
    if isinstance(target, torch._ops.OpOverload):
        return f"torch.ops.{target}"
    module = "operator" if target.__module__ == "_operator" else target.__module__.partition(".")[0]
    return f"{module}.{target.__name__}"


def _argument(value: Any, stored: Mapping[str, str]) -> Any:
    if isinstance(value, torch.fx.Node):
        return {"of": stored.get(value.name, value.name)}
    if isinstance(value, list | tuple):
        return [_argument(one, stored) for one in value]
    if isinstance(value, torch.dtype | torch.memory_format):
        return {"torch": str(value).removeprefix("torch.")}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{value!r} has no place in a graph of JSON")


def run(config: Mapping[str, Any], weights: Mapping[str, Tensor], **inputs: Tensor) -> list[Tensor]:
    """The outputs of a graph as `json` has it: what the script of the documentation does."""
    values: dict[str, Any] = {**weights, **inputs}

    def look(one: Any) -> Any:
        if isinstance(one, dict):
            return values[one["of"]] if "of" in one else getattr(torch, one["torch"])
        return [look(inner) for inner in one] if isinstance(one, list) else one

    places = SimpleNamespace(torch=torch, operator=operator)
    for name, operation, arguments, keywords in config["graph"]:
        values[name] = operator.attrgetter(operation)(places)(*look(arguments), **dict(look(keywords)))
    return [values[name] for name in config["outputs"]]
