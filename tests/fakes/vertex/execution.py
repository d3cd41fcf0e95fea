"""One pipeline job being executed: a child process runs the steps, this side keeps the job's public state."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import Any

from google.cloud import aiplatform_v1 as v1
from google.protobuf import json_format

from tests.fakes.vertex.jobs import Numbers, now

_TASK = v1.PipelineTaskDetail.State
_JOB = v1.JobState
_RUN = v1.PipelineState
FINISHED = (_RUN.PIPELINE_STATE_SUCCEEDED, _RUN.PIPELINE_STATE_FAILED, _RUN.PIPELINE_STATE_CANCELLED)
_number = Numbers(1001)
REPOSITORY = Path(__file__).resolve().parents[3]


class Host:
    """The process that runs are forked from, started with the first one; heavy imports are paid once.

    Args:
        environment: Variables of the steps, beside those of this process.
        preload: Modules to import.
    """

    def __init__(self, environment: dict[str, str], preload: tuple[str, ...]) -> None:
        self._environment, self._preload = environment, preload
        self._process: subprocess.Popen[str] | None = None

    def begin(self, folder: str) -> None:
        """Starts the run that is described in `folder`."""
        if self._process is None:
            path = [self._environment.get("PYTHONPATH", ""), str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
            environment = {
                **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
                **self._environment,
                "PYTHONPATH": os.pathsep.join(filter(None, path)),
                "OMP_NUM_THREADS": "1",
                "TOKENIZERS_PARALLELISM": "false",
            }
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fakes.vertex.runner", *self._preload],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                text=True,
                env=environment,
                cwd=REPOSITORY,
            )
        assert self._process.stdin is not None
        self._process.stdin.write(folder + "\n")
        self._process.stdin.flush()

    @property
    def pid(self) -> int:
        """Its process id, 0 before the first run; runners are its children, and steps are theirs."""
        return self._process.pid if self._process else 0

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class Execution:
    """Runs a job's spec in a child process and writes task details, metadata and log entries as it goes."""

    def __init__(self, server: Any, job: v1.PipelineJob) -> None:
        self._server, self.job = server, job
        self._pid = 0
        self._tasks: dict[str, v1.PipelineTaskDetail] = {}
        self._launched: set[str] = set()  # jobs that run
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._cancelled = False

    def start(self) -> None:
        self._thread.start()

    def wait(self, timeout: float = 120.0) -> None:
        self._thread.join(timeout)

    def cancel(self) -> None:
        """Ends the child and everything it started; the job becomes CANCELLED."""
        self._cancelled = True
        if self._thread.is_alive():
            self._kill()
            self._thread.join(20)
        elif self.job.state not in FINISHED:
            self._end(_RUN.PIPELINE_STATE_CANCELLED)

    def _kill(self) -> None:
        if self._pid:
            try:
                os.killpg(self._pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def _follow(self) -> None:
        with tempfile.TemporaryDirectory(prefix="vertex-run-") as folder:
            os.chmod(folder, 0o711)  # steps, which are another user's, see nothing here but the mounted bucket
            mount = Path(folder, "gcs")
            mount.mkdir()
            mount.chmod(0o777)
            job = self.job
            order = {
                "spec": json_format.MessageToDict(v1.PipelineJob.pb(job).pipeline_spec),
                "parameters": json_format.MessageToDict(v1.PipelineJob.pb(job).runtime_config).get(
                    "parameterValues", {}
                ),
                "root": f"{job.runtime_config.gcs_output_directory.rstrip('/')}/{self._server.number}/{self.job_id}",
                "name": job.name,
                "project": self._server.project,
                "location": job.name.split("/")[3],
                "service": self._server.url,
                "storage": self._server.gcs.url,
                "mount": self._server.mount or f"{mount}/",
                "mounted": bool(self._server.mount),
                "cache": str(self._server.cache),
                "faults": str(self._server.faults),
                "service_account": job.service_account,
                "labels": dict(job.labels),
                "begun": self._server.begun,
            }
            Path(folder, "order.json").write_text(json.dumps(order))
            os.mkfifo(Path(folder, "events"))
            self._server.host.begin(folder)
            with self._server.lock:
                self._begin()
            with open(Path(folder, "events"), encoding="utf-8") as events:
                try:
                    for line in events:
                        with self._server.lock:
                            self._receive(json.loads(self._server.identified(line)))
                except Exception:
                    self._result = None
                    Path(folder, "runner.log").write_text(traceback.format_exc())
            self._kill()
            with self._server.lock:
                self._conclude(Path(folder, "runner.log").read_text(errors="replace")[-2000:])

    @property
    def job_id(self) -> str:
        return self.job.name.rsplit("/", 1)[1]

    def _begin(self) -> None:
        job, metadata = self.job, self._server.metadata
        job.state, job.start_time, job.update_time = _RUN.PIPELINE_STATE_RUNNING, now(), now()
        store = f"{job.name.rpartition('/pipelineJobs')[0]}/metadataStores/default"
        pipeline = json_format.MessageToDict(v1.PipelineJob.pb(job).pipeline_spec)["pipelineInfo"]["name"]
        if f"{store}/contexts/{pipeline}" not in metadata.contexts:
            metadata.create_context(
                v1.CreateContextRequest(
                    parent=store,
                    context_id=pipeline,
                    context=v1.Context(display_name=pipeline, schema_title="system.Pipeline"),
                )
            )
        run = metadata.create_context(
            v1.CreateContextRequest(
                parent=store,
                context_id=self.job_id,
                context=v1.Context(
                    display_name=self.job_id,
                    schema_title="system.PipelineRun",
                    parent_contexts=[f"{store}/contexts/{pipeline}"],
                ),
            )
        )
        job.job_detail.pipeline_context = metadata.contexts[f"{store}/contexts/{pipeline}"]
        job.job_detail.pipeline_run_context = run
        self._store = store
        self._detail({"id": int(_number()), "task": self.job_id, "parent": 0, "kind": "dag"})

    def _detail(self, event: dict[str, Any]) -> v1.PipelineTaskDetail:
        detail = v1.PipelineTaskDetail(
            task_id=event["id"],
            parent_task_id=event["parent"] or 0,
            task_name=event["task"],
            create_time=now(),
            start_time=now(),
            state=_TASK.RUNNING,
        )
        if event.get("job"):
            detail.executor_detail.container_detail.main_job = event["job"]
        # Repeated message fields hand out live references, so the detail kept here is the one in the job.
        self.job.job_detail.task_details.append(detail)
        self._tasks[event["task"]] = live = self.job.job_detail.task_details[-1]
        return live

    def _receive(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "pid":
                self._pid = event["pid"]
                if self._cancelled:
                    self._kill()
            case "started":
                self._detail(event)
                if event.get("job"):
                    self._server.jobs.start(event["job"])
            case "log":
                self._server.logs.write(event["job"], event["text"])
            case "retried":
                detail = self._tasks[event["task"]]
                status = v1.PipelineTaskDetail.PipelineTaskStatus(update_time=now(), state=_TASK.FAILED)
                status.error.code, status.error.message = 13, event["error"]
                detail.pipeline_task_status.append(status)
                detail.executor_detail.container_detail.failed_main_jobs.append(
                    detail.executor_detail.container_detail.main_job
                )
                detail.executor_detail.container_detail.main_job = event["job"]
            case "trial":
                self._server.tuning.trial(event["job"], event["facts"])
            case "job":
                self._follow_job(event["job"], _JOB[event["state"]], event.get("error", ""))
            case "finished":
                self._finish_task(event)
            case "result":
                self._result = event

    def _follow_job(self, name: str, state: v1.JobState, error: str) -> None:
        """A job that a launcher made has another state."""
        if name in self._server.tuning.jobs:
            if state != _JOB.JOB_STATE_RUNNING:
                self._server.tuning.finish(name, state)
        elif state == _JOB.JOB_STATE_RUNNING:
            self._server.jobs.start(name)
            self._launched.add(name)
        else:
            self._server.jobs.finish(name, state, error)
            self._launched.discard(name)

    def _finish_task(self, event: dict[str, Any]) -> None:
        detail = self._tasks[event["task"]]
        detail.state, detail.end_time = _TASK[event["state"]], now()
        if event.get("error"):
            detail.error.code, detail.error.message = event.get("code", 13), event["error"]
        job = detail.executor_detail.container_detail.main_job
        if job:
            failed = event["state"] == "FAILED"
            state = _JOB.JOB_STATE_FAILED if failed else _JOB.JOB_STATE_SUCCEEDED
            self._server.jobs.finish(job, state, event.get("error", ""))
        if "outputs" in event:
            self._record(detail, event)

    def _record(self, detail: v1.PipelineTaskDetail, event: dict[str, Any]) -> None:
        """Writes a step into ML Metadata and its artifacts into the task detail."""
        metadata = self._server.metadata
        values = {f"input:{k}": v for k, v in event["inputs"]["parameters"].items()} | {
            f"output:{k}": v for k, v in event["outputs"]["parameters"].items()
        }
        cached = event["state"] == "SKIPPED"
        importer = event["kind"] == "importer"
        execution = v1.Execution(
            display_name=detail.task_name,
            schema_title="system.ImporterExecution" if importer else "system.ContainerExecution",
            state=v1.Execution.State.CACHED
            if cached
            else v1.Execution.State.FAILED
            if event["state"] == "FAILED"
            else v1.Execution.State.COMPLETE,
            metadata={**values, "cache_key": event.get("cache_key", "")},
        )
        execution = metadata.create_execution(v1.CreateExecutionRequest(parent=self._store, execution=execution))
        names = [execution.name]
        for kind, side, target in (
            (v1.Event.Type.INPUT, event["inputs"]["artifacts"], detail.inputs),
            (v1.Event.Type.OUTPUT, event["outputs"]["artifacts"], detail.outputs),
        ):
            for key, artifact in side.items():
                record = self._artifact(key, artifact)
                names.append(record.name)
                target[key] = v1.PipelineTaskDetail.ArtifactList(artifacts=[record])
                metadata.add_execution_events(
                    v1.AddExecutionEventsRequest(
                        execution=execution.name, events=[v1.Event(artifact=record.name, type_=kind)]
                    )
                )
        detail.execution = execution
        metadata.members.setdefault(f"{self._store}/contexts/{self.job_id}", set()).update(names)

    def _artifact(self, key: str, artifact: dict[str, Any]) -> v1.Artifact:
        for known in self._server.metadata.artifacts.values():
            if known.uri == artifact["uri"] and known.schema_title == artifact["schema_title"]:
                return known
        return self._server.metadata.create_artifact(
            v1.CreateArtifactRequest(
                parent=self._store,
                artifact=v1.Artifact(
                    display_name=key,
                    uri=artifact["uri"],
                    schema_title=artifact["schema_title"],
                    schema_version="0.0.1",
                    state=v1.Artifact.State.LIVE,
                    metadata=artifact["metadata"],
                ),
            )
        )

    _result: dict[str, Any] | None = None

    def _conclude(self, log: str) -> None:
        if self._cancelled:
            return self._end(_RUN.PIPELINE_STATE_CANCELLED, "The pipeline job was cancelled.", code=1)
        if self._result is None:
            return self._end(_RUN.PIPELINE_STATE_FAILED, f"Internal error: the runner died.\n{log}", code=13)
        if self._result["failed"]:
            names = ", ".join(self._result["failed"])
            message = f"The DAG failed because some tasks failed. The failed tasks are: [{names}]."
            return self._end(_RUN.PIPELINE_STATE_FAILED, message, code=9)
        self._end(_RUN.PIPELINE_STATE_SUCCEEDED)

    def _end(self, state: v1.PipelineState, message: str = "", *, code: int = 0) -> None:
        job = self.job
        job.state, job.end_time, job.update_time = state, now(), now()
        if message:
            job.error.code, job.error.message = code, message
        for name in self._launched:  # their launchers cancel them
            self._server.jobs.finish(name, _JOB.JOB_STATE_CANCELLED)
        root = {"PIPELINE_STATE_SUCCEEDED": "SUCCEEDED", "PIPELINE_STATE_CANCELLED": "CANCELLED"}
        for detail in job.job_detail.task_details:
            if detail.state == _TASK.RUNNING:
                detail.state, detail.end_time = _TASK[root.get(state.name, "FAILED")], now()
                main = detail.executor_detail.container_detail.main_job
                if main:
                    self._server.jobs.finish(main, _JOB.JOB_STATE_CANCELLED)
        for event in (self._result or {}).get("untouched", []):
            detail = self._detail({**event, "id": int(_number()), "kind": ""})
            detail.state, detail.end_time = _TASK.NOT_TRIGGERED, now()
