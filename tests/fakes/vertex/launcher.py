"""What the launcher of a wrapped component does: its payload becomes a custom job whose replicas know each other."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google_cloud_pipeline_components.container.v1.gcp_launcher.utils.json_util import recursive_remove_empty

MODULE = "google_cloud_pipeline_components.container.v1.custom_job.launcher"
WORKER_RESTARTS = 5
"""Of a worker that exits non-zero: "Understand the custom training service" in Vertex AI's documentation."""
_PLACEHOLDER = re.compile(r"\{\{\$\.inputs\.parameters\['([\w-]+)'\]\}\}")


@dataclass(frozen=True)
class Launched:
    """A custom job that was made: what its containers run, and one environment for each of them."""

    name: str
    command: list[str]
    environments: list[dict[str, str]]
    restarts: bool
    attempts: int


def payload(arguments: list[str], values: dict[str, Any]) -> dict[str, Any]:
    """The custom or tuning job that the launcher's `--payload` describes, as the launcher sends it.

    Args:
        arguments: of the launcher's container.
        values: parameters of the step; a text is put in as it is, anything else as JSON.
    """

    def put(found: re.Match[str]) -> str:
        value = values.get(found[1])
        return json.dumps(value)[1:-1] if isinstance(value, str) else json.dumps(value)

    text = arguments[arguments.index("--payload") + 1]
    if text.startswith('{"Concat"'):
        text = "".join(json.loads(text)["Concat"])
    while _PLACEHOLDER.search(text):  # a value may name others
        text = _PLACEHOLDER.sub(put, text)
    made = recursive_remove_empty(json.loads(text))
    if "job_spec" not in made:
        return dict(made)
    if made["job_spec"]["scheduling"].get("strategy") != "FLEX_START":
        made["job_spec"]["scheduling"].pop("max_wait_duration", None)
    return dict(made)


def launched(made: dict[str, Any]) -> Launched:
    """What runs in the containers of a custom job.

    Args:
        made: the job as the service answered.
    """
    spec = made["jobSpec"]
    pools = spec["workerPoolSpecs"]
    program = pools[0]["containerSpec"]
    given = {item["name"]: item.get("value", "") for item in program.get("env", [])}
    base = spec.get("baseOutputDirectory", {}).get("outputUriPrefix", "").rstrip("/")
    if base:
        folders = {"AIP_MODEL_DIR": "model", "AIP_CHECKPOINT_DIR": "checkpoints", "AIP_TENSORBOARD_LOG_DIR": "logs"}
        given |= {name: f"{base}/{folder}/" for name, folder in folders.items()}
    environments = [{**given, "CLUSTER_SPEC": json.dumps(cluster)} for cluster in _clusters(pools)]
    scheduling = spec.get("scheduling", {})
    final = bool(scheduling.get("disableRetries"))
    restarts = bool(scheduling.get("restartJobOnWorkerRestart")) and not final
    command = [*program.get("command", []), *program.get("args", [])]
    return Launched(made["name"], command, environments, restarts, 1 if final else 1 + WORKER_RESTARTS)


def _clusters(pools: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """CLUSTER_SPEC of each replica: https://cloud.google.com/vertex-ai/docs/training/distributed-training."""
    cluster = {
        f"workerpool{number}": [f"127.0.0.1:{_free_port()}" for _ in range(int(pool["replicaCount"]))]
        for number, pool in enumerate(pools)
    }
    for pool, hosts in cluster.items():
        for index in range(len(hosts)):
            yield {"cluster": cluster, "environment": "cloud", "task": {"type": pool, "index": index}}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
