"""The log of a step, from Cloud Logging: found by the custom jobs that the step ran as."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from core.errors import UserError
from pipelines.vertex.client import Vertex, one_line
from pipelines.vertex.monitor import ENDED, Step, View, launched, view
from pipelines.vertex.submit import get_run

_PREFIX = re.compile(r"^\[KFP Executor [^\]]*\]: ")  # of everything that a step logs, the executor's own lines too
_ITS_OWN = ("Looking for component", "Loading KFP component", "Got executor_input", "output file")
_LATE = timedelta(minutes=1)  # an entry is listed at most so long after it was written


def log_lines(vertex: Vertex, jobs: tuple[str, ...], *, since: str = "", limit: int = 0) -> list[dict[str, Any]]:
    """Cloud Logging entries of custom jobs, oldest first.

    Args:
        vertex: the services.
        jobs: resource names of custom jobs.
        since: a timestamp; only later entries.
        limit: only the newest so many; 0: all.
    """
    if not jobs:
        return []
    names = " OR ".join(f'"{_identity(job)}"' for job in jobs)
    terms = ['resource.type="ml_job"', f"resource.labels.job_id=({names})"]
    terms += [f'timestamp>"{since}"'] if since else []
    body: dict[str, Any] = {
        "resourceNames": [f"projects/{vertex.project.project}"],
        "filter": " AND ".join(terms),
        "orderBy": "timestamp desc" if limit else "timestamp asc",
        "pageSize": min(limit or 1000, 1000),
    }
    lines: list[dict[str, Any]] = []
    while True:
        with one_line("logs"):
            code, answer = vertex.rest("logging.googleapis.com", "POST", "/v2/entries:list", body)
        if code != 200:
            said = answer.get("error", {}).get("message", f"HTTP {code}")
            raise UserError(f"logs: {said}; the account needs roles/logging.viewer")
        lines += answer.get("entries", [])
        if not answer.get("nextPageToken") or (limit and len(lines) >= limit):
            break
        body["pageToken"] = answer["nextPageToken"]
    lines.sort(key=lambda entry: (entry["timestamp"], entry.get("insertId", "")))
    return lines[-limit:] if limit else lines


def _identity(job: str) -> str:
    return job.rsplit("/", 1)[1]


def log_text(entry: Mapping[str, Any]) -> str:
    """One log entry as one line: time, severity if it matters, text."""
    severity = entry.get("severity", "")
    mark = f"{severity} " if severity in ("WARNING", "ERROR", "CRITICAL") else ""
    return f"{entry['timestamp'][11:19]} {mark}{_PREFIX.sub('', _payload(entry))}"


def _payload(entry: Mapping[str, Any]) -> str:
    return str(entry.get("jsonPayload", {}).get("message") or entry.get("textPayload") or "")


class Executor:
    """Tells what KFP's executor prints (where it found the function, the input it was given) from a step's lines."""

    def __init__(self) -> None:
        self._inside = False

    def said(self, entry: Mapping[str, Any]) -> bool:
        """Whether the next entry of a log is the executor's."""
        text = _payload(entry)
        if _PREFIX.match(text) and any(words in text for words in _ITS_OWN):
            self._inside = "Got executor_input" in text and not text.rstrip().endswith("}")
            return True
        if self._inside:
            self._inside = text != "}"
            return True
        return False


def without_executor(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Log entries of a step without those of KFP's executor."""
    executor = Executor()
    return [entry for entry in entries if not executor.said(entry)]


def end_of(shown: View) -> Step:
    """The step whose log is wanted first: the one that failed, else the one that runs, else the last that ran.

    Raises:
        UserError: no step has begun.
    """
    order = [*shown.failed, *(s for s in shown.steps if s.state == "running")]
    order += [step for step in reversed(shown.steps) if step.jobs]
    if not order:
        raise UserError(f"run {shown.run}: no step has begun")
    return order[0]


def jobs_of(vertex: Vertex, job: Any, step: Step) -> tuple[str, ...]:
    """Custom jobs whose logs are a step's.

    While a step runs, or when it was cancelled, the service does not say which custom job its launcher started, but the
    launcher has written it next to where the step's artifacts will be.

    Args:
        vertex: the services.
        job: the run's message.
        step: one of its steps.
    """
    if step.state not in ("running", "cancelled"):
        return step.jobs
    bucket, _, root = job.runtime_config.gcs_output_directory.removeprefix("gs://").rstrip("/").partition("/")
    _, number, *_, run = job.name.split("/")
    with one_line("logs"):
        blobs = vertex.buckets.list_blobs(
            vertex.bucket(bucket), prefix=f"{root}/{number}/{run}/{step.name}_", timeout=60
        )
        texts = [blob.download_as_text() for blob in blobs if blob.name.endswith("/gcp_resources")]
    return (*step.jobs, *(name for text in texts for name in launched(text) if name not in step.jobs))


def watch_logs(
    vertex: Vertex, run: str, step: str = "", *, full: bool = False, interval: float = 5.0
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(step, log entry) as entries come, until the run has ended.

    Args:
        vertex: the services.
        run: its id.
        step: only this one; empty: all of them.
        full: also what KFP's executor prints.
        interval: seconds between two looks.

    Raises:
        UserError: the run has no step called `step`.
    """
    newest = ""
    executors: dict[str, Executor] = {}
    seen: set[str] = set()
    while True:
        message = get_run(vertex, run)
        shown = view(message, {})
        watched = [shown.step(step)] if step else [one for one in shown.steps if one.jobs]
        steps = {job: one.name for one in watched for job in jobs_of(vertex, message, one)}
        # One request for all steps: a project may list entries 60 times a minute. Entries arrive late and out of
        # order, so each look begins a little before the newest that was shown.
        for entry in log_lines(vertex, tuple(steps), since=_earlier(newest)):
            job, identity = entry["resource"]["labels"]["job_id"], f"{entry['timestamp']} {entry['insertId']}"
            if identity in seen:
                continue
            seen.add(identity)
            newest = max(newest, entry["timestamp"])
            if not executors.setdefault(job, Executor()).said(entry) or full:
                yield next(name for known, name in steps.items() if _identity(known) == job), entry
        if shown.state in ENDED:
            return
        time.sleep(interval)


def _earlier(timestamp: str) -> str:
    if not timestamp:
        return ""
    return (datetime.fromisoformat(timestamp) - _LATE).isoformat().replace("+00:00", "Z")
