"""What steps ask of Kubernetes, read from the compiled pipeline by KFP's own protos."""

from __future__ import annotations

import pytest
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2 as pb

from core.errors import UserError
from pipelines.checks import read_spec
from pipelines.compile import compile_job
from pipelines.costs import hourly
from pipelines.jobs import load_job
from pipelines.machines import load_machines

ROW = {
    "machine_type": "g2-standard-24", "cpu": 24, "memory_gb": 96, "accelerator_type": "NVIDIA_L4",
    "accelerator_count": 2, "node_selector": {"pool": "spot"},
    "kubernetes": {
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "pull_secrets": ["registry-login"], "shared_memory": "8Gi", "claims": {"team-data": "/data"},
        "retries": 3, "backoff_seconds": 30, "labels": {"azure.workload.identity/use": "true"},
    },
}  # fmt: skip


def compiled(row, **options):
    """(resources, task, Kubernetes' settings) of the step `train` on a row of one's own."""
    job = load_job("digits", ["resources.train=mine", "resources.timeout_hours=2"])
    spec, *platforms = read_spec(
        compile_job(job, image="registry.example/td:1", machines=load_machines({"mine": row}), **options)
    )
    executors = platforms[0]["platforms"]["kubernetes"]["deploymentSpec"]["executors"] if platforms else {}
    settings = json_format.ParseDict(executors.get("exec-train", {}), pb.KubernetesExecutorConfig())
    resources = spec["deploymentSpec"]["executors"]["exec-train"]["container"]["resources"]
    return resources, spec["root"]["dag"]["tasks"]["train"], settings


def test_pod_asks_for_less_than_its_node_has():
    """Allocatable on GKE: g2-standard-8 (32 GiB) 7.91 CPUs and 29.3 GB; e2-standard-4 (16 GiB) 3.92 and 14.2 GB."""
    for name, cpu, memory in (("l4", 7.91, 29.3), ("cpu", 3.92, 14.2)):
        row = load_machines()[name]
        resources, _, _ = compiled(row.model_dump(mode="json"))
        assert float(resources["resourceCpuRequest"]) < cpu - 0.4, "its own pods take some too"
        assert float(resources["resourceMemoryRequest"].removesuffix("M")) / 1000 < memory - 0.5
        assert resources["resourceMemoryLimit"] == resources["resourceMemoryRequest"]
        assert resources["resourceCpuLimit"] == str(row.cpu)


def test_rows_settings_reach_the_pod():
    resources, task, settings = compiled(ROW)
    (taint,) = settings.tolerations
    assert (taint.key, taint.operator, taint.effect) == ("nvidia.com/gpu", "Exists", "NoSchedule")
    assert [secret.secret_name for secret in settings.image_pull_secret] == ["registry-login"]
    (memory,) = settings.empty_dir_mounts
    assert (memory.mount_path, memory.medium, memory.size_limit) == ("/dev/shm", "Memory", "8Gi")
    (claim,) = settings.pvc_mount
    assert (claim.constant, claim.mount_path) == ("team-data", "/data")
    assert dict(settings.node_selector.labels) == {"pool": "spot"}
    assert settings.active_deadline_seconds == 7200
    assert dict(settings.pod_metadata.labels) == {"azure.workload.identity/use": "true"}
    assert task["retryPolicy"] == {"backoffDuration": "30s", "backoffFactor": 2.0, "backoffMaxDuration": "3600s",
                                   "maxRetryCount": 3}  # fmt: skip
    assert resources["accelerator"]["resourceCount"] == "2"


def test_a_row_may_say_itself_what_is_asked_for():
    resources, _, settings = compiled({**ROW, "kubernetes": {"cpu": 3.5, "memory_gb": 10}})
    assert (resources["resourceCpuRequest"], resources["resourceMemoryRequest"]) == ("3.5", "10000M")
    assert settings.empty_dir_mounts[0].size_limit == "", "several GPUs share memory, whatever is said"


def test_a_row_with_a_price_prices_the_steps_on_it():
    price = {"machine": 2.0, "accelerator": 1.0, "verified": True, "date": "2026-11-01", "source": "our rack"}
    rows = load_machines({"mine": {**ROW, "usd_per_hour": price}})
    job = load_job("digits", ["resources.train=mine"])
    spec = read_spec(compile_job(job, image="registry.example/td:1", machines=rows))[0]
    assert hourly(spec, {"mine": rows["mine"]}) == {"train": 4.0}


def test_what_is_for_kubernetes_is_not_in_what_vertex_is_given():
    job = load_job("digits")
    spec, *platforms = read_spec(compile_job(job, "vertex", image="registry.example/td:1"))
    resources = spec["deploymentSpec"]["executors"]["exec-prepare-data"]["container"]["resources"]
    assert (platforms, resources["resourceMemoryLimit"]) == ([], "16G")
    assert "resourceMemoryRequest" not in resources


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"tolerations": [{"operator": "Equal"}]}, "without a key the operator is Exists"),
        ({"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}, "takes no value"),
        ({"shared_memory": "much"}, "kubernetes.shared_memory"),
        ({"retries": 99}, "kubernetes.retries"),
        ({"toleration": []}, "toleration"),
    ],
)
def test_settings_that_kubernetes_would_refuse_are_one_line(changed, words):
    with pytest.raises(UserError, match=words):
        load_machines({"mine": {**ROW, "kubernetes": changed}})
