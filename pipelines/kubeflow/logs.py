"""The log of a step: what its pods printed, as the API server or the front end hands it on.

The API server writes 200 before it looks for the pod, so what it lacks is told by the text. A front end that is
forwarded to (`svc/ml-pipeline-ui`) does not pass that request on, and has one of its own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from core.errors import UserError
from pipelines.executor_log import Executor, without_prefix
from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.runs import find, spec_of, view
from pipelines.views import ENDED, Step, View

_LINES = 100  # of a log, where not all is wanted
_HASHES = (2166136261, 16777619, 1 << 32)  # FNV-1a of 32 bits


def lines(cluster: Cluster, shown: View, step: Step, *, full: bool) -> list[str]:
    """What a step printed; without `full` only the end, and nothing of KFP's executor and launcher.

    Raises:
        UserError: no pod of the step has a log, or any more.
    """
    if not step.jobs:
        raise UserError(f"step {step.name}: is {step.state} and has no pod, so no log")
    pods = _pods(find(cluster, shown.identity), step)
    texts = [text for pod in pods if (text := _text(cluster, shown, pod)) is not None]
    if not texts:
        raise UserError(f"step {step.name}: its log is gone, as Kubernetes has removed the pod; the run's page has it"
                        f" if the installation archives logs: {cluster.page(shown.identity)}")  # fmt: skip
    whole = "\n".join(texts).rstrip("\n").split("\n")
    return whole if full else _of_step(whole)[-_LINES:]


def reason(cluster: Cluster, shown: View, step: Step) -> str:
    """Why a step failed: its line that begins with `error: `, else its last one; empty if the log is gone."""
    try:
        said = [line for line in lines(cluster, shown, step, full=False) if line.strip()]
    except UserError:
        return ""
    errors = [line for line in said if line.startswith("error: ")]
    return (errors or said or [""])[-1].removeprefix("error: ")[:300]


def watch(cluster: Cluster, run: str, step: str, *, full: bool, interval: float) -> Iterator[tuple[str, str]]:
    """(step, line) as lines come, until the run has ended.

    Raises:
        UserError: the run has no step called `step`.
    """
    shown_of: dict[str, int] = {}
    executors: dict[str, Executor] = {}
    complete: set[str] = set()
    while True:
        message = find(cluster, run)
        shown = view(message)
        watched = [shown.step(step)] if step else [one for one in shown.steps if one.jobs]
        for one in watched:
            for pod in _pods(message, one) if one.jobs else ():
                if pod in complete:
                    continue
                text = _text(cluster, shown, pod) or ""
                new = text.split("\n")[:-1] if one.state == "running" else text.rstrip("\n").split("\n") if text else []
                before = shown_of.get(pod, 0)
                for line in new[before:]:
                    if not executors.setdefault(pod, Executor()).said(line) or full:
                        yield one.name, without_prefix(line)
                shown_of[pod] = max(before, len(new))
                complete |= {pod} if one.state != "running" else set()
        if shown.state in ENDED:
            return
        time.sleep(interval)


def _of_step(whole: list[str]) -> list[str]:
    executor = Executor()
    return [without_prefix(line) for line in whole if not executor.said(line)]


def _text(cluster: Cluster, shown: View, pod: str) -> str | None:
    with cluster.one_line("logs"):
        code, text = cluster.text(f"/apis/v1alpha1/runs/{shown.identity}/nodes/{quote(pod)}/log", or_page=True)
        if code == 404:
            query = {"podname": pod, "runid": shown.identity}
            query |= {"podnamespace": cluster.namespace} if cluster.namespace else {}
            code, text = cluster.text("/k8s/pod/logs", query, or_page=True)
    if code in (401, 403):
        raise UserError(f"logs: kubeflow {cluster.host}: {code}: {text[:200]}")
    return None if code != 200 or _refused(text) else text


def _refused(text: str) -> bool:
    """Whether a text is the server's error: it comes after what there was of the log, as one object."""
    last = text.rstrip().rpartition("\n")[2]
    begin = last.find('{"error_message"')
    if begin < 0:
        return False
    try:
        return "error_details" in json.loads(last[begin:])
    except ValueError:
        return False


def _pods(run: Any, step: Step) -> list[str]:
    """The pods of a step. Where it may be retried, Argo's node has one below it for each attempt, whose hashes follow
    from their names."""
    place = _place(spec_of(run), step.name)
    if place is None:
        return list(step.jobs)
    path, attempts = place
    workflow = step.jobs[0].partition("-system-container-impl-")[0]
    known = {child.pod_name for detail in run.run_details.task_details or () for child in detail.child_tasks or ()}
    tries = [f"{workflow}-{_hash(f'{workflow}.{path}.executor({number})')}" for number in range(attempts + 1)]
    impl = f"{workflow}-retry-system-container-impl-"
    return [impl + node.removeprefix(f"{workflow}-") for node in tries if node in known]


def _place(spec: Any, step: str) -> tuple[str, int] | None:
    """(path of a step that may be retried below its workflow, how often); None for others."""

    def search(component: Any, path: str) -> Iterator[tuple[str, int]]:
        for name, task in component["dag"]["tasks"].items():
            definition = spec["components"][task["componentRef"]["name"]]
            if "dag" in definition:
                yield from search(definition, f"{path}.{name}")
            elif name == step and "retryPolicy" in task:
                yield f"{path}.{name}", int(task["retryPolicy"].get("maxRetryCount", 0))

    return next(search(spec["root"], "root"), None) if spec else None


def _hash(name: str) -> int:
    """FNV-1a, by which Argo names nodes."""
    value, prime, size = _HASHES
    for byte in name.encode():
        value = (value ^ byte) * prime % size
    return value
