"""The table of steps says what the components, the compiled pipelines and the modules of core say."""

from __future__ import annotations

import importlib.util

import pytest

from components.step import load
from factory.steps import STEPS, Step, step_of


@pytest.mark.parametrize("step", STEPS.values(), ids=list(STEPS))
def test_a_row_is_what_its_component_is(step: Step) -> None:
    component = load(step.name)
    assert component.name == step.name
    assert step.artifact in (*(component.component_spec.outputs or {}), "")


@pytest.mark.parametrize("step", STEPS.values(), ids=list(STEPS))
def test_what_a_step_imports_is_there(step: Step) -> None:
    assert all(importlib.util.find_spec(name) for mode in ("images", "text") for name in step.imports(mode))


def test_an_iteration_of_a_loop_is_its_step() -> None:
    assert step_of("trial-12") is STEPS["trial"]
    assert step_of("condition-branches-1") is None
