"""One step of a run: its executor input, its custom job, its program in a fork of the runner."""

from __future__ import annotations

import hashlib
import importlib
import itertools
import json
import logging
import os
import re
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from kfp import dsl
from kfp.dsl import executor_main
from kfp.local import executor_input_utils, executor_output_utils

from core.processes import accelerators
from tests.fakes import unprivileged
from tests.fakes.vertex import gcsfuse, launcher, tuning
from tests.fakes.vertex.forked import finish

INSIDE = Path(__file__).with_name("inside")
"""On the path of the programs that a step starts."""
PROGRAM = "textdiffusion"  # the entry point of the image
PROGRESS = re.compile(r": \d+(/\d+)? examples")  # what a training says once it trains
TAKEN_AWAY = (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM)  # how a process ends whose machine is taken


class StepError(Exception):
    """A step that ended badly, with the words the service uses and its canonical code."""

    def __init__(self, message: str, code: int = 13) -> None:
        super().__init__(message)
        self.code = code


class Step:
    """One leaf task with resolved arguments."""

    def __init__(
        self,
        runner: Any,
        name: str,
        task: Any,
        component: Any,
        executor: Any,
        arguments: dict[str, Any],
        identity: int,
    ) -> None:
        self.runner, self.name, self.task = runner, name, task
        self.component, self.executor, self.arguments = component, executor, arguments
        place = runner.order.get("place", "{root}/{name}_-{number}")
        self.root = place.format(root=runner.order["root"], name=name, number=identity, uuid=uuid.UUID(int=identity))
        if executor.WhichOneof("spec") == "container":
            self.message = executor_input_utils.construct_executor_input(
                component, arguments, task_root=self.root, block_input_artifact=False
            )
            self.message.outputs.output_file = runner.storage.local(self.message.outputs.output_file)
            for parameter in self.message.outputs.parameters.values():
                parameter.output_file = runner.storage.local(parameter.output_file)
            self.input = executor_input_utils.executor_input_to_dict(self.message, component)
            self._resolve_places()
        self.job = ""

    def _resolve_places(self) -> None:
        """Values that only the service knows; what it does not know is left out."""
        order = self.runner.order
        known = {
            "{{$.pipeline_google_cloud_location}}": order["location"],
            "{{$.pipeline_google_cloud_project_id}}": order["project"],
            "{{$.pipeline_job_name}}": order["name"].rsplit("/", 1)[1],
            "{{$.pipeline_job_resource_name}}": order["name"],
            "{{$.pipeline_root}}": order["root"],
            "{{$.pipeline_task_name}}": self.name,
            "{{$.pipeline_persistent_resource_id}}": "",
            "{{$.pipeline_service_account}}": order["service_account"],
        }
        values = self.input.get("inputs", {}).get("parameterValues", {})
        for key, value in values.items():
            if isinstance(value, str):
                for placeholder, meaning in known.items():
                    value = value.replace(placeholder, meaning)
                values[key] = value

    def inputs(self) -> dict[str, Any]:
        parameters = {k: v for k, v in self.arguments.items() if not is_artifact(v)}
        return {"parameters": parameters, "artifacts": described(self.arguments)["artifacts"]}

    def cache_key(self) -> str:
        """As KFP's cacheutils makes it: of an input artifact its name alone, which is that of its resource."""
        container = self.executor.container
        key = [
            self.runner.order["spec"]["pipelineInfo"]["name"],
            container.image,
            list(container.command),
            list(container.args),
            [(e.name, e.value) for e in container.env],
            self.inputs()["parameters"],
            {key: artifact["name"] for key, artifact in self.inputs()["artifacts"].items()},
        ]
        return hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()

    def new_job(self) -> str:
        """Every container step of a run is a custom job of its own, so that its log can be found."""
        resources = self.executor.container.resources
        machine: dict[str, Any] = {"machineType": "e2-standard-4"}
        accelerator = resources.accelerator
        if accelerator.type or accelerator.resource_type:
            count = int(accelerator.resource_count or accelerator.count or 1)
            machine = {
                "machineType": "n1-standard-8",
                "acceleratorType": accelerator.resource_type or accelerator.type,
                "acceleratorCount": count,
            }
            if machine["acceleratorType"] == "NVIDIA_L4":
                machine["machineType"] = "g2-standard-8"
        pool = {
            "machineSpec": machine,
            "replicaCount": 1,
            "containerSpec": {"imageUri": self.executor.container.image or "python:3.11"},
        }
        try:
            made = self.runner.post("customJobs", {"displayName": self.name, "jobSpec": {"workerPoolSpecs": [pool]}})
        except StepError as error:
            self.refused = error
            return ""
        self.job = made["name"]
        return self.job

    refused: StepError | None = None

    def run(self) -> dict[str, Any]:
        """Runs the step's program once.

        Raises:
            StepError: It failed.
        """
        if self.refused:
            raise self.refused
        container = self.executor.container
        command, text = [*container.command, *container.args], json.dumps(self.input)
        if tuning.MODULE in command:
            return self._tune(command)
        if launcher.MODULE in command:
            with self._launching(command, text) as name:
                self._work(launcher.launched(self.runner.get(name)))
            return self._outputs()
        secret = self.runner.order.get("secrets", {}).get(self.component.executor_label, {})
        given = {**{e.name: e.value for e in container.env}, **secret}
        command = [part.replace("{{$.json_escape[1]}}", text).replace("{{$}}", text) for part in command]
        self._work(launcher.Launched(self.job, command, [given], False, (0, 0)))
        return self._outputs()

    def _outputs(self) -> dict[str, Any]:
        outputs = dict(executor_output_utils.get_outputs_for_task(self.message, self.component))
        missing = set(self.component.output_definitions.parameters) - set(outputs) - {"gcp_resources"}
        if missing:
            raise StepError(f"Output parameter {sorted(missing)[0]} of {self.name} was not written.")
        for key, value in outputs.items():
            for artifact in value if isinstance(value, list) else [value]:
                if isinstance(artifact, dsl.Artifact):  # each that a step makes is another resource, wherever it lies
                    artifact.name = f"{self.root}/{key}"
        return outputs

    def _work(self, made: launcher.Launched) -> None:
        """Runs a job's program in its containers, and again as the service does.

        Raises:
            StepError: it failed in the end.
        """
        for artifacts in self.message.inputs.artifacts.values():
            for artifact in artifacts.artifacts:
                self.runner.storage.download(artifact.uri)
        begun, (workers, jobs) = self.runner.order["begun"], made.again
        if begun and workers:  # a probe has told how often the service really begins one
            workers, jobs = begun - 1, 0
        fault = self._fault()
        code = self._spawn(made.command, made.environments, made.name, fault)
        while code in TAKEN_AWAY and made.restarts:
            self._say(made.name, "The replica workerpool0-0 was preempted; restarting the job.")
            code = self._spawn(made.command, made.environments, made.name, None)
        said = f"The replica workerpool0-0 exited with a non-zero status of {code}; restarting the"
        for attempt in range(1, (1 + workers) * (1 + jobs)):
            if code <= 0 or code in TAKEN_AWAY:
                break
            self._say(made.name, f"{said} {'worker' if attempt % (1 + workers) else 'job'}.")
            code = self._spawn(made.command, made.environments, made.name, None)
        self.runner.storage.upload(self.root)
        if code != 0:
            raise StepError(
                "The replica workerpool0-0 exited with a non-zero status of 1. To find out more about why your job "
                f"exited please check the logs: {made.name}"
            )

    @contextmanager
    def _launching(self, command: list[str], text: str) -> Iterator[str]:
        """The resource name of the job that GCPC's launcher makes, while it watches the job; the job's end is told to
        the service, which tells the launcher.

        Raises:
            StepError: the launcher failed, in the words that the service has for it.
        """
        where = Path(self.message.outputs.parameters["gcp_resources"].output_file)
        where.unlink(missing_ok=True)
        values = {**self.input["inputs"]["parameterValues"]}
        arguments = launcher.resolved(command, values, text)
        arguments[arguments.index("--gcp_resources") + 1] = str(where)
        with tempfile.TemporaryFile() as log:
            process = launcher.start(arguments, self.runner.order["service"], self.runner.order["labels"], log.fileno())
            ended = None
            while ended is None and not (where.exists() and where.stat().st_size):
                time.sleep(0.02)
                ended = self._ended(process)
            if ended is not None:
                raise StepError(_last(log), 8 if "429" in _last(log) else 3)
            self.runner.storage.upload(self.root)  # readable while the job runs
            name = self.runner.name_in(where)
            for line in _said(log).splitlines():  # those of its polling, every 20 s there, are left out
                self._say(self.job, line)
            try:
                if self._fault("stockout"):
                    raise StepError(self._no_machine(name), 8)
                while self.runner.get(name)["state"] == "JOB_STATE_QUEUED":  # for quota
                    time.sleep(0.1)
                self.runner.report("job", job=name, state="JOB_STATE_RUNNING")
                yield name
            except StepError as error:
                self.runner.report("job", job=name, state="JOB_STATE_FAILED", error=str(error), code=error.code)
                os.waitpid(process, 0)
                raise
            self.runner.report("job", job=name, state="JOB_STATE_SUCCEEDED")
            if os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]):
                raise StepError(_last(log))

    @staticmethod
    def _ended(process: int) -> int | None:
        """The exit status of a child; None while it runs."""
        done, status = os.waitpid(process, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if done else None

    def _no_machine(self, name: str) -> str:
        spec = self.runner.get(name)["jobSpec"]
        machine = spec["workerPoolSpecs"][0]["machineSpec"]["machineType"]
        return (
            f"RESOURCE_EXHAUSTED: Resources are insufficient in region: {self.runner.order['location']}"
            f" for {machine}. Please try a different region or other machines."
        )

    def _tune(self, command: list[str]) -> dict[str, Any]:
        """What the service does with a hyper-parameter tuning job, which GCPC's launcher makes and watches."""
        with self._launching(command, json.dumps(self.input)) as name:
            made = self.runner.get(name)
            failed = tuning.Trials(self, made).run()
            if failed >= made.get("maxFailedTrialCount", made["maxTrialCount"]):
                raise StepError(f"Too many trials failed; the last are in {name}")
        return self._outputs()

    def spawn_program(self, command: list[str], environment: dict[str, str], job: str, image: str) -> int:
        """Runs a program of the image, what its request names in the mounted folder; its exit code."""
        request = json.loads(self.runner.storage.read(next(part for part in command if part.startswith("gs://"))))
        for uri in request["inputs"].values():
            self.runner.storage.download(uri)
        return self._spawn(command, [environment], job, None, root=image.endswith("-trials"))

    @property
    def _rules(self) -> str:
        """The folder that is to have gcsfuse's rules; empty if gcsfuse itself has it, or a scratch volume is there."""
        order = self.runner.order
        return "" if order["mounted"] or not order.get("rules", True) else str(order["mount"])

    def _fault(self, only: str | None = None) -> str | None:
        """Takes one injected fault for this step, if the test left one (`FOLDER/STEP.KIND`)."""
        for kind in [only] if only else ["preempt", "crash"]:
            mark = Path(self.runner.order["faults"], f"{self.name}.{kind}")
            if mark.exists():
                left = int(mark.read_text() or 1) - 1
                mark.write_text(str(left)) if left else mark.unlink()
                return kind
        return None

    def _say(self, job: str, text: str) -> None:
        self.runner.report("log", job=job, text=text)

    def _spawn(
        self, command: list[str], environments: list[dict[str, str]], job: str, fault: str | None, *, root: bool = False
    ) -> int:
        """Runs the component's program once for each replica, in forks of this process, which has the heavy imports
        already; the exit code is the first that is not 0."""
        source = _source_of(command)
        if source is None and command[0] != PROGRAM:
            raise StepError(f"The image's own program cannot be run here: {command[:3]}", 12)
        reader, writer = os.pipe()
        sys.stdout.flush()
        replicas = []
        for environment in environments:
            process = os.fork()
            if process == 0:
                os.close(reader)
                finish(partial(_do_step, command, environment, source, self._rules, root), writer)
            replicas.append(process)
        os.close(writer)
        doomed = list(replicas) if fault == "preempt" else []
        with open(reader, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.strip():
                    self._say(job, line.rstrip("\n"))
                while doomed and PROGRESS.search(line):  # one is taken away in its work, and the job with it
                    os.kill(doomed.pop(), signal.SIGKILL)
        codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in replicas]
        if fault == "crash":
            return 1
        return next((code for code in codes if code), 0)


def _do_step(command: list[str], environment: dict[str, str], source: str | None, mount: str, root: bool) -> None:
    """What a forked process does: as the image's user, under gcsfuse's rules in the mounted bucket, KFP's own executor,
    or without a component's source the image's entry point."""
    os.umask(0o022)
    (unprivileged.begin_as_root if root else unprivileged.become)()
    logging.getLogger().handlers.clear()
    os.environ.update({key: str(value) for key, value in environment.items()}, _KFP_RUNTIME="true")
    os.environ[accelerators.EXPECTED] = "0"  # the machines of this service have no GPUs, whatever was asked for
    if mount:
        os.environ[gcsfuse.MOUNT] = mount
        os.environ["PYTHONPATH"] = os.pathsep.join([str(INSIDE), os.environ.get("PYTHONPATH", "")])
        rules = gcsfuse.rules(mount)
        rules.__enter__()  # for as long as this process lives
    if source is None:
        sys.exit(importlib.import_module("components.__main__").main(command[1:]))
    with tempfile.TemporaryDirectory() as folder:
        module = Path(folder, "ephemeral_component.py")
        module.write_text(source)
        rest = command[command.index("--executor_input") :]
        sys.argv = ["executor_main", "--component_module_path", str(module), *rest]
        executor_main.executor_main()


def _last(log: Any) -> str:
    """The end of what a launcher said, in a line."""
    return " ".join(_said(log)[-600:].split()) or "The launcher ended."


def _said(log: Any) -> str:
    """What a launcher said until now; its place in the file, which is shared with it, stays."""
    return os.pread(log.fileno(), 1_000_000, 0).decode(errors="replace")


def _source_of(command: list[str]) -> str | None:
    """The Python source that a lightweight component carries in its command."""
    for shell, source in itertools.pairwise(command):
        if "ephemeral_component.py" in shell and "executor_main" in shell:
            return source
    return None


def is_artifact(value: Any) -> bool:
    return isinstance(value, dsl.Artifact) or (isinstance(value, list) and bool(value) and is_artifact(value[0]))


def described(values: dict[str, Any]) -> dict[str, Any]:
    """Values of a step as JSON: parameters, and artifacts with URI, schema and metadata."""
    artifacts = {}
    for key, value in values.items():
        if is_artifact(value):
            one = value[0] if isinstance(value, list) else value
            artifacts[key] = {"name": one.name, "uri": one.uri, "schema_title": one.schema_title,
                              "metadata": dict(one.metadata)}  # fmt: skip
    return {"parameters": {k: v for k, v in values.items() if k not in artifacts}, "artifacts": artifacts}


def restored(described: dict[str, Any]) -> dict[str, Any]:
    made = {
        key: _artifact_class(a["schema_title"])(name=a["name"], uri=a["uri"], metadata=a["metadata"])
        for key, a in described["artifacts"].items()
    }
    return {**described["parameters"], **made}


def _artifact_class(title: str) -> Any:
    return next(
        (
            kind
            for kind in vars(dsl).values()
            if isinstance(kind, type) and getattr(kind, "schema_title", None) == title
        ),
        dsl.Artifact,
    )
