"""A registered model in service on Kubernetes: KServe's `InferenceService`, of the same image, model and machine.

https://kserve.github.io/website/docs/reference/crd-api
"""

from __future__ import annotations

from typing import Any

import yaml

from components.vertex_registry import ARGUMENTS, COMMAND, PORT
from core import storage
from core.errors import UserError
from core.processes.accelerators import EXPECTED
from core.schemes import REMOTE
from factory.registry import Registry
from pipelines.kubeflow.manifest import Plain, pod_spec, resources
from pipelines.machines import Machine

MOUNTED = "/mnt/models"  # where KServe's storage initializer puts what STORAGE_URI names
CONTAINER = "kserve-container"  # the name by which KServe knows the container that answers
CONCURRENCY = 4  # requests at once that one machine is meant to have: a batch of a CPU


def inference_service(
    name: str,
    registry: str,
    machine: Machine,
    image: str,
    *,
    least: int = 1,
    most: int = 1,
    canary: int | None = None,
    namespace: str = "",
) -> str:
    """YAML for `kubectl apply -f -`.

    Args:
        name: MODEL, which follows its champion without a new pod; or MODEL@VERSION, that version and no other.
        registry: where it is; gs://, or for MODEL@VERSION what KServe fetches too.
        machine: row of resources.yaml.
        image: full name with its tag.
        least: machines that always run; 0: none while nobody asks, where KServe runs on Knative.
        most: machines.
        canary: percent of the traffic for this version, while the one that was applied before keeps the rest.
        namespace: of the object; empty: kubectl's own.

    Raises:
        UserError: there is no such model, pods could not reach it, or bounds or canary are not possible.
    """
    model, _, wanted = name.partition("@")
    version = Registry(registry).resolve(name)
    if not storage.is_remote(registry):
        raise UserError(f"registry {registry}: is on this machine; pods need a {REMOTE} prefix")
    if not 0 <= least <= most or most < 1:
        raise UserError(f"replicas: found {least} to {most}; allowed: 0 or more, the first not above the second")
    pinned = wanted.isdecimal()
    if canary is not None and not pinned:
        raise UserError(f"--canary: {name} follows its champion; name MODEL@VERSION to give it a part of the traffic")
    if not pinned and not registry.startswith("gs://"):
        raise UserError(f"{registry}: the service reads gs:// only; name MODEL@VERSION, and KServe fetches it")
    source = [MOUNTED] if pinned else [model, "--registry", registry]
    container = _container(machine, image, source, version.uri if pinned else "")
    predictor = {
        "minReplicas": least,
        "maxReplicas": most,
        "scaleMetric": "concurrency",
        "scaleTarget": CONCURRENCY,
        **({} if canary is None else {"canaryTrafficPercent": canary}),
        **pod_spec(machine, container),
    }
    labels = {"app.kubernetes.io/name": "textdiffusion"} | ({"version": str(version.version)} if pinned else {})
    metadata: dict[str, Any] = {"name": model, "labels": labels}
    if namespace:
        metadata["namespace"] = namespace
    body = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": metadata,
            "spec": {"predictor": predictor}}  # fmt: skip
    return yaml.dump(body, Dumper=Plain, sort_keys=False, width=4096)


def _container(machine: Machine, image: str, source: list[str], fetched: str) -> dict[str, Any]:
    """The container that serves `source`; KServe fetches the folder at the URI `fetched` before, if there is one."""
    environment = [{"name": EXPECTED, "value": str(machine.accelerator_count)}]
    if fetched:
        environment.append({"name": "STORAGE_URI", "value": fetched})
    return {
        "name": CONTAINER,
        "image": image,
        "command": [COMMAND],
        "args": [*ARGUMENTS, *source, "--host", "0.0.0.0", "--port", str(PORT)],
        "env": environment,
        "ports": [{"containerPort": PORT, "protocol": "TCP"}],
        "resources": resources(machine),
        "readinessProbe": {"httpGet": {"path": "/v2/health/ready", "port": PORT}, "periodSeconds": 5},
        "livenessProbe": {"httpGet": {"path": "/v2/health/live", "port": PORT}, "periodSeconds": 10},
    }
