"""torch's optimizers without torch's compiler.

They import it (torch._dynamo: some five seconds of CPU time) only to tell it to leave them alone, even where nothing is
compiled. What they compute is the same without.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer

_step: Callable[..., Any] = inspect.unwrap(torch.optim.Adam.step)
_TOLD = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")  # methods that the compiler is told of


def stay_eager() -> None:
    """Lets the methods of all optimizers run as they are, unless the compiler is here already."""
    if "torch._dynamo" in sys.modules:
        return
    for name in _TOLD:
        method = inspect.unwrap(getattr(Optimizer, name))
        method.__dict__.setdefault("__dynamo_disable", method)  # where torch._disable_dynamo keeps what it calls


class AdamW(torch.optim.AdamW):
    """torch.optim.AdamW, for eager training."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        stay_eager()
        super().__init__(*arguments, **named)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step; `closure` as in torch."""
        return _step(self, closure)
