"""Static checks on a compiled pipeline: what would fail, or silently do the wrong thing, only after submission."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from components.step import BEAM_IMAGE, TRIALS_IMAGE
from core.errors import UserError
from factory.job import AnyJob
from factory.steps import STEPS
from pipelines.jobs import sections
from pipelines.machines import ACCELERATORS, IN_CLUSTER, check_pair

Spec = Mapping[str, Any]
_RUNTIME = {"data_fingerprint", "registry", "run", "work", "model_name"}
_GCPC = "google-cloud-pipeline-components"


def check_spec(text: str, job: AnyJob | None = None) -> list[str]:
    """What is wrong with a compiled pipeline, a line each; empty if nothing is.

    Args:
        text: YAML as `compile_job` returns it.
        job: if given, the pipeline's parameters must be the sections of this job.
    """
    spec, *platforms = read_spec(text)
    problems = [
        *_images(spec),
        *machine_problems(spec),
        *_conditions(spec),
        *_caching(spec),
        *_node_selectors(spec, platforms),
    ]
    return problems + (list(_parameters(spec, job)) if job is not None else [])


def read_spec(text: str) -> list[dict[str, Any]]:
    """The documents of a compiled pipeline: its specification, then what is special to a platform, if anything."""
    return list(yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def tasks(spec: Spec) -> Iterator[tuple[str, str, Spec]]:
    """(name of the DAG, name of the task, task) for every task at any depth."""
    dags = {"root": spec["root"], **{name: part for name, part in spec["components"].items() if "dag" in part}}
    for dag, component in dags.items():
        for name, task in component["dag"]["tasks"].items():
            yield dag, name, task


def worker_pools(spec: Spec) -> Iterator[tuple[str, dict[str, Any]]]:
    """(step, worker pool) of every Vertex custom job and hyper-parameter tuning job in the pipeline."""
    for name, component in spec["components"].items():
        pools = component.get("inputDefinitions", {}).get("parameters", {}).get("worker_pool_specs", {})
        for pool in pools.get("defaultValue", []):
            yield name.removeprefix("comp-"), pool
    for _, name, task in tasks(spec):
        pools = task.get("inputs", {}).get("parameters", {}).get("worker_pool_specs", {})
        for pool in pools.get("runtimeValue", {}).get("constant", []):
            yield name, pool


def executors(spec: Spec) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(step, container) of every step that runs in one."""
    for name, executor in spec["deploymentSpec"]["executors"].items():
        if "container" in executor:
            yield name.removeprefix("exec-"), executor["container"]


def section_of(spec: Spec, name: str) -> Mapping[str, Any]:
    """A section of the job as it was compiled."""
    return dict(spec["root"]["inputDefinitions"]["parameters"][name]["defaultValue"])


def _images(spec: Spec) -> Iterator[str]:
    images = [(step, container.get("image", "").removesuffix(BEAM_IMAGE)) for step, container in executors(spec)]
    images += [
        (step, pool["container_spec"].get("image_uri", "").removesuffix(TRIALS_IMAGE))
        for step, pool in worker_pools(spec)
    ]
    for step, image in images:
        tag = image.rpartition("/")[2].partition(":")[2]
        if not image:
            yield f"{step}: has no image"
        elif "@sha256:" not in image and tag in ("", "latest", "unresolved"):
            yield f"{step}: image {image} has no fixed tag: what runs would not be what was compiled"
    own = {image for _, image in images if _GCPC not in image}
    if len(own) > 1:
        yield f"steps run in different images: {', '.join(sorted(own))}"


def machine_problems(spec: Spec) -> Iterator[str]:
    """Machines and accelerators that do not exist or do not go together, a line each."""
    for step, pool in worker_pools(spec):
        machine = pool["machine_spec"]
        count = int(machine.get("accelerator_count", 0)) if machine.get("accelerator_type") else 0
        try:
            check_pair(machine["machine_type"], machine.get("accelerator_type"), count, step)
        except UserError as error:
            yield str(error)
    for step, container in executors(spec):
        kind = container.get("resources", {}).get("accelerator", {}).get("resourceType")
        if kind and kind not in (*ACCELERATORS, IN_CLUSTER):
            yield f"{step}: no accelerator is called {kind}; allowed: {', '.join(ACCELERATORS)}"


def _conditions(spec: Spec) -> Iterator[str]:
    for dag, name, task in tasks(spec):
        if not task.get("triggerPolicy", {}).get("condition") or dag.startswith("comp-condition-branches"):
            continue
        for source in task.get("inputs", {}).get("parameters", {}).values():
            output = source.get("taskOutputParameter", {})
            if output.get("outputParameterKey", "Output") != "Output":
                yield (
                    f"{name}: a lone dsl.If on output {output['outputParameterKey']!r} of {output['producerTask']} is"
                    " skipped by the local runner without a word; give it a dsl.Else"
                )


def _caching(spec: Spec) -> Iterator[str]:
    for _, name, task in tasks(spec):
        if name in STEPS and not STEPS[name].cached and task.get("cachingOptions", {}).get("enableCache"):
            yield f"{name}: is cached, but what it does depends on the registry"


def _node_selectors(spec: Spec, platforms: list[Any]) -> Iterator[str]:
    selected = {
        name.removeprefix("exec-")
        for platform in platforms
        for name, settings in (platform or {})
        .get("platforms", {})
        .get("kubernetes", {})
        .get("deploymentSpec", {})
        .get("executors", {})
        .items()
        if settings.get("nodeSelector")
    }
    for step, container in executors(spec):
        kind = container.get("resources", {}).get("accelerator", {}).get("resourceType")
        if kind == IN_CLUSTER and step not in selected:
            yield f"{step}: asks for a GPU on Kubernetes without a node selector"


def _parameters(spec: Spec, job: AnyJob) -> Iterator[str]:
    inputs = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    expected = sections(job)
    for name in sorted(set(inputs) - set(expected) - _RUNTIME):
        yield f"parameter {name}: no section of the job is called so"
    for name, value in expected.items():
        if name not in inputs:
            yield f"section {name}: the pipeline has no such parameter"
        elif inputs[name]["parameterType"] != "STRUCT":
            yield f"parameter {name}: is {inputs[name]['parameterType']}, a section is STRUCT"
        elif inputs[name].get("defaultValue") != value:
            yield f"parameter {name}: its default is not the job's section"
