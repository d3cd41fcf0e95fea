"""A job's training as a Kubernetes object for Kubeflow's trainer: the same image, configuration and machine."""

from __future__ import annotations

import json
from typing import Any, Literal

import yaml

from core import storage
from core.errors import UserError
from core.processes.accelerators import EXPECTED
from core.schemes import REMOTE
from factory.job import AnyJob
from pipelines.machines import IN_CLUSTER, Machine, choose
from pipelines.settings import Settings

Kind = Literal["TrainJob", "PyTorchJob"]
RUNTIME = "torch-distributed"  # the ClusterTrainingRuntime that Kubeflow Trainer installs


class Plain(yaml.SafeDumper):
    """Objects as people write them."""

    def ignore_aliases(self, data: Any) -> bool:
        """No YAML anchors: people read and edit this."""
        return True


_SIDECAR = "sidecar.istio.io/inject"
_USER = 10001  # of containers/Dockerfile


def manifest(
    job: AnyJob, machines: dict[str, Machine], image: str, out: str, *, kind: Kind = "TrainJob", namespace: str = ""
) -> str:
    """YAML for `kubectl create -f -`: `resources.replicas` nodes of the row `resources.train`, a process for each GPU.

    Args:
        job: what to train.
        machines: rows of resources.yaml.
        image: full name with its tag.
        out: where model and checkpoints go; remote.
        kind: TrainJob of Kubeflow Trainer 2, or PyTorchJob of the training operator before it.
        namespace: of the object; empty: kubectl's own.

    Raises:
        UserError: the job does not train, or pods could not reach its data or `out`.
    """
    if job.kind != "training":
        raise UserError(f"{job.job}: a sampling job trains nothing")
    if not storage.is_remote(out):
        raise UserError(f"--out {out} is on this machine; pods need a {REMOTE} prefix")
    data_dir = job.data.data_dir
    if data_dir and not storage.is_remote(data_dir):
        raise UserError(f"data.data_dir: {data_dir} is on this machine; name a {REMOTE} prefix")
    machine = choose(machines, job.resources.train, "resources.train")
    metadata: dict[str, Any] = {"generateName": f"{job.job}-", "labels": {"app.kubernetes.io/name": "textdiffusion"}}
    if namespace:
        metadata["namespace"] = namespace
    values = json.dumps(job.model_dump(mode="json", exclude_none=True), sort_keys=True)
    container = _container(machine, image) | {"args": ["train-job", "--job", values, "--out", out]}
    spec = (_train_job if kind == "TrainJob" else _pytorch_job)(job, machine, container)
    group = "trainer.kubeflow.org/v1alpha1" if kind == "TrainJob" else "kubeflow.org/v1"
    body = {"apiVersion": group, "kind": kind, "metadata": metadata, "spec": spec}
    return yaml.dump(body, Dumper=Plain, sort_keys=False, width=4096)


