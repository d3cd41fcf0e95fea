"""Training on Vertex: a component as a custom job, with its own machines, spot prices and restarts.

Wrap a component before the pipeline that uses it is traced: inside a pipeline function the wrapper would be taken
for a task of that pipeline.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from components.step import IMAGE
from core.config import Frozen, ResourcesConfig, config_hash
from core.processes.accelerators import EXPECTED
from factory.job import AnyJob
from pipelines.jobs import sections
from pipelines.machines import Machine
from pipelines.settings import Settings


class VertexOptions(Frozen):
    """What a project decides for all its custom jobs; empty: Vertex's own default."""

    service_account: str = ""
    network: str = ""
    encryption_key: str = ""
    tensorboard: str = ""
    output: str = Field(default="", description="gs:// folder for what TensorBoard shows")
    labels: dict[str, str] = Field(default_factory=dict)
    env: dict[str, str] = Field(default_factory=dict)
    boot_disk_gb: int = Field(default=100, ge=100, le=64_000)

    def without_board(self) -> VertexOptions:
        """The same for a job that writes no curves."""
        return self.model_copy(update={"tensorboard": "", "output": ""})

    def environment(self, machine: Machine) -> list[dict[str, str]]:
        """The environment of a container on `machine`, as worker pools state it."""
        given = {"TEXTDIFFUSION_IMAGE": IMAGE, EXPECTED: str(machine.accelerator_count), **self.env}
        return [{"name": name, "value": value} for name, value in given.items()]


def options_of(settings: Settings, job: AnyJob) -> VertexOptions:
    """What the settings say about custom jobs.

    TensorBoard's folder is named after what is trained and not after the run: it is an input of the training step, and
    another one each time would keep that step out of the cache.
    """
    bucket = (settings.bucket or "").removeprefix("gs://").rstrip("/")
    shown = bool(settings.tensorboard and bucket)
    return VertexOptions(
        service_account=settings.service_account or "",
        network=settings.network or "",
        encryption_key=settings.encryption_key or "",
        tensorboard=settings.tensorboard or "",
        output=f"gs://{bucket}/tensorboard/{job.job}-{config_hash(sections(job))}" if shown else "",
        labels=settings.labels,
    )


def custom_job(
    component: Any, machine: Machine, resources: ResourcesConfig, options: VertexOptions, *, retries: bool = False
) -> Any:
    """`component` as a component of the same name, inputs and outputs that runs as a Vertex custom job.

    Args:
        component: what is wrapped.
        machine: what it runs on.
        resources: spot or not, replicas, the time limit.
        options: what the project decides.
        retries: whether the service may begin a failed worker again, on machines that are not spot.
    """
    from google_cloud_pipeline_components.v1.custom_job import create_custom_training_job_from_component

    wrapped = create_custom_training_job_from_component(
        component,
        display_name=component.name,
        replica_count=resources.replicas,
        machine_type=machine.machine_type,
        accelerator_type=machine.accelerator_type or "",
        accelerator_count=machine.accelerator_count or 1,
        boot_disk_size_gb=options.boot_disk_gb,
        timeout=f"{round(resources.timeout_hours * 3600)}s",
        restart_job_on_worker_restart=resources.spot,
        strategy="SPOT" if resources.spot else "STANDARD",
        service_account=options.service_account,
        network=options.network,
        encryption_spec_key_name=options.encryption_key,
        tensorboard=options.tensorboard,
        base_output_directory=f"{options.output}/{component.name}" if options.output else "",
        labels=options.labels,
        env=options.environment(machine),
    )
    arguments = wrapped.component_spec.implementation.container.args
    arguments[:] = [part if resources.spot or retries else _without_retries(part) for part in arguments]
    wrapped.name = wrapped.component_spec.name = component.name
    return wrapped


def _without_retries(argument: Any) -> Any:
    """The launcher's payload with `Scheduling.disable_retries`, for which the wrapper has no argument: else a worker
    that exits non-zero is started again, five times, at the full price each."""
    head = '"scheduling": {'
    return argument.replace(head, f'{head}"disable_retries": true, ', 1) if isinstance(argument, str) else argument
