"""Where the steps of a pipeline run, and the pipeline's parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from components.step import BEAM_IMAGE, IMAGE, TRAIN_JOB, variant
from core.config import ResourcesConfig
from core.processes import beam
from core.processes.accelerators import EXPECTED, IN_POD
from factory.steps import STEPS
from pipelines.custom_job import VertexOptions, custom_job
from pipelines.machines import Machine, choose
from pipelines.pods import in_pod

Target = Literal["local", "vertex"]  # "local" is also what Kubeflow runs


@dataclass(frozen=True)
class Placement:
    """Where steps run: the machines that a job chose, on one of the targets."""

    target: Target
    machines: Mapping[str, Machine]
    resources: ResourcesConfig
    options: VertexOptions = field(default_factory=VertexOptions)
    nodes: str = ""  # of Kubeflow: the TrainJob by which the job's own trainings run on several; empty: in their pod
    beam: str | None = None  # options of Beam as JSON for the step that prepares data; None: it uses none

    def training(self, component: Any, artifacts: Collection[str] = ()) -> Any:
        """The component that trains: a custom job on Vertex, itself elsewhere. Call it outside of a pipeline.

        Args:
            component: one that trains.
            artifacts: the optional artifacts that it is given.
        """
        given = variant(component, artifacts)
        if self.target != "vertex":
            return given
        return custom_job(given, self.machine("train"), self.resources, self.options)

    def step(self, component: Any, *, outputs: Collection[str] = (), **inputs: Any) -> Any:
        """Adds a step to the pipeline, with the machine and the caching that `STEPS` says; returns its task.

        Args:
            component: of components/, or what `training` returned.
            outputs: the optional outputs that it is to have.
            inputs: its inputs; the optional artifacts that are not among them are no inputs of the step.
        """
        if not hasattr(component, "python_func"):
            return component(**inputs)  # a custom job carries its machine; the task is only its launcher
        step, made = STEPS[component.name], variant(component, {*inputs, *outputs})
        machine = self.machine(step.machine)
        if self.target == "vertex" and machine.accelerator_type:  # so that it has a time limit, and its very machine
            with _outside_of_pipelines():
                made = custom_job(made, machine, self.resources.alone(), self.options.without_board())
            task = made(**inputs)
            return task if step.cached else task.set_caching_options(enable_caching=False)
        if runs_beam := self.beam is not None and step.name == "prepare-data":
            made.component_spec.implementation.container.image = f"{IMAGE}{BEAM_IMAGE}"
        task = made(**inputs)
        task.set_env_variable("TEXTDIFFUSION_IMAGE", IMAGE)
        if runs_beam:
            task.set_env_variable(beam.OPTIONS, str(self.beam))
        if self.nodes and step.budget:
            machine = self.machine("cpu").waiting()
            task.set_env_variable(TRAIN_JOB, self.nodes)
        if machine.accelerator_type:
            name = EXPECTED if self.target == "vertex" else IN_POD
            task.set_env_variable(name, str(machine.accelerator_count))
        task.set_cpu_limit(str(machine.cpu))
        if self.target == "vertex":
            task.set_memory_limit(f"{machine.memory_gb}G")
        else:
            in_pod(task, machine, seconds=round(self.resources.timeout_hours * 3600) if step.cost == "trains" else 0)
        if not step.cached:
            task.set_caching_options(enable_caching=False)
        return task

    def machine(self, kind: str) -> Machine:
        """The row of resources.yaml for `kind`, a key of the job's resources."""
        return choose(self.machines, str(getattr(self.resources, kind)), f"resources.{kind}")


@contextmanager
def _outside_of_pipelines() -> Iterator[None]:
    """While a component is wrapped inside a pipeline function: else it would be taken for a task of that pipeline."""
    from kfp.dsl.pipeline_context import Pipeline

    inside, Pipeline._default_pipeline = Pipeline._default_pipeline, None
    try:
        yield
    finally:
        Pipeline._default_pipeline = inside


def pipeline(
    name: str, *, description: str | None = None, like: Any = None, without: Collection[str] = ()
) -> Callable[[Callable[..., None]], Any]:
    """Makes a KFP pipeline of a function, which is called with its parameters by name.

    Args:
        name: of the pipeline.
        description: of the pipeline.
        like: another pipeline, whose parameters it has; None: the function's own.
        without: parameters that it does not have; the function gets None for them.
    """
    from kfp import dsl

    def make(function: Callable[..., None]) -> Any:
        own = inspect.signature(function).parameters
        source = inspect.signature(like.pipeline_func).parameters if like is not None else own
        kept = [parameter for key, parameter in source.items() if key not in without]
        absent = dict.fromkeys(set(own) & set(without))

        def traced(*values: Any) -> None:
            function(**absent, **dict(zip((parameter.name for parameter in kept), values, strict=True)))

        traced.__signature__ = inspect.Signature(kept, return_annotation=None)  # type: ignore[attr-defined]
        return dsl.pipeline(name=name, description=description)(traced)

    return make
