"""A step's pod on Kubernetes: what it asks for, where it may run, what is mounted, how often it is tried."""

from __future__ import annotations

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
