"""Where Apache Beam runs for a step that was told to use it: on machines of Dataflow, or on the step's own.

The step submits the job itself, waits for it and cancels it (core/processes/beam.py), so the pipeline has the same
steps on every service. Google's Dataflow component would be another graph on Vertex AI alone, and would launch a
program that is no step of ours.
"""

from __future__ import annotations

import json
from typing import Any

from components.step import BEAM_IMAGE
from factory.job import AnyJob
from pipelines.settings import Settings

APIS = ("dataflow.googleapis.com",)
PERMISSIONS = {"dataflow.jobs.create": "roles/dataflow.developer", "dataflow.jobs.cancel": "roles/dataflow.developer"}


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
