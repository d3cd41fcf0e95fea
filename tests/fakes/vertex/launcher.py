"""GCPC's own launcher of custom and tuning jobs, run with its clients at this server; and what runs in a custom job."""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.auth.credentials import AnonymousCredentials

from tests.fakes.vertex.forked import finish

_GCPC = "google_cloud_pipeline_components.container.v1"
MODULE, TUNING = f"{_GCPC}.custom_job.launcher", f"{_GCPC}.hyperparameter_tuning_job.launcher"
POLLING = 0.2  # seconds, instead of 20
WORKER_RESTARTS, JOB_RESTARTS = 5, 3
"""Of a worker that exits non-zero, and of the job after those: "Understand the custom training service" in Vertex AI's
documentation."""
_PLACEHOLDER = re.compile(r"\{\{\$\.inputs\.parameters\['([\w-]+)'\]\}\}")


@dataclass(frozen=True)
class Launched:
    """A custom job that was made: what its containers run, and one environment for each of them."""

    name: str
    command: list[str]
    environments: list[dict[str, str]]
    restarts: bool  # of the job, when a machine is taken away
    again: tuple[int, int]  # restarts of a worker that exits non-zero, and then of the job


def resolved(arguments: list[str], values: dict[str, Any], executor_input: str) -> list[str]:
    """Arguments of the launcher's container as the backend fills them in before it starts.

    Args:
        arguments: with placeholders.
        values: parameters of the step; a text is put in as it is, anything else as JSON.
        executor_input: of the step, as JSON; it goes on to the program of the job that is launched.
    """

    def put(found: re.Match[str]) -> str:
        value = values.get(found[1])
        return json.dumps(value)[1:-1] if isinstance(value, str) else json.dumps(_whole(value))

    filled = []
    for text in arguments:
        if text.startswith('{"Concat"'):
            text = "".join(json.loads(text)["Concat"])
        inside = re.match(r"\{(?!\{)", text)  # JSON, in which a text is escaped
        while _PLACEHOLDER.search(text):  # a value may name others
            text = _PLACEHOLDER.sub(put if inside else lambda found: str(values.get(found[1])), text)
        filled.append(text.replace("{{$.json_escape[1]}}", json.dumps(executor_input)[1:-1]))
    return filled


def _whole(value: Any) -> Any:
    """`value` as the backend writes it: a double without a fraction is written as an integer."""
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def start(arguments: list[str], service: str, labels: dict[str, str], output: int) -> int:
    """GCPC's own launcher in a process of its own, with its clients at `service`; the process id.

    Args:
        arguments: of its container: `python3 -m MODULE --type ...`.
        service: URL of the server.
        labels: of the pipeline run, which the service hands on.
        output: descriptor of its log.
    """
    process = os.fork()
    if process:
        return process

    def launch() -> None:
        logging.basicConfig(level=logging.INFO, force=True)
        os.environ["VERTEX_AI_PIPELINES_RUN_LABELS"] = json.dumps(labels)
        runner = importlib.import_module(f"{_GCPC}.gcp_launcher.job_remote_runner")
        runner._POLLING_INTERVAL_IN_SECONDS = POLLING
        kind = runner.aiplatform.gapic.JobServiceClient
        runner.aiplatform.gapic.JobServiceClient = lambda *_, **__: kind(
            credentials=AnonymousCredentials(), client_options={"api_endpoint": service}, transport="rest"
        )
        module = next(part for part in arguments if part in (MODULE, TUNING))
        importlib.import_module(module).main(arguments[arguments.index(module) + 1 :])

    finish(launch, output)


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
    return Launched(made["name"], command, environments, restarts, (0, 0) if final else (WORKER_RESTARTS, JOB_RESTARTS))


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
