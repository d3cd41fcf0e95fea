"""A process that has imported what steps need, and forks itself for each step: torch is imported once a run.

Run as `python -m local.warm` it reads requests, one JSON object a line, from stdin and answers on stdout: first
{"pid"} of the step, then {"code"} when it has ended. What a step does is what the component's command says; only
the interpreter is already up. Nothing is computed before a fork, so no thread pool and no CUDA context is carried over.

What it saves, on a small job of digits with seven steps (benchmarks/pipeline.py): 31 s of CPU time instead of 47, two
seconds a step; `register`, which computes nothing, takes 0.3 s instead of 2.1, and `sample` 3.4 s instead of 23.8 on a
busy machine with two cores.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import IO, Any

from core.progress import TASK_VARIABLE
from factory.steps import step_of

GRACE = 30.0  # seconds that a step has to write a checkpoint once it is asked to stop


def parse_command(command: list[str]) -> dict[str, Any] | None:
    """Source, arguments and modality in the command of a lightweight Python component; None if it is not one."""
    if command[:2] != ["sh", "-ec"] or len(command) < 5 or "kfp.dsl.executor_main" not in command[2]:
        return None
    arguments = command[4:]
    try:
        executor_input = json.loads(arguments[arguments.index("--executor_input") + 1])
    except (ValueError, IndexError):
        return None
    modality = executor_input.get("inputs", {}).get("parameterValues", {}).get("modality")
    return {"source": command[3], "arguments": arguments, "modality": modality}


def serve(requests: IO[str], answers: IO[str]) -> None:
    """Forks a step for each request until there are no more."""
    for name in ("kfp.dsl.executor_main", "components.publish"):  # the latter brings core without torch
        importlib.import_module(name)
    for line in requests:
        request = json.loads(line)
        with contextlib.suppress(Exception):  # the step will meet the same error, and log it
            _prepare(request)
        pid = os.fork()
        if pid == 0:
            _step(request)
        _answer(answers, {"pid": pid})
        _answer(answers, {"code": _wait(pid, requests)})  # also if nobody is left to be told: the step must end


def _wait(pid: int, requests: IO[str]) -> int:
    """The exit code of a step. If the run is gone meanwhile, the step is ended too.

    A killed run must not leave a training behind that the next run then shares a folder of checkpoints with.
    """
    poll = select.poll()
    poll.register(requests, 0)  # a hang-up is reported always
    with contextlib.suppress(AttributeError, OSError):  # Linux: wakes up at once when the step ends
        poll.register(os.pidfd_open(pid), select.POLLIN)
    asked = 0.0
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if (requests.fileno(), select.POLLHUP) not in poll.poll(20):
            continue
        if asked == 0.0:
            asked = time.monotonic()
            _signal(pid, signal.SIGTERM)
        elif time.monotonic() - asked > GRACE:
            _signal(pid, signal.SIGKILL)
        time.sleep(0.02)  # the hang-up stays


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def _prepare(request: dict[str, Any]) -> None:
    """Imports what the step would import, so that later steps find it there."""
    step = step_of(request["env"].get(TASK_VARIABLE, ""))
    for name in step.imports(request["modality"] or "") if step else ():
        if "torch" in sys.modules or not name.startswith("torch."):  # what trains without torch draws no curves by it
            importlib.import_module(name)


def _answer(answers: IO[str], value: dict[str, int]) -> None:
    with contextlib.suppress(BrokenPipeError):  # the run was killed; `_wait` sees it too
        answers.write(json.dumps(value) + "\n")
        answers.flush()


def _step(request: dict[str, Any]) -> None:
    """The forked process: its own session, its output in the log; never returns."""
    code = 1
    try:
        os.setsid()
        log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for old, new in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(old, new)
        sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
        os.environ.update(request["env"])
        program = Path(tempfile.mkdtemp()) / "ephemeral_component.py"
        program.write_text(request["source"], encoding="utf-8")
        sys.argv = ["executor_main", "--component_module_path", str(program), *request["arguments"]]
        sys.modules["kfp.dsl.executor_main"].executor_main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Serves on stdin and on what stdout is now; whatever imports print goes nowhere."""
    answers = os.fdopen(os.dup(1), "w", 1)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    sys.path.insert(0, str(Path(__file__).parents[1]))
    serve(sys.stdin, answers)
    os._exit(0)  # an answer that could not be written would be tried once more, with a traceback


if __name__ == "__main__":
    main()
