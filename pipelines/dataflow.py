"""Where Apache Beam runs for a step that was told to use it: on machines of Dataflow, or on the step's own.

The step submits the job itself, waits for it and cancels it (core/processes/beam.py), so the pipeline has the same
steps on every service. Google's Dataflow component would be another graph on Vertex AI alone, and would launch a
program that is no step of ours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from components.step import BEAM_IMAGE
from core.processes import beam
from factory.job import AnyJob
from pipelines.checks import executors, section_of
from pipelines.machines import Price
from pipelines.settings import Settings

APIS = ("dataflow.googleapis.com",)
PERMISSIONS = {"dataflow.jobs.create": "roles/dataflow.developer", "dataflow.jobs.cancel": "roles/dataflow.developer"}

CPU_HOUR, GB_HOUR = 0.056, 0.003557  # USD of a worker's vCPU and of a GB of its memory, batch, us-central1
PRICE = Price(machine=CPU_HOUR, accelerator=0, verified=False, date=date(2026, 11, 28), source="Dataflow: from memory")
GB_A_CPU = {"standard": 4.0, "highmem": 8.0, "highcpu": 1.0}  # at most, of any family
_SIZE = re.compile(r"[a-z0-9]+-(standard|highmem|highcpu)-(\d+)")


@dataclass(frozen=True)
class Workers:
    """The most machines that Dataflow starts for a step."""

    count: int
    machine_type: str

    @property
    def cpus(self) -> int | None:
        """vCPUs of one; None where the name does not say."""
        size = _SIZE.fullmatch(self.machine_type)
        return int(size[2]) if size else None

    @property
    def usd_per_hour(self) -> float | None:
        """Of all of them; None where the name does not say how large one is."""
        size = _SIZE.fullmatch(self.machine_type)
        return self.count * int(size[2]) * (CPU_HOUR + GB_A_CPU[size[1]] * GB_HOUR) if size else None

    def __str__(self) -> str:
        return f"{self.count} x {self.machine_type} of Dataflow"


def workers_of(spec: Mapping[str, Any]) -> dict[str, Workers]:
    """What the steps of a compiled pipeline ask of Dataflow."""
    found = {}
    for step, container in executors(spec):
        variables = {item["name"]: item["value"] for item in container.get("env", [])}
        options = json.loads(variables.get(beam.OPTIONS, "{}"))
        if options:
            count = section_of(spec, "data")["shards"].get("workers") or options["max_num_workers"]
            found[step] = Workers(int(count), str(options["machine_type"]))
    return found


def uses_beam(job: AnyJob) -> bool:
    """Whether a step of the job is to run Beam."""
    shards = getattr(job.data, "shards", None)
    return shards is not None and shards.engine == "beam"


def beam_options(job: AnyJob, settings: Settings, image: str, endpoint: str = "") -> str | None:
    """What `core.processes.beam.OPTIONS` is set to: Dataflow's options as JSON, `{}` for the step's own machine; None
    where no step runs Beam.

    Args:
        job: that is compiled.
        settings: name project, region and bucket, and `dataflow` if it is to be used.
        image: the image of the steps with its tag.
        endpoint: a server that answers for Google Cloud, as in the tests.

    Raises:
        UserError: Dataflow is to be used, and a setting that it needs is not set.
    """
    if not uses_beam(job):
        return None
    if settings.dataflow is None:
        return "{}"
    dataflow = settings.dataflow
    root = f"gs://{settings.require('bucket').removeprefix('gs://').rstrip('/')}/dataflow"
    options: dict[str, Any] = {
        "runner": "DataflowRunner",
        "project": settings.require("project"),
        "region": settings.require("region"),
        "temp_location": f"{root}/temp",
        "staging_location": f"{root}/staging",
        "service_account_email": settings.service_account,
        "sdk_container_image": f"{image}{BEAM_IMAGE}",
        "machine_type": dataflow.machine_type,
        "max_num_workers": dataflow.workers,
        "subnetwork": dataflow.subnetwork,
        "no_use_public_ips": not dataflow.public_ips or None,
        "dataflow_kms_key": settings.encryption_key,
        "labels": [f"{name}={value}" for name, value in settings.labels.items()] or None,
    }
    if endpoint:
        options |= {"dataflow_endpoint": endpoint, "no_auth": True}
    return json.dumps({name: value for name, value in options.items() if value is not None}, sort_keys=True)
