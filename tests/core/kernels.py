"""Which number formats a kernel is called in."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Kernels(TorchDispatchMode):
    """`seen`: formats of the first argument of kernels whose name holds `name`."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.seen: set[torch.dtype] = set()

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        if self.name in str(function):
            self.seen.add(arguments[0].dtype)
        return function(*arguments, **(named or {}))
