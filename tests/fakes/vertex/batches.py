"""Batch prediction jobs: JSON lines of the bucket, asked of a real container; answers as the service writes them."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from itertools import islice
from typing import Any

from google.cloud import aiplatform_v1 as v1
from google.longrunning import operations_pb2
from google.protobuf import json_format
from google.rpc import code_pb2

from tests.fakes.vertex.endpoints import check_labels
from tests.fakes.vertex.errors import ServiceError, invalid, not_found
from tests.fakes.vertex.filters import listed
from tests.fakes.vertex.jobs import ACCOUNT, Numbers, now
from tests.fakes.vertex.machines import check_machine

_URI = re.compile(r"gs://[a-z0-9][-_.a-z0-9]{1,61}[a-z0-9]/.+")
_STATE = v1.JobState


class BatchService:
    """`projects.locations.batchPredictionJobs`."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._number = Numbers(2_000_000_000_000_000_001)
        self.jobs: dict[str, v1.BatchPredictionJob] = {}

    def create_batch_prediction_job(self, request: v1.CreateBatchPredictionJobRequest) -> v1.BatchPredictionJob:
        job = request.batch_prediction_job
        if not job.display_name:
            raise invalid("batch_prediction_job.display_name is required.")
        model = self._server.models.get_model(v1.GetModelRequest(name=job.model))
        self._check(job, model)
        job.name, job.model_version_id = f"{request.parent}/batchPredictionJobs/{self._number()}", model.version_id
        job.state, job.create_time = _STATE.JOB_STATE_PENDING, now()
        self.jobs[job.name] = job
        threading.Thread(target=self._run, args=(job, model), daemon=True).start()
        return job

    def get_batch_prediction_job(self, request: v1.GetBatchPredictionJobRequest) -> v1.BatchPredictionJob:
        if request.name not in self.jobs:
            raise not_found(request.name)
        return self.jobs[request.name]

    def list_batch_prediction_jobs(
        self, request: v1.ListBatchPredictionJobsRequest
    ) -> v1.ListBatchPredictionJobsResponse:
        found, token = listed(self.jobs.values(), request)
        return v1.ListBatchPredictionJobsResponse(batch_prediction_jobs=found, next_page_token=token)

    def cancel_batch_prediction_job(self, request: v1.CancelBatchPredictionJobRequest) -> None:
        job = self.get_batch_prediction_job(v1.GetBatchPredictionJobRequest(name=request.name))
        if job.end_time:
            raise ServiceError("FAILED_PRECONDITION", f"{job.name} is already {job.state.name}.")
        job.state, job.end_time = _STATE.JOB_STATE_CANCELLED, now()

    def delete_batch_prediction_job(self, request: v1.DeleteBatchPredictionJobRequest) -> operations_pb2.Operation:
        job = self.get_batch_prediction_job(v1.GetBatchPredictionJobRequest(name=request.name))
        if not job.end_time:
            raise ServiceError("FAILED_PRECONDITION", f"{job.name} is {job.state.name}; cancel it first.")
        del self.jobs[job.name]
        parent = job.name.rpartition("/batchPredictionJobs")[0]
        return self._server.operations.done(parent, None, v1.DeleteOperationMetadata())

    def _check(self, job: v1.BatchPredictionJob, model: v1.Model) -> None:
        source, target = job.input_config, job.output_config
        if source.instances_format not in model.supported_input_storage_formats:
            raise invalid(f"instances_format {source.instances_format!r} is not supported by the model.")
        if target.predictions_format not in model.supported_output_storage_formats:
            raise invalid(f"predictions_format {target.predictions_format!r} is not supported by the model.")
        if (source.instances_format, target.predictions_format) != ("jsonl", "jsonl"):
            raise ServiceError("UNIMPLEMENTED", "Only jsonl is served here.")
        uris = [*source.gcs_source.uris, f"{target.gcs_destination.output_uri_prefix.rstrip('/')}/"]
        if len(uris) < 2:
            raise invalid("input_config.gcs_source.uris is required.")
        for uri in uris:
            if not _URI.fullmatch(uri) or not self._server.bucket_exists(uri.split("/")[2]):
                raise invalid(f"{uri!r} is not in a bucket that exists.")
        resources = job.dedicated_resources
        if not resources.machine_spec.machine_type:
            raise invalid("dedicated_resources is required: the model does not support AUTOMATIC_RESOURCES.")
        machine = resources.machine_spec
        accelerator = machine.accelerator_type.name if machine.accelerator_type else ""
        check_machine(machine.machine_type, accelerator, machine.accelerator_count)
        if resources.starting_replica_count > (resources.max_replica_count or 10):
            raise invalid("starting_replica_count must not be greater than max_replica_count.")
        if job.service_account and not ACCOUNT.fullmatch(job.service_account):
            raise invalid(f"service_account {job.service_account!r} is not valid.")
        check_labels(job.labels)

    def _run(self, job: v1.BatchPredictionJob, model: v1.Model) -> None:
        try:
            container = self._server.endpoints.started(model, {"AIP_MODE": "BATCH"})
        except ServiceError as error:
            return self._end(job, _STATE.JOB_STATE_FAILED, error.message)
        try:
            with self._server.lock:
                if job.end_time:  # cancelled meanwhile
                    return
                job.state, job.start_time = _STATE.JOB_STATE_RUNNING, now()
            plain = json_format.MessageToDict(v1.BatchPredictionJob.pb(job))
            below = {"parameters": plain["modelParameters"]} if "modelParameters" in plain else {}
            answers, errors = [], []
            lines, size = self._lines(job), job.manual_batch_tuning_parameters.batch_size or 64
            while some := list(islice(lines, size)):
                container.reserve()
                try:
                    said = container.predict({"instances": some, **below})["predictions"]
                    answers += [{"instance": a, "prediction": b} for a, b in zip(some, said, strict=True)]
                except ServiceError as error:
                    status = {"code": code_pb2.Code.Value(error.status), "message": error.message}
                    errors += [{"instance": one, "error": status} for one in some]
            self._write(job, model, answers, errors)
        finally:
            container.close()

    def _lines(self, job: v1.BatchPredictionJob) -> Iterator[Any]:
        for uri in job.input_config.gcs_source.uris:
            bucket, _, name = uri.removeprefix("gs://").partition("/")
            for line in self._server.gcs.client().bucket(bucket).blob(name).download_as_text().splitlines():
                if line.strip():
                    yield json.loads(line)

    def _write(self, job: v1.BatchPredictionJob, model: v1.Model, answers: list[Any], errors: list[Any]) -> None:
        stamp = job.create_time.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        prefix = job.output_config.gcs_destination.output_uri_prefix.rstrip("/")
        folder = f"{prefix}/prediction-{model.display_name}-{stamp}"
        bucket, _, below = folder.removeprefix("gs://").partition("/")
        for kind, rows in (("predictions", answers), ("errors", errors)):
            if rows:
                text = "".join(json.dumps(row) + "\n" for row in rows)
                self._server.gcs.client().bucket(bucket).blob(f"{below}/{kind}_0001.jsonl").upload_from_string(text)
        with self._server.lock:
            job.output_info.gcs_output_directory = folder
            job.completion_stats.successful_count, job.completion_stats.failed_count = len(answers), len(errors)
            if not answers:
                return self._end(job, _STATE.JOB_STATE_FAILED, "All instances failed to run prediction.")
            self._end(job, _STATE.JOB_STATE_SUCCEEDED)

    def _end(self, job: v1.BatchPredictionJob, state: v1.JobState, message: str = "") -> None:
        with self._server.lock:
            if not job.end_time:
                job.state, job.end_time = state, now()
                if message:
                    job.error.code, job.error.message = 3, message
