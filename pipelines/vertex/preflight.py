"""What is checked before anything is paid for. Each finding is one line; what only the service knows comes last."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from components.step import BEAM_IMAGE
from core.errors import UserError
from pipelines import costs
from pipelines.checks import executors, machine_problems, worker_pools
from pipelines.findings import Finding
from pipelines.machines import SPOT_ONLY
from pipelines.service import Submission
from pipelines.vertex.buckets import bucket_findings
from pipelines.vertex.caps import LEAST
from pipelines.vertex.client import Vertex
from pipelines.vertex.places import account_findings, form_problems, tensorboard_findings
from pipelines.vertex.quota import accelerators, quota_findings
from pipelines.vertex.regions import check_accelerator, check_region
from pipelines.vertex.submit import RUN_ID

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
    vertex: Vertex,
    submission: Submission,
    estimate: costs.Estimate,
    *,
    max_cost: float | None = None,
    ask: bool = True,
) -> list[Finding]:
    """Everything that can be known before a run starts; empty when nothing is wrong or doubtful.

    Args:
        vertex: the services; asked only when the offline checks found no problem.
        submission: what would be sent.
        estimate: its cost.
        max_cost: the most it may cost, in USD.
        ask: ask the services too.
    """
    findings = list(offline(vertex.project.region, submission, estimate, max_cost=max_cost))
    findings += form_problems(vertex, submission.spec)
    if ask and not any(finding.problem for finding in findings):
        findings += online(vertex, submission)
    return findings


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
        doubts = [doubt, *_doubts(region, submission.spec)]
        yield from (Finding(text, problem=False) for text in sorted(set(filter(None, doubts))))
    yield from (Finding(text) for text in _labels(submission.labels))
    if not RUN_ID.fullmatch(submission.run):
        yield Finding(f"run id {submission.run!r}: allowed: lower case letters, digits and dashes, at most 127")
    if max_cost is not None and estimate.usd > max_cost:
        yield Finding(f"--max-cost {max_cost:g}: the run is estimated at {estimate.line()}; nothing was submitted")
    elif max_cost is not None and estimate.unpriced:
        yield Finding(f"--max-cost {max_cost:g}: cannot be held: no price for {', '.join(estimate.unpriced)}"
                      " in resources.yaml")  # fmt: skip


def limit_findings(seconds: Mapping[str, int], took: Mapping[str, float], max_cost: float) -> Iterator[Finding]:
    """Steps to which a cap leaves less than they need: next to nothing, or less than they took in an earlier run.

    Args:
        seconds: that each step may take.
        took: hours that steps took before.
        max_cost: the cap, in USD.
    """
    short = [f"{step} {max(0, limit)} s" for step, limit in sorted(seconds.items()) if limit < LEAST]
    if short:
        yield Finding(f"--max-cost {max_cost:g}: leaves {', '.join(short)}, the start of machines apart; raise it")
    for step, limit in sorted(seconds.items()):
        if step in took and took[step] * 3600 > limit:
            yield Finding(f"--max-cost {max_cost:g}: leaves {step} {limit} s, and in an earlier run it took"
                          f" {took[step] * 3600:.0f} s", problem=False)  # fmt: skip


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


def online(vertex: Vertex, submission: Submission) -> list[Finding]:
    """Checks that ask the project: bucket, service account, image and quota."""
    findings = [*bucket_findings(vertex)]
    if not findings:
        spec = submission.spec
        findings += [*account_findings(vertex), *tensorboard_findings(vertex, spec)]
        findings += [*_image(vertex, spec), *quota_findings(vertex, spec)]
    return findings


def fallback_findings(
    vertex: Vertex, machine: str, spec: Mapping[str, Any], estimate: costs.Estimate, max_cost: float | None
) -> Iterator[Finding]:
    """What is known about a machine that a run goes on with when there is none of the first."""
    if max_cost is not None and estimate.usd > max_cost:
        yield Finding(f"--max-cost {max_cost:g}: on {machine} the run is estimated at {estimate.line()};"
                      " nothing was submitted")  # fmt: skip
    short = [finding.text for finding in quota_findings(vertex, spec)]
    for text in [*sorted(set(_doubts(vertex.project.region, spec))), *short]:
        yield Finding(f"{machine}: {text}", problem=False)


def _doubts(region: str, spec: Mapping[str, Any]) -> Iterator[str]:
    """Accelerators that may not be had in the region, or not at the price that was asked for."""
    for held in accelerators(spec):
        yield from filter(None, [check_accelerator(region, held.kind)])
        if not held.spot and SPOT_ONLY.fullmatch(held.machine_type):
            yield (
                f"{held.step}: Compute Engine gives {held.machine_type} only as spot or flex-start, and whether Vertex"
                " AI has it on demand is not known: add --spot"
            )


def _image(vertex: Vertex, spec: Mapping[str, Any]) -> Iterator[Finding]:
    images = {c["image"] for _, c in executors(spec)} | {p["container_spec"]["image_uri"] for _, p in
                                                          worker_pools(spec)}  # fmt: skip
    for image in sorted(images):
        if image.startswith("gcr.io/ml-pipeline/") or image.startswith("python:"):
            continue
        if "." not in image.partition("/")[0]:
            yield Finding(f"image: {image} names no registry that Vertex can pull from; set `image:"
                          f" {vertex.project.region}-docker.pkg.dev/{vertex.project.project}/REPOSITORY/textdiffusion`"
                          " and push it with `make push`")  # fmt: skip
            continue
        code, beam = image_status(vertex, image), " BEAM=1" if image.endswith(BEAM_IMAGE) else ""
        if code == 404:
            yield Finding(f"image: {image} is not in the registry; push it with `make push{beam}`")
        elif code != 200:
            yield Finding(f"image: {image} could not be looked up (HTTP {code})", problem=False)


def image_status(vertex: Vertex, image: str) -> int:
    """The HTTP status with which a registry answers for an image: 200 if it has it."""
    host, _, rest = image.partition("/")
    name, _, tag = rest.rpartition("@") if "@" in rest else rest.rpartition(":")
    return vertex.rest(host, "GET", f"/v2/{name}/manifests/{tag}", accept=MANIFESTS)[0]


def _labels(labels: Mapping[str, str]) -> Iterator[str]:
    for key, value in labels.items():
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", key) or not re.fullmatch(r"[a-z0-9_-]{0,63}", value):
            yield f"labels: {key}={value!r}; allowed: lower case letters, digits, dashes and underscores, at most 63"


def _short(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
