"""The log of a step, from Cloud Logging: found by the custom jobs that the step ran as."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from core.errors import UserError
from pipelines.monitor import ENDED, Step, View, view
from pipelines.submit import get_run
from pipelines.vertex import Vertex, one_line


def log_lines(vertex: Vertex, jobs: tuple[str, ...], *, since: str = "", limit: int = 0) -> list[dict[str, Any]]:
    """Cloud Logging entries of custom jobs, oldest first.

    Args:
        vertex: the services.
        jobs: resource names of custom jobs.
        since: a timestamp; only later entries.
        limit: only the newest so many; 0: all.
    """
    identities = [job.rsplit("/", 1)[1] for job in jobs]
    found: list[dict[str, Any]] = []
    for identity in identities:
        terms = ['resource.type="ml_job"', f'resource.labels.job_id="{identity}"']
        terms += [f'timestamp>"{since}"'] if since else []
        body: dict[str, Any] = {
            "resourceNames": [f"projects/{vertex.project.project}"],
            "filter": " AND ".join(terms),
            "orderBy": "timestamp desc" if limit else "timestamp asc",
            "pageSize": min(limit or 1000, 1000),
        }
        while True:
            with one_line("logs"):
                code, answer = vertex.rest("logging.googleapis.com", "POST", "/v2/entries:list", body)
            if code != 200:
                said = answer.get("error", {}).get("message", f"HTTP {code}")
                raise UserError(f"logs: {said}; the account needs roles/logging.viewer")
            found += answer.get("entries", [])
            if not answer.get("nextPageToken") or (limit and len(found) >= limit):
                break
            body["pageToken"] = answer["nextPageToken"]
    found.sort(key=lambda entry: (entry["timestamp"], entry.get("insertId", "")))
    return found[-limit:] if limit else found


def log_text(entry: Mapping[str, Any]) -> str:
    """One log entry as one line: time, severity if it matters, text."""
    payload = entry.get("jsonPayload", {}).get("message") or entry.get("textPayload") or ""
    severity = entry.get("severity", "")
    mark = f"{severity} " if severity in ("WARNING", "ERROR", "CRITICAL") else ""
    return f"{entry['timestamp'][11:19]} {mark}{payload}"


def without_executor(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Log entries without what KFP's own executor prints: where it found the function, and the input it was given."""
    kept, inside = [], False
    for entry in entries:
        text = str(entry.get("jsonPayload", {}).get("message") or entry.get("textPayload") or "")
        if "[KFP Executor" in text:
            inside = "Got executor_input" in text and not text.rstrip().endswith("}")
        elif inside:
            inside = text != "}"
        else:
            kept.append(entry)
    return kept


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


def watch_log(vertex: Vertex, run: str, step: str, *, interval: float = 5.0) -> Iterator[dict[str, Any]]:
    """Log entries of a step as they come, until the run has ended."""
    since, seen = "", set[str]()
    while True:
        shown = view(get_run(vertex, run), {})
        jobs = next((found.jobs for found in shown.steps if found.name == step), ())
        for entry in log_lines(vertex, jobs, since=since):
            if entry["insertId"] not in seen:
                seen.add(entry["insertId"])
                yield entry
        # No `since`: a launcher's and its job's entries arrive in their own order; what was shown is not shown again.
        if shown.state in ENDED:
            return
        time.sleep(interval)
