"""Custom jobs and their log entries."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from google.cloud import aiplatform_v1 as v1

from tests.fakes.vertex.errors import invalid, not_found
from tests.fakes.vertex.filters import listed, page, select
from tests.fakes.vertex.machines import check_machine

ACCOUNT = re.compile(r"[^@\s]+@[^@\s]+\.gserviceaccount\.com")
NETWORK = re.compile(r"projects/[^/]+/global/networks/[^/]+")
KEY = re.compile(r"projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+")
_TENSORBOARD = re.compile(r"projects/[^/]+/locations/[^/]+/tensorboards/\d+")
_URI = re.compile(r"gs://[a-z0-9][-_.a-z0-9]{1,61}[a-z0-9](/.*)?")
_ONE_OF = re.compile(r'\s+AND resource\.labels\.job_id=\(("[^"]*"(?: OR "[^"]*")*)\)')
_SEVERITY = re.compile(r"\b(DEBUG|INFO|WARNING|ERROR|CRITICAL)\b|(Error|Exception)\b.*:")


def now() -> datetime:
    return datetime.now(UTC)


def accelerators(job: v1.CustomJob) -> Counter[tuple[str, str]]:
    """How many a job holds, by region and quota metric."""
    spot = "preemptible_" if job.job_spec.scheduling.strategy == v1.Scheduling.Strategy.SPOT else ""
    counted: Counter[tuple[str, str]] = Counter()
    for pool in job.job_spec.worker_pool_specs:
        if kind := pool.machine_spec.accelerator_type:
            name = kind.name.lower().removeprefix("nvidia_").removeprefix("tesla_").replace("h100_80gb", "h100")
            metric = f"aiplatform.googleapis.com/custom_model_training_{spot}nvidia_{name}_gpus"
            counted[job.name.split("/")[3], metric] += pool.machine_spec.accelerator_count * int(pool.replica_count)
    return counted


class Numbers:
    """Numeric resource ids, as the service draws them (never reused)."""

    def __init__(self, start: int) -> None:
        self._counter = itertools.count(start)

    def __call__(self) -> str:
        return str(next(self._counter))


class JobService:
    """`projects.locations.customJobs`: checked, kept and moved through their states by whoever runs them.

    `tensorboards` are the names of the TensorBoard instances there are; `quota` is how many accelerators the project
    may hold at once, by region and metric. A job that finds too few left is queued until others have ended.
    """

    def __init__(self) -> None:
        self.jobs: dict[str, v1.CustomJob] = {}
        self.quota: dict[tuple[str, str], int] = {}
        self.tensorboards: set[str] = set()
        self._number = Numbers(5_000_000_000_000_000_001)

    def create_custom_job(self, request: v1.CreateCustomJobRequest) -> v1.CustomJob:
        job = request.custom_job
        if not job.display_name:
            raise invalid("custom_job.display_name is required.")
        self.check_pools(job.job_spec.worker_pool_specs)
        self._check_places(job)
        job.name = f"{request.parent}/customJobs/{self._number()}"
        job.state = v1.JobState.JOB_STATE_QUEUED
        job.create_time = job.update_time = now()
        self.jobs[job.name] = job
        self._admit()
        return job

    def _admit(self) -> None:
        """Lets queued jobs go on for which there is quota, in their order."""
        held: Counter[tuple[str, str]] = Counter()
        for job in self.jobs.values():
            if job.state in (v1.JobState.JOB_STATE_PENDING, v1.JobState.JOB_STATE_RUNNING):
                held.update(accelerators(job))
        for job in self.jobs.values():
            asked = accelerators(job)
            if job.state == v1.JobState.JOB_STATE_QUEUED and all(
                held[key] + count <= self.quota.get(key, held[key] + count) for key, count in asked.items()
            ):
                job.state, job.update_time = v1.JobState.JOB_STATE_PENDING, now()
                held.update(asked)

    def check_pools(self, pools: Any) -> None:
        """Refuses worker pools that the service refuses.

        Raises:
            ServiceError: INVALID_ARGUMENT.
        """
        if not pools:
            raise invalid("worker_pool_specs is required.")
        for pool in pools:
            machine = pool.machine_spec
            accelerator = "" if not machine.accelerator_type else machine.accelerator_type.name
            check_machine(machine.machine_type, accelerator, machine.accelerator_count)
            if not pool.container_spec.image_uri and not pool.python_package_spec.executor_image_uri:
                raise invalid("container_spec.image_uri is required.")
            if pool.replica_count < 1:
                raise invalid("worker_pool_specs.replica_count must be at least 1.")
        if pools[0].replica_count != 1:
            raise invalid("worker_pool_specs[0].replica_count must be 1: the first pool is the primary replica.")

    def _check_places(self, job: v1.CustomJob) -> None:
        spec = job.job_spec
        for what, value, pattern in (
            ("service_account", spec.service_account, ACCOUNT),
            ("network", spec.network, NETWORK),
            ("tensorboard", spec.tensorboard, _TENSORBOARD),
            ("encryption_spec.kms_key_name", job.encryption_spec.kms_key_name, KEY),
            ("base_output_directory", spec.base_output_directory.output_uri_prefix, _URI),
        ):
            if value and not pattern.fullmatch(value):
                raise invalid(f"{what} {value!r} is not valid.")
        if spec.tensorboard and not spec.service_account:
            raise invalid("service_account is required when tensorboard is set.")
        if spec.tensorboard and not spec.base_output_directory.output_uri_prefix:
            raise invalid("base_output_directory is required when tensorboard is set.")
        if spec.tensorboard and spec.tensorboard not in self.tensorboards:
            raise not_found(spec.tensorboard)

    def start(self, name: str) -> None:
        job = self.jobs[name]
        job.state, job.start_time, job.update_time = v1.JobState.JOB_STATE_RUNNING, now(), now()

    def finish(self, name: str, state: v1.JobState, message: str = "") -> None:
        job = self.jobs[name]
        job.state, job.end_time, job.update_time = state, now(), now()
        if message:
            job.error.code, job.error.message = 3, message

    def get_custom_job(self, request: v1.GetCustomJobRequest) -> v1.CustomJob:
        if request.name not in self.jobs:
            raise not_found(request.name)
        self._admit()
        return self.jobs[request.name]

    def list_custom_jobs(self, request: v1.ListCustomJobsRequest) -> v1.ListCustomJobsResponse:
        found, token = listed(self.jobs.values(), request)
        return v1.ListCustomJobsResponse(custom_jobs=found, next_page_token=token)

    def cancel_custom_job(self, request: v1.CancelCustomJobRequest) -> None:
        if request.name not in self.jobs:
            raise not_found(request.name)
        self.finish(request.name, v1.JobState.JOB_STATE_CANCELLED)


class TensorboardService:
    """`projects.locations.tensorboards`, as far as looking one up goes."""

    def __init__(self, jobs: JobService) -> None:
        self._jobs = jobs

    def get_tensorboard(self, request: v1.GetTensorboardRequest) -> v1.Tensorboard:
        if request.name not in self._jobs.tensorboards:
            raise not_found(request.name)
        return v1.Tensorboard(name=request.name, display_name="board")


class LogService:
    """Cloud Logging's `entries:list` over the lines that the steps printed."""

    def __init__(self, project: str) -> None:
        self.project = project
        self.entries: list[dict[str, Any]] = []
        self._identity = itertools.count(1)

    def write(self, job: str, text: str, *, when: datetime | None = None) -> None:
        """One line of the job whose resource name is `job`."""
        found = _SEVERITY.search(text)
        severity = "ERROR" if found and found[2] else found[1] if found else "INFO"
        self.entries.append(
            {
                "insertId": f"line{next(self._identity):012d}",
                "logName": f"projects/{self.project}/logs/workerpool0-0",
                "resource": {
                    "type": "ml_job",
                    "labels": {
                        "job_id": job.rsplit("/", 1)[1],
                        "project_id": self.project,
                        "task_name": "workerpool0-0",
                    },
                },
                "timestamp": (when or now()).isoformat().replace("+00:00", "Z"),
                "severity": severity,
                "jsonPayload": {"message": text, "levelname": severity},
            }
        )

    def lines(self, job: str) -> Iterator[str]:
        """Text of one job's lines, oldest first."""
        identity = job.rsplit("/", 1)[1]
        return (e["jsonPayload"]["message"] for e in self.entries if e["resource"]["labels"]["job_id"] == identity)

    def list_entries(self, body: dict[str, Any]) -> dict[str, Any]:
        unknown = set(body) - {"resourceNames", "filter", "orderBy", "pageSize", "pageToken"}
        if unknown:
            raise invalid(f'Invalid JSON payload received. Unknown name "{sorted(unknown)[0]}": Cannot find field.')
        if body.get("resourceNames") != [f"projects/{self.project}"]:
            raise invalid("resource_names must name the project.")
        if body.get("orderBy", "timestamp asc") not in ("timestamp asc", "timestamp desc"):
            raise invalid(f"order_by {body['orderBy']!r} is not supported.")
        one_of = _ONE_OF.search(body.get("filter", ""))
        among = re.findall(r'"([^"]*)"', one_of[1]) if one_of else None
        inside = [e for e in self.entries if among is None or e["resource"]["labels"]["job_id"] in among]
        found = select(inside, _ONE_OF.sub("", body.get("filter", "")))
        found.sort(key=lambda e: (e["timestamp"], e["insertId"]), reverse=body.get("orderBy") == "timestamp desc")
        entries, token = page(found, int(body.get("pageSize", 50)), body.get("pageToken", ""), largest=1000)
        return {"entries": entries} | ({"nextPageToken": token} if token else {})
