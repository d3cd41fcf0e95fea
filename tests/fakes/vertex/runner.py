"""The child process of one pipeline run: kfp.local walks the compiled DAG, each step runs as it would in its container.

A step sees what it sees on Vertex AI: `gs://` URIs in its executor input, the bucket mounted as a folder (here a
private folder that is filled from and flushed to the storage server around the step), and its environment variables. A
step that was wrapped as a custom job is created through the job service over HTTP, machine checks included, and then
its wrapped component is run. Only lightweight Python components are known.

The server starts `python -m tests.fakes.vertex.runner MODULE ...` once and has it fork a runner for each run.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from kfp import local
from kfp.dsl.types import artifact_types
from kfp.local import importer_handler, pipeline_orchestrator, status
from kfp.local.orchestrator import enhanced_dag_orchestrator, task_executor
from kfp.local.orchestrator.orchestrator_utils import OrchestratorUtils
from kfp.pipeline_spec import pipeline_spec_pb2

from tests.fakes.vertex import forked, launcher
from tests.fakes.vertex.mount import Bucket, Mounted, S3Bucket
from tests.fakes.vertex.step import Step, StepError, described, restored


class Runner:
    """Executes one order (see `Execution`) and reports each change as one JSON line."""

    def __init__(self, order: dict[str, Any], events: Any) -> None:
        self.order, self._events = order, events
        self.failed: list[str] = []
        self.dag = ["0"]
        self.touched: set[str] = set()
        kind = Mounted if order["mounted"] else S3Bucket if order["root"].startswith("s3://") else Bucket
        self.storage = kind(order["storage"], order["mount"])
        self.storage.kept_back = order.get("kept_back", "")
        self.number = random.Random(order["name"]).randrange(10**14, 10**15)

    def report(self, event: str, **fields: Any) -> None:
        self._events.write(json.dumps({"event": event, **fields}) + "\n")
        self._events.flush()

    def run(self) -> None:
        artifact_types._GCS_LOCAL_MOUNT_PREFIX = artifact_types._S3_LOCAL_MOUNT_PREFIX = self.order["mount"]
        task_executor.execute_single_task = self.step
        self._dag_task, enhanced_dag_orchestrator.execute_task = enhanced_dag_orchestrator.execute_task, self.task
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=self.order["mount"], raise_on_error=False)
        spec = json_format.ParseDict(self.order["spec"], pipeline_spec_pb2.PipelineSpec())
        parameters = _with_integers(self.order["parameters"], spec.root.input_definitions)
        pipeline_orchestrator.run_local_pipeline(pipeline_spec=spec, arguments=parameters)
        untouched = [{"task": name, "parent": 0} for name in spec.root.dag.tasks if name not in self.touched]
        self.report("result", failed=self.failed, untouched=untouched)

    def task(self, *, task_name: str, task_spec: Any, components: Any, **rest: Any) -> Any:
        """A task of a DAG with control flow: a nested DAG is reported around its steps."""
        inside = components[task_spec.component_ref.name].WhichOneof("implementation") == "dag"
        arguments = {"task_name": task_name, "task_spec": task_spec, "components": components, **rest}
        if not inside:
            return self._dag_task(**arguments)
        identity = self._identity()
        self.touched.add(task_name)
        self.report("started", task=task_name, id=identity, parent=int(self.dag[-1]), kind="dag")
        self.dag.append(str(identity))
        outputs, result = self._dag_task(**arguments)
        self.dag.pop()
        state = "SUCCEEDED" if result == status.Status.SUCCESS else "FAILED"
        self.report("finished", task=task_name, state=state, kind="dag")
        tasks = components[task_spec.component_ref.name].dag.tasks
        for name in tasks:
            if name not in self.touched and state == "SUCCEEDED":
                self.touched.add(name)
                self.report("started", task=name, id=self._identity(), parent=identity, kind="dag")
                self.report("finished", task=name, state="NOT_TRIGGERED", kind="dag")
        return outputs, result

    def step(self, *, task_name: str, task_spec: Any, components: Any, executors: Any, io_store: Any, **_: Any) -> Any:
        """One leaf task, with cache and retries; the replacement of kfp.local's `execute_single_task`."""
        self.touched.add(task_name)
        component = components[task_spec.component_ref.name]
        executor = executors[component.executor_label]
        arguments = OrchestratorUtils.make_task_arguments(task_spec.inputs, io_store)
        kind = executor.WhichOneof("spec")
        identity = self._identity()
        step = Step(self, task_name, task_spec, component, executor, arguments, identity)
        if kind == "importer":
            self.report("started", task=task_name, id=identity, parent=int(self.dag[-1]), kind=kind)
            outputs, _status = importer_handler.run_importer(
                pipeline_resource_name=self.order["name"],
                component_name=task_spec.component_ref.name,
                component_spec=component,
                executor_spec=executor,
                arguments=arguments,
                pipeline_root=self.order["mount"],
                unique_pipeline_id=str(self.number),
            )
            self.report(
                "finished",
                task=task_name,
                state="SUCCEEDED",
                kind=kind,
                inputs=step.inputs(),
                outputs=described(outputs),
            )
            return outputs, status.Status.SUCCESS
        cache = Path(self.order["cache"], step.cache_key())
        if task_spec.caching_options.enable_cache and cache.exists():
            self.report("started", task=task_name, id=identity, parent=int(self.dag[-1]), kind=kind)
            outputs = restored(json.loads(cache.read_text()))
            self.report(
                "finished",
                task=task_name,
                state="SKIPPED",
                kind=kind,
                inputs=step.inputs(),
                outputs=described(outputs),
            )
            return outputs, status.Status.SUCCESS
        self.report("started", task=task_name, id=identity, parent=int(self.dag[-1]), kind=kind, job=step.new_job())
        for attempt in range(task_spec.retry_policy.max_retry_count + 1):
            try:
                outputs = step.run()
                break
            except StepError as error:
                if attempt == task_spec.retry_policy.max_retry_count:
                    self.failed.append(task_name)
                    nothing = {"parameters": {}, "artifacts": {}}
                    self.report(
                        "finished",
                        task=task_name,
                        state="FAILED",
                        kind=kind,
                        error=str(error),
                        code=error.code,
                        inputs=step.inputs(),
                        outputs=nothing,
                    )
                    return {}, status.Status.FAILURE
                self.report("retried", task=task_name, error=str(error), job=step.new_job())
                time.sleep(min(task_spec.retry_policy.backoff_duration.seconds, 0.2))
        cache.write_text(json.dumps(described(outputs)))
        self.report(
            "finished",
            task=task_name,
            state="SUCCEEDED",
            kind=kind,
            inputs=step.inputs(),
            outputs=described(outputs),
            cache_key=cache.name,
        )
        return outputs, status.Status.SUCCESS

    @staticmethod
    def _identity() -> int:
        return random.SystemRandom().randrange(10**15, 10**18)

    def name_in(self, resources: Path) -> str:
        """The resource name that a launcher left in its `gcp_resources`."""
        (one,) = json.loads(resources.read_text())["resources"]
        return str(one["resourceUri"]).partition("/v1/")[2]

    def get(self, name: str) -> dict[str, Any]:
        """A resource of this run's own service."""
        with urllib.request.urlopen(f"{self.order['service']}/v1/{name}", timeout=20) as answer:
            return dict(json.load(answer))

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """A request to this run's own service, as the launcher makes it.

        Raises:
            StepError: The service refused it.
        """
        location = f"projects/{self.order['project']}/locations/{self.order['location']}"
        request = urllib.request.Request(
            f"{self.order['service']}/v1/{location}/{path}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
            method="POST",
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            said = json.load(error)["error"]
            raise StepError(f"{said['status']}: {said['message']}", 8 if error.code == 429 else 3) from None


def _with_integers(values: dict[str, Any], definitions: Any) -> dict[str, Any]:
    """Parameters as the service hands them to a pipeline: integers are integers again, JSON's numbers are doubles."""
    integer = pipeline_spec_pb2.ParameterType.ParameterTypeEnum.NUMBER_INTEGER
    return {
        name: int(value) if definitions.parameters[name].parameter_type == integer else value
        for name, value in values.items()
    }


def serve(preload: list[str]) -> None:
    """Imports once what runs need, then forks a runner for each folder named on standard input.

    A run's events go through the named pipe `FOLDER/events`; its first line is the runner's process id.
    """
    for name in (*preload, launcher.MODULE, launcher.TUNING):
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        folder = line.strip()
        if os.fork() == 0:
            os.setsid()
            os.umask(
                0
            )  # in a mounted bucket whoever may enter may do anything: modes and owners are those of the mount
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            log = os.open(Path(folder, "runner.log"), os.O_WRONLY | os.O_CREAT)
            forked.finish(lambda folder=folder: _run(Path(folder)), log)


def _run(folder: Path) -> None:
    with open(folder / "events", "w", encoding="utf-8") as events:
        runner = Runner(json.loads((folder / "order.json").read_text()), events)
        runner.report("pid", pid=os.getpid())
        runner.run()


if __name__ == "__main__":
    serve(sys.argv[1:])
