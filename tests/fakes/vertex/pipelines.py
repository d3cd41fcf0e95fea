"""Pipeline jobs: checked as the service checks them, then executed for real in a child process."""

from __future__ import annotations

import json
import re
import threading
from typing import Any

from google.cloud import aiplatform_v1 as v1
from google.longrunning import operations_pb2
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from tests.fakes.vertex.errors import ServiceError, invalid, not_found
from tests.fakes.vertex.execution import FINISHED, Execution
from tests.fakes.vertex.filters import listed
from tests.fakes.vertex.jobs import ACCOUNT, KEY, NETWORK, Numbers, now

_JOB_ID = re.compile(r"[a-z][-a-z0-9]{0,127}")
_LABEL = re.compile(r"[a-z0-9_-]{0,63}")
_STATE = v1.PipelineState
_TYPES: dict[str, tuple[type, ...]] = {
    "STRING": (str,),
    "NUMBER_INTEGER": (int, float),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": (bool,),
    "LIST": (list,),
    "STRUCT": (dict,),
}


class PipelineService:
    """`projects.locations.pipelineJobs`."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._number = Numbers(1)
        self.jobs: dict[str, v1.PipelineJob] = {}
        self.executions: dict[str, Execution] = {}

    def create_pipeline_job(self, request: v1.CreatePipelineJobRequest) -> v1.PipelineJob:
        job = request.pipeline_job
        spec = self.check(job)
        pipeline = spec["pipelineInfo"]["name"]
        identity = request.pipeline_job_id or f"{pipeline}-{self._number()}"
        if not _JOB_ID.fullmatch(identity):
            raise invalid(f'pipeline_job_id "{identity}" does not match "{_JOB_ID.pattern}".')
        name = f"{request.parent}/pipelineJobs/{identity}"
        if name in self.jobs:
            raise ServiceError("ALREADY_EXISTS", f"Resource {name!r} already exists.")
        job.name, job.state = name, _STATE.PIPELINE_STATE_PENDING
        job.create_time = job.update_time = now()
        self.jobs[name] = job
        self.executions[name] = Execution(self._server, job)
        if not self._server.hold:
            self.executions[name].start()
        return job

    def check(self, job: v1.PipelineJob) -> dict[str, Any]:
        """Refuses a pipeline job that the service would refuse; returns its spec as a dictionary."""
        if not job.pipeline_spec:
            raise invalid("pipeline_spec or template_uri is required.")
        spec: dict[str, Any] = json_format.MessageToDict(v1.PipelineJob.pb(job).pipeline_spec)
        try:
            json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
        except json_format.ParseError as error:
            raise invalid(f"Pipeline spec cannot be parsed: {error}") from None
        root = job.runtime_config.gcs_output_directory
        if not re.fullmatch(r"gs://[a-z0-9][-_.a-z0-9]{1,61}[a-z0-9](/.*)?", root):
            raise invalid(f"runtime_config.gcs_output_directory {root!r} is not a Cloud Storage URI.")
        if not self._server.bucket_exists(root.split("/")[2]):
            raise ServiceError("FAILED_PRECONDITION", f"Bucket {root.split('/')[2]} does not exist.")
        check_parameters(
            spec.get("root", {}).get("inputDefinitions", {}).get("parameters", {}),
            json_format.MessageToDict(v1.PipelineJob.pb(job).runtime_config).get("parameterValues", {}),
        )
        for key, value in job.labels.items():
            if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", key) or not _LABEL.fullmatch(value):
                raise invalid(f"Label {key}={value!r} is not valid.")
        for what, value, pattern in (
            ("service_account", job.service_account, ACCOUNT),
            ("network", job.network, NETWORK),
            ("encryption_spec.kms_key_name", job.encryption_spec.kms_key_name, KEY),
        ):
            if value and not pattern.fullmatch(value):
                raise invalid(f"{what} {value!r} is not valid.")
        return spec

    def get_pipeline_job(self, request: v1.GetPipelineJobRequest) -> v1.PipelineJob:
        return self._find(request.name)

    def list_pipeline_jobs(self, request: v1.ListPipelineJobsRequest) -> v1.ListPipelineJobsResponse:
        found, token = listed(self.jobs.values(), request)
        return v1.ListPipelineJobsResponse(pipeline_jobs=found, next_page_token=token)

    def cancel_pipeline_job(self, request: v1.CancelPipelineJobRequest) -> None:
        job = self._find(request.name)
        if job.state in FINISHED:
            raise ServiceError("FAILED_PRECONDITION", f"{job.name} is already {job.state.name}.")
        job.state = _STATE.PIPELINE_STATE_CANCELLING
        threading.Thread(target=self.executions[job.name].cancel, daemon=True).start()

    def delete_pipeline_job(self, request: v1.DeletePipelineJobRequest) -> operations_pb2.Operation:
        job = self._find(request.name)
        if job.state not in FINISHED:
            raise ServiceError("FAILED_PRECONDITION", f"{job.name} is {job.state.name}; cancel it first.")
        del self.jobs[job.name]
        return self._server.operations.done(job.name.rpartition("/pipelineJobs")[0], None, v1.DeleteOperationMetadata())

    def _find(self, name: str) -> v1.PipelineJob:
        if name not in self.jobs:
            raise not_found(name)
        return self.jobs[name]


def check_parameters(definitions: dict[str, Any], values: dict[str, Any]) -> None:
    for name in values:
        if name not in definitions:
            raise invalid(f"The pipeline parameter {name} is not found in the pipeline job input definitions.")
    for name, definition in definitions.items():
        if name not in values:
            if "defaultValue" not in definition and not definition.get("isOptional"):
                raise invalid(f"The pipeline parameter {name} is required.")
            continue
        kind, value = definition["parameterType"], values[name]
        wrong = not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "BOOLEAN")
        if wrong or (kind == "NUMBER_INTEGER" and float(value) != int(value)):
            raise invalid(f"Parameter {name} must be of type {kind}, found {json.dumps(value)}.")
