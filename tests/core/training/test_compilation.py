"""What train.compile needs is said before a training begins."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import nn

from core.errors import UserError
from core.training.compilation import FORMS, compiled


@pytest.mark.parametrize(("device", "variable", "named"), [("cuda", "CC", "gcc or clang"), ("cpu", "CXX", "g\\+\\+")])
def test_a_machine_without_a_compiler_is_refused(
    device: str, variable: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(UserError, match=f"train.compile: torch needs a compiler, {named}"):
        compiled(nn.Linear(2, 2), torch.device(device))


def test_every_form_of_a_network_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "named")
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 8)
    compiled(nn.Linear(2, 2), torch.device("cpu"))
    assert torch._dynamo.config.recompile_limit == FORMS
