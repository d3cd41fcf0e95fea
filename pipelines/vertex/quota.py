"""The project's quota of accelerators against what a run holds: in one job, and at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines import costs
from pipelines.checks import executors, worker_pools
from pipelines.concurrency import most_at_once
from pipelines.dataflow import workers_of
from pipelines.findings import Finding
from pipelines.vertex.client import Vertex

_METRIC = "aiplatform.googleapis.com/custom_model_training_{spot}nvidia_{kind}_gpus"
_CPUS = "compute.googleapis.com/cpus"
_HOST = "cloudquotas.googleapis.com"
_ASK = "ask for more at https://console.cloud.google.com/iam-admin/quotas"


@dataclass(frozen=True)
class Gpus:
    """The accelerators that one step holds, in how many jobs."""

    step: str
    machine_type: str  # empty where the service chooses it
    kind: str
    count: int
    jobs: int
    spot: bool


def accelerators(spec: Mapping[str, Any]) -> Iterator[Gpus]:
    """What every step that has accelerators holds, all its replicas and parallel trials together."""
    for step, pool in worker_pools(spec):
        machine = pool["machine_spec"]
        if machine.get("accelerator_type"):
            defaults = spec["components"][f"comp-{step}"]["inputDefinitions"]["parameters"]
            spot = defaults.get("strategy", {}).get("defaultValue") == "SPOT"
            jobs = int(pool.get("replica_count", 1)) * costs.at_once(spec, step)
            count = jobs * int(machine.get("accelerator_count") or 1)
            yield Gpus(
                step, machine["machine_type"], machine["accelerator_type"], count, costs.at_once(spec, step), spot
            )
    for step, container in executors(spec):
        accelerator = container.get("resources", {}).get("accelerator", {})
        kind = accelerator.get("resourceType") or accelerator.get("type")
        if kind:
            yield Gpus(step, "", kind, int(accelerator.get("resourceCount") or accelerator.get("count") or 1), 1, False)


def quota_findings(vertex: Vertex, spec: Mapping[str, Any]) -> Iterator[Finding]:
    """A quota that one job alone exceeds, with which the run cannot end; one that jobs at once exceed, so that they
    wait for each other; one with which Dataflow starts fewer machines than it may."""
    yield from _gpu_findings(vertex, spec)
    yield from _dataflow_findings(vertex, spec)


def _dataflow_findings(vertex: Vertex, spec: Mapping[str, Any]) -> Iterator[Finding]:
    for step, workers in workers_of(spec).items():
        if workers.cpus is None:
            continue
        most = workers.count * workers.cpus
        infos = _infos(vertex, "compute.googleapis.com")
        if isinstance(infos, int):
            yield Finding(f"quota: could not be read (HTTP {infos}); needed: {most} {_CPUS}", problem=False)
            continue
        for value in _values(infos, _CPUS, vertex.project.region):
            said = f"quota: {_CPUS} in {vertex.project.region} is {value}, {step} asks Dataflow for"
            if value < workers.cpus:
                yield Finding(f"{said} machines of {workers.cpus}; {_ASK}")
            elif value < most:
                yield Finding(f"{said} {most} ({workers}): it gets fewer; {_ASK}", problem=False)


def _gpu_findings(vertex: Vertex, spec: Mapping[str, Any]) -> Iterator[Finding]:
    held: dict[str, Counter[str]] = {}
    single: Counter[str] = Counter()
    for gpus in accelerators(spec):
        name = gpus.kind.lower().removeprefix("nvidia_").removeprefix("tesla_")
        metric = _METRIC.format(spot="preemptible_" if gpus.spot else "", kind=name.replace("h100_80gb", "h100"))
        steps = held.setdefault(metric, Counter())
        steps[gpus.step] += gpus.count
        single[metric] = max(single[metric], steps[gpus.step] // gpus.jobs)
    if not held:
        return
    infos = _infos(vertex, "aiplatform.googleapis.com")
    if isinstance(infos, int):
        yield Finding(f"quota: could not be read (HTTP {infos}); needed: {', '.join(sorted(held))}", problem=False)
        return
    region = vertex.project.region
    for metric in held:
        together = most_at_once(spec, held[metric])
        for value in _values(infos, metric, region):
            said = f"quota: {metric} in {region} is {value}, the run needs"
            if value < single[metric]:
                yield Finding(f"{said} {single[metric]}; {_ASK}")
            elif value < together:
                names = ", ".join(sorted(held[metric]))
                yield Finding(f"{said} {together} for all that may run at once ({names}): some wait for others; {_ASK}",
                              problem=False)  # fmt: skip


def _values(infos: list[dict[str, Any]], metric: str, region: str) -> Iterator[int]:
    """The values of a metric in a region."""
    for info in infos:
        for dimension in info.get("dimensionsInfos", []) if info.get("metric") == metric else []:
            value = int(dimension.get("details", {}).get("value", -1))
            if value >= 0 and region in dimension.get("applicableLocations", [region]):
                yield value


def _infos(vertex: Vertex, service: str) -> list[dict[str, Any]] | int:
    """All quotas of a service, or the HTTP status with which they are refused."""
    path = f"/v1/projects/{vertex.project.project}/locations/global/services/{service}/quotaInfos"
    infos: list[dict[str, Any]] = []
    token = ""
    while True:
        code, answer = vertex.rest(_HOST, "GET", f"{path}?pageSize=1000&pageToken={token}")
        if code != 200:
            return code
        infos += answer.get("quotaInfos", [])
        token = answer.get("nextPageToken", "")
        if not token:
            return infos
