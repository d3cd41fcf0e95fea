"""Runs on Kubeflow as the server tells of them: found by name, and each as a `View`.

The server lists the nodes of Argo's workflow by display name alone: for a step `train` the driver `train-driver` and
the node `train`, whose children are the pod that did the work. What it took from the cache has no pod and takes no
time; a branch that was not taken has no nodes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from core.errors import UserError
from pipelines import costs
from pipelines.kubeflow.client import Cluster
from pipelines.machines import Machine
from pipelines.views import ENDED, Step, View, arrange

STATES = {"PENDING": "pending", "RUNNING": "running", "SUCCEEDED": "succeeded", "SKIPPED": "skipped",
          "FAILED": "failed", "CANCELING": "cancelling", "CANCELED": "cancelled", "PAUSED": "paused"}  # fmt: skip
_OURS = re.compile(r"(.+)-\d{8}-\d{6}-[0-9a-f]{4}")  # factory.run_folder.new_run_id
IDENTITY = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PAGE, _MOST = 50, 500  # runs asked for at once, and looked at in all
_NO_POD = 1.0  # seconds; no pod begins and ends within one


def find(cluster: Cluster, name: str) -> Any:
    """The run that is called `name`, that has this identity, or that is the newest of ours for `latest`.

    Raises:
        UserError: there is none.
    """
    if name == "latest":
        newest = next(ours(cluster), None)
        if newest is None:
            raise UserError(f"run latest: there is none on {cluster.host}")
        name = newest.run_id
    with cluster.one_line(f"run {name}"):
        if not IDENTITY.fullmatch(name):
            found = cluster.client.list_runs(
                namespace=cluster.namespace, page_size=1, sort_by="created_at desc", filter=equals("display_name", name)
            ).runs
            if not found:
                raise UserError(f"run {name}: there is none on {cluster.host}; see `textdiffusion runs --cloud`")
            name = found[0].run_id
        return cluster.client.get_run(name)


def equals(key: str, value: str) -> str:
    """A filter of the API."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": key, "stringValue": value}]})


def ours(cluster: Cluster, job: str = "", *, most: int = _MOST) -> Iterator[Any]:
    """Runs of TextDiffusion jobs, newest first; `most` runs are looked at."""
    token, seen = "", 0
    while seen < most:
        with cluster.one_line("runs"):
            page = cluster.client.list_runs(
                namespace=cluster.namespace, page_size=_PAGE, page_token=token, sort_by="created_at desc"
            )
        for run in page.runs or ():
            of = job_of(run)
            if of and job in ("", of):
                yield run
        seen, token = seen + _PAGE, page.next_page_token or ""
        if not token:
            return


def job_of(run: Any) -> str:
    """The job of a run; empty if it is none of ours. Runs that a schedule started have names that the server made."""
    named = _OURS.fullmatch(run.display_name or "")
    if named:
        return named[1]
    parameters = (run.runtime_config and run.runtime_config.parameters) or {}
    return str(parameters.get("model_name", "")) if "registry" in parameters else ""


def spec_of(run: Any) -> Mapping[str, Any]:
    """The specification of a run's pipeline; empty if it was uploaded beforehand."""
    spec = run.pipeline_spec or {}
    return dict(spec.get("pipeline_spec", spec))


def view(run: Any, rows: Mapping[str, Machine] | None = None) -> View:
    """The state of a run.

    Args:
        run: as the API answers it.
        rows: machines with a price of one's own; those of Vertex AI say nothing about another cluster.
    """
    spec = spec_of(run)
    state = STATES.get(run.state or "", "pending")
    now = datetime.now(UTC)
    ended = run.finished_at if state in ENDED and _real(run.finished_at) else None
    seconds = _seconds(run.created_at, ended or now)
    root = Step(run.display_name, state, seconds, None, "", (), {})
    if spec:
        nodes: dict[str, list[Any]] = {}
        for detail in (run.run_details and run.run_details.task_details) or ():
            nodes.setdefault(detail.display_name or "", []).append(detail)
        prices = costs.hourly(spec, rows) if rows else {}
        root.steps = list(_grow(spec["root"], spec["components"], nodes, prices, now, ended=state in ENDED))
        arrange(root, spec["root"], spec["components"], ended=state in ENDED)
    if state in ("cancelling", "cancelled"):  # Argo calls failed what was stopped
        for step in root.all():
            step.state = "cancelled" if step.state == "failed" else step.state
    paid = [step.usd for step in root.all() if step.usd is not None]
    error = " ".join(str(run.error.message or "").split()) if run.error else ""
    return View(run.display_name, job_of(run), state, seconds, sum(paid) if paid else None, error, root,
                run.created_at, run.run_id)  # fmt: skip


def _grow(
    component: Mapping[str, Any],
    components: Mapping[str, Any],
    nodes: Mapping[str, list[Any]],
    prices: Mapping[str, float],
    now: datetime,
    *,
    ended: bool,
) -> Iterator[Step]:
    """The steps of a DAG that have nodes. Iterations of a loop are steps of the step that they repeat."""
    for name, task in component["dag"]["tasks"].items():
        definition = components[task["componentRef"]["name"]]
        found = nodes.get(name, [])
        if "dag" in definition:
            inner = list(_grow(definition, components, nodes, prices, now, ended=ended))
            if found or inner:
                step = _step(name, found[:1], nodes, None, now, dag=True)
                step.steps = inner
                yield step
        elif len(found) > 1:
            whole = _step(name, found[:1], nodes, None, now, dag=True)
            whole.steps = [_step(f"{name}-{number}", [one], nodes, prices.get(name), now)
                           for number, one in enumerate(found, 1)]  # fmt: skip
            states = {inner.state for inner in whole.steps}
            whole.state = next((state for state in ("failed", "running") if state in states), whole.state)
            yield whole
        elif found or f"{name}-driver" in nodes:
            yield _step(name, found, nodes, prices.get(name), now)


def _step(
    name: str,
    found: list[Any],
    nodes: Mapping[str, list[Any]],
    price: float | None,
    now: datetime,
    *,
    dag: bool = False,
) -> Step:
    if not found:
        failed = any(STATES.get(driver.state or "") == "failed" for driver in nodes.get(f"{name}-driver", ()))
        error = "its driver failed: see the run's page" if failed else ""
        return Step(name, "failed" if failed else "pending", 0.0, None, error, (), {})
    node = found[0]
    state = STATES.get(node.state or "", "pending")
    seconds = _seconds(node.start_time, node.end_time if _real(node.end_time) else now)
    pods = tuple(_pod(child.pod_name) for child in node.child_tasks or () if child.pod_name)
    if not dag and state == "succeeded" and seconds <= _NO_POD:
        return Step(name, "cached", 0.0, None, "", (), {})
    usd = None if price is None or dag else price * seconds / 3600
    return Step(name, state, seconds, usd, "", () if dag else pods, {})


def _pod(node: str) -> str:
    """The pod of Argo's node WORKFLOW-HASH: KFP's compiler calls its template `system-container-impl`."""
    workflow, _, hashed = node.rpartition("-")
    return f"{workflow}-system-container-impl-{hashed}"


def _real(time: Any) -> bool:
    """Whether a time is one: the server writes the year 1, or 1970, for what has not happened."""
    return time is not None and time.year > 1970


def _seconds(start: Any, end: Any) -> float:
    return max(0.0, (end - start).total_seconds()) if _real(start) and _real(end) else 0.0
