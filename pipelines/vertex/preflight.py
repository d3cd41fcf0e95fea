"""What is checked before anything is paid for. Each finding is one line; what only the service knows comes last."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from core.errors import UserError
from pipelines import costs
from pipelines.checks import executors, machine_problems, worker_pools
from pipelines.findings import Finding
from pipelines.vertex.client import Vertex
from pipelines.vertex.client.buckets import bucket_findings
from pipelines.vertex.places import account_findings, form_problems, tensorboard_findings
from pipelines.vertex.regions import check_accelerator, check_region
from pipelines.vertex.submit import RUN_ID, Submission

_QUOTA = "aiplatform.googleapis.com/custom_model_training_{spot}nvidia_{kind}_gpus"
MANIFESTS = ", ".join(
    f"application/vnd.{kind}+json"
    for kind in (
        "oci.image.index.v1",
        "oci.image.manifest.v1",
        "docker.distribution.manifest.list.v2",
        "docker.distribution.manifest.v2",
    )
)
"""What to accept from a registry: without it, one that holds an index answers that it has nothing of that name."""
_PYTHON: dict[str, tuple[tuple[type, ...], str]] = {
    "STRING": ((str,), "text"),
    "NUMBER_INTEGER": ((int,), "an integer"),
    "NUMBER_DOUBLE": ((int, float), "a number"),
    "BOOLEAN": ((bool,), "true or false"),
    "LIST": ((list,), "a list"),
    "STRUCT": ((dict,), "a mapping"),
}


def preflight(
    vertex: Vertex, submission: Submission, estimate: costs.Estimate, *, max_cost: float | None = None
) -> list[Finding]:
    """Everything that can be known before a run starts; empty when nothing is wrong or doubtful.

    Args:
        vertex: the services; asked only when the offline checks found no problem.
        submission: what would be sent.
        estimate: its cost.
        max_cost: the most it may cost, in USD.
    """
    found = list(offline(vertex.project.region, submission, estimate, max_cost=max_cost))
    found += form_problems(vertex, submission.spec)
    if not any(finding.problem for finding in found):
        found += online(vertex, submission)
    return found


def offline(
    region: str, submission: Submission, estimate: costs.Estimate, *, max_cost: float | None = None
) -> Iterator[Finding]:
    """Checks that need no service."""
    yield from (Finding(text) for text in parameter_problems(submission.spec, submission.parameters))
    yield from (Finding(text) for text in machine_problems(submission.spec))
    try:
        doubt = check_region(region)
    except UserError as error:
        yield Finding(str(error))
    else:
        doubts = [doubt, *(check_accelerator(region, kind) for kind, _, _ in accelerators(submission.spec))]
        yield from (Finding(text, problem=False) for text in sorted(set(filter(None, doubts))))
    yield from (Finding(text) for text in _labels(submission.labels))
    if not RUN_ID.fullmatch(submission.run):
        yield Finding(f"run id {submission.run!r}: allowed: lower case letters, digits and dashes, at most 128")
    if max_cost is not None and estimate.usd > max_cost:
        yield Finding(f"--max-cost {max_cost:g}: the run is estimated at {estimate.line()}; nothing was submitted")
    elif max_cost is not None and estimate.unpriced:
        yield Finding(f"--max-cost {max_cost:g}: cannot be held: no price for {', '.join(estimate.unpriced)}"
                      " in resources.yaml")  # fmt: skip


def parameter_problems(spec: Mapping[str, Any], parameters: Mapping[str, Any]) -> Iterator[str]:
    """Parameters that the compiled pipeline does not have, misses, or has with another type."""
    inputs = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    for name in parameters:
        if name not in inputs:
            yield f"parameter {name}: the pipeline has none of that name; allowed: {', '.join(sorted(inputs))}"
    for name, definition in inputs.items():
        if name not in parameters:
            if "defaultValue" not in definition and not definition.get("isOptional"):
                yield f"parameter {name}: is missing and has no default"
            continue
        kinds, words = _PYTHON[definition["parameterType"]]
        value = parameters[name]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            yield f"parameter {name}: found {_short(value)}; allowed: {words}"


def accelerators(spec: Mapping[str, Any]) -> Iterator[tuple[str, int, bool]]:
    """(accelerator, count, spot) of every step that has one."""
    for step, pool in worker_pools(spec):
        machine = pool["machine_spec"]
        if machine.get("accelerator_type"):
            defaults = spec["components"][f"comp-{step}"]["inputDefinitions"]["parameters"]
            spot = defaults.get("strategy", {}).get("defaultValue") == "SPOT"
            replicas = int(pool.get("replica_count", 1))
            yield machine["accelerator_type"], replicas * int(machine.get("accelerator_count") or 1), spot
    for _, container in executors(spec):
        accelerator = container.get("resources", {}).get("accelerator", {})
        kind = accelerator.get("resourceType") or accelerator.get("type")
        if kind:
            yield kind, int(accelerator.get("resourceCount") or accelerator.get("count") or 1), False


def online(vertex: Vertex, submission: Submission) -> list[Finding]:
    """Checks that ask the project: bucket, service account, image and quota."""
    found = [*bucket_findings(vertex)]
    if not found:
        spec = submission.spec
        found += [*account_findings(vertex), *tensorboard_findings(vertex, spec)]
        found += [*_image(vertex, spec), *_quota(vertex, spec)]
    return found


def fallback_findings(
    vertex: Vertex, machine: str, spec: Mapping[str, Any], estimate: costs.Estimate, max_cost: float | None
) -> Iterator[Finding]:
    """What is known about a machine that a run goes on with when there is none of the first."""
    if max_cost is not None and estimate.usd > max_cost:
        yield Finding(f"--max-cost {max_cost:g}: on {machine} the run is estimated at {estimate.line()};"
                      " nothing was submitted")  # fmt: skip
    doubts = {check_accelerator(vertex.project.region, kind) for kind, _, _ in accelerators(spec)}
    for text in [*sorted(filter(None, doubts)), *(finding.text for finding in _quota(vertex, spec))]:
        yield Finding(f"{machine}: {text}", problem=False)


def _image(vertex: Vertex, spec: Mapping[str, Any]) -> Iterator[Finding]:
    images = {c["image"] for _, c in executors(spec)} | {p["container_spec"]["image_uri"] for _, p in
                                                          worker_pools(spec)}  # fmt: skip
    for image in sorted(images):
        if image.startswith("gcr.io/ml-pipeline/") or image.startswith("python:"):
            continue
        if "." not in image.partition("/")[0]:
            yield Finding(f"image: {image} names no registry that Vertex can pull from; set `image:"
                          f" {vertex.project.region}-docker.pkg.dev/{vertex.project.project}/REPOSITORY/textdiffusion`"
                          " and push it with `make image`")  # fmt: skip
            continue
        code = image_status(vertex, image)
        if code == 404:
            yield Finding(f"image: {image} is not in the registry; push it with `make image`")
        elif code != 200:
            yield Finding(f"image: {image} could not be looked up (HTTP {code})", problem=False)


def image_status(vertex: Vertex, image: str) -> int:
    """The HTTP status with which a registry answers for an image: 200 if it has it."""
    host, _, rest = image.partition("/")
    name, _, tag = rest.rpartition("@") if "@" in rest else rest.rpartition(":")
    return vertex.rest(host, "GET", f"/v2/{name}/manifests/{tag}", accept=MANIFESTS)[0]


def _quota(vertex: Vertex, spec: Mapping[str, Any]) -> Iterator[Finding]:
    wanted: dict[str, int] = {}
    for kind, count, spot in accelerators(spec):
        name = kind.lower().removeprefix("nvidia_").removeprefix("tesla_")
        metric = _QUOTA.format(spot="preemptible_" if spot else "", kind=name.replace("h100_80gb", "h100"))
        wanted[metric] = max(wanted.get(metric, 0), count)
    if not wanted:
        return
    path = f"/v1/projects/{vertex.project.project}/locations/global/services/aiplatform.googleapis.com/quotaInfos"
    infos, token = [], ""
    while True:
        code, answer = vertex.rest("cloudquotas.googleapis.com", "GET", f"{path}?pageSize=1000&pageToken={token}")
        if code != 200:
            yield Finding(f"quota: could not be read (HTTP {code}); needed: {', '.join(sorted(wanted))}", problem=False)
            return
        infos += answer.get("quotaInfos", [])
        token = answer.get("nextPageToken", "")
        if not token:
            break
    for info in infos:
        need = wanted.get(info.get("metric", ""))
        for dimension in info.get("dimensionsInfos", []) if need else []:
            region = vertex.project.region
            value = int(dimension.get("details", {}).get("value", -1))
            if region in dimension.get("applicableLocations", [region]) and 0 <= value < (need or 0):
                yield Finding(f"quota: {info['metric']} in {region} is {value}, the run needs {need};"
                              " ask for more at https://console.cloud.google.com/iam-admin/quotas")  # fmt: skip


def _labels(labels: Mapping[str, str]) -> Iterator[str]:
    for key, value in labels.items():
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", key) or not re.fullmatch(r"[a-z0-9_-]{0,63}", value):
            yield f"labels: {key}={value!r}; allowed: lower case letters, digits, dashes and underscores, at most 63"


def _short(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