def nodes(job: AnyJob, machines: dict[str, Machine], image: str, settings: Settings) -> str:
    """The TrainJob by which a step of a pipeline trains on `resources.replicas` nodes, as JSON; the step adds its name
    and what its nodes are to do (components/trainer.py). Empty for one node."""
    if job.kind != "training" or job.resources.replicas == 1:
        return ""
    machine = choose(machines, job.resources.train, "resources.train")
    container = _container(machine, image)
    container["env"] += [{"name": name, "value": value} for name, value in settings.kubeflow_environment.items()]
    container["env"] += [
        {"name": key, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
        for secret, keys in settings.kubeflow_secrets.items()
        for key in keys
    ]
    spec = _train_job(job, machine, container, account=settings.kubeflow_service_account)
    metadata = {"labels": {"app.kubernetes.io/name": "textdiffusion"}}
    body = {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "metadata": metadata, "spec": spec}
    return json.dumps(body, sort_keys=True)


def _container(machine: Machine, image: str) -> dict[str, Any]:
    return {
        "image": image,
        "command": ["textdiffusion"],
        "env": [
            {"name": "TEXTDIFFUSION_IMAGE", "value": image},
            {"name": EXPECTED, "value": str(machine.accelerator_count)},
            {"name": "TEXTDIFFUSION_PROCESSES", "value": str(machine.accelerator_count or 1)},
        ],
    }


def resources(machine: Machine) -> dict[str, Any]:
    """Limits of one node, a little below the machine's size: Kubernetes needs some of it itself."""
    cpu, megabytes = machine.requested()
    limits = {"cpu": f"{cpu:g}", "memory": f"{megabytes}M"}
    if machine.accelerator_type:
        limits[IN_CLUSTER] = str(machine.accelerator_count)
    return {"limits": limits, "requests": dict(limits)}


def _pod(machine: Machine, spec: dict[str, Any]) -> dict[str, Any]:
    """A pod's template. Without the annotation a namespace of Kubeflow's puts a proxy of Istio into it, which stands
    between the processes and never ends; KFP marks its own pods likewise."""
    none = {_SIDECAR: "false"}
    return {"metadata": {"labels": {**machine.kubernetes.labels, **none}, "annotations": none}, "spec": spec}


def pod_spec(machine: Machine, container: dict[str, Any]) -> dict[str, Any]:
    """What a pod needs around its container: no rights, a read-only root, places for scratch and shared memory."""
    pod: dict[str, Any] = {
        "securityContext": {"runAsNonRoot": True, "runAsUser": _USER},
        "containers": [
            {
                **container,
                "securityContext": {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False},
                "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}, {"name": "memory", "mountPath": "/dev/shm"}],
            }
        ],
        "volumes": [{"name": "scratch", "emptyDir": {}}, {"name": "memory", "emptyDir": _shared_memory(machine)}],
    }
    own = machine.kubernetes
    for number, (claim, path) in enumerate(own.claims.items()):
        pod["containers"][0]["volumeMounts"].append({"name": f"claim-{number}", "mountPath": path})
        pod["volumes"].append({"name": f"claim-{number}", "persistentVolumeClaim": {"claimName": claim}})
    taints = [taint.model_dump(exclude_none=True, exclude_defaults=True) for taint in own.tolerations]
    more = {
        "nodeSelector": dict(machine.node_selector),
        "tolerations": taints,
        "imagePullSecrets": [{"name": name} for name in own.pull_secrets],
    }
    return pod | {key: value for key, value in more.items() if value}


def _shared_memory(machine: Machine) -> dict[str, str]:
    size = machine.kubernetes.shared_memory
    return {"medium": "Memory"} | ({"sizeLimit": size} if size else {})


def _train_job(job: AnyJob, machine: Machine, container: dict[str, Any], account: str | None = None) -> dict[str, Any]:
    pod = pod_spec(machine, {"name": "node"})  # job and container of that runtime are both called so
    if account:
        pod["serviceAccountName"] = account
    patch = {"name": "node", "template": {"spec": {"template": _pod(machine, pod)}}}
    return {
        "activeDeadlineSeconds": _seconds(job),
        "runtimeRef": {"name": RUNTIME},
        "trainer": {
            **container,
            "numNodes": job.resources.replicas,
            "numProcPerNode": machine.accelerator_count or 1,
            "resourcesPerNode": resources(machine),
        },
        "runtimePatches": [
            {
                "manager": "textdiffusion/manifest",
                "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [patch]}}},
            }
        ],
    }


def _pytorch_job(job: AnyJob, machine: Machine, container: dict[str, Any]) -> dict[str, Any]:
    pod = pod_spec(machine, {"name": "pytorch", **container, "resources": resources(machine)})  # the operator's name

    def replicas(count: int) -> dict[str, Any]:
        return {"replicas": count, "restartPolicy": "OnFailure", "template": _pod(machine, pod)}

    counts = {"Master": 1, "Worker": job.resources.replicas - 1}
    return {
        "runPolicy": {"backoffLimit": 10, "activeDeadlineSeconds": _seconds(job), "cleanPodPolicy": "Running"},
        "pytorchReplicaSpecs": {name: replicas(count) for name, count in counts.items() if count},
    }


def _seconds(job: AnyJob) -> int:
    return round(job.resources.timeout_hours * 3600)
