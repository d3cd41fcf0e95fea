"""A step's pod on Kubernetes: what it asks for, where it may run, what is mounted, how often it is tried."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.machines import IN_CLUSTER, Machine

SHARED_MEMORY = "/dev/shm"


def in_pod(task: Any, machine: Machine, *, seconds: int = 0) -> None:
    """Sets up a task for the row `machine`. What is special to Kubernetes does nothing on this machine.

    Args:
        task: of a pipeline.
        machine: its row of resources.yaml.
        seconds: after which its pod is ended; 0: never.
    """
    from kfp import kubernetes

    cpu, megabytes = machine.requested()
    task.set_cpu_request(f"{cpu:g}").set_memory_request(f"{megabytes}M").set_memory_limit(f"{megabytes}M")
    pod = machine.kubernetes
    if machine.accelerator_type:
        task.set_accelerator_type(IN_CLUSTER).set_accelerator_limit(machine.accelerator_count)
        if seconds:
            kubernetes.set_timeout(task, seconds)
    for label, value in machine.node_selector.items():
        kubernetes.add_node_selector(task, label_key=label, label_value=value)
    for taint in pod.tolerations:
        kubernetes.add_toleration(
            task, key=taint.key or None, operator=taint.operator, value=taint.value or None, effect=taint.effect
        )
    for label, value in pod.labels.items():
        kubernetes.add_pod_label(task, label, value)
    if pod.pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(pod.pull_secrets))
    if shares_memory(machine):
        kubernetes.empty_dir_mount(task, "memory", SHARED_MEMORY, medium="Memory", size_limit=pod.shared_memory)
    for claim, path in pod.claims.items():
        kubernetes.mount_pvc(task, claim, path)
    if pod.retries:
        task.set_retry(pod.retries, backoff_duration=f"{pod.backoff_seconds}s", backoff_factor=2.0)


def shares_memory(machine: Machine) -> bool:
    """Whether a pod needs more shared memory than the 64 MiB of a container: NCCL's does, between several GPUs."""
    return machine.kubernetes.shared_memory is not None or machine.accelerator_count > 1


def with_secrets(
    spec: Mapping[str, Any], platform: Mapping[str, Any], secrets: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """What is special to Kubernetes in a compiled pipeline, with environment variables for every step.

    Args:
        spec: of the pipeline.
        platform: its second document; empty if it has none.
        secrets: the keys of each Kubernetes secret that become variables of the same name.
    """
    from google.protobuf import json_format
    from kfp.kubernetes import kubernetes_executor_config_pb2 as pb

    changed = copy.deepcopy(dict(platform)) if secrets else dict(platform)
    for name, executor in spec["deploymentSpec"]["executors"].items() if secrets else ():
        if "container" not in executor:
            continue
        executors = (
            changed.setdefault("platforms", {}).setdefault("kubernetes", {}).setdefault("deploymentSpec", {})
        ).setdefault("executors", {})
        settings = json_format.ParseDict(executors.get(name, {}), pb.KubernetesExecutorConfig())
        for secret, keys in secrets.items():
            given = settings.secret_as_env.add(secret_name=secret)
            given.secret_name_parameter.runtime_value.constant.string_value = secret
            for key in keys:
                given.key_to_env.add(secret_key=key, env_var=key)
        executors[name] = json_format.MessageToDict(settings)
    return changed
