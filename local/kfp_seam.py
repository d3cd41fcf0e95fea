"""Where the runner looks into `kfp.local`: when a task begins and ends, and how its process is started.

kfp.local has no hooks, so four of its functions are wrapped while a pipeline runs. It is pinned to 2.17 in
pyproject.toml, and a test runs a pipeline through each of them.
"""

from __future__ import annotations

import builtins
import contextlib
import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

_ITERATION = re.compile(r"-iteration-(\d+)$")
Launch = Callable[[list[str], Mapping[str, str]], int]


class Observer(Protocol):
    """What is told about each task of a pipeline. Iterations of a loop come from threads of their own; each thread runs
    one task at a time."""

    def begin(self, task: str) -> None: ...

    def end(self, task: str, outputs: Mapping[str, Any], succeeded: bool) -> None:
        """May raise, which ends the pipeline."""

    def launch(self, command: list[str], env: Mapping[str, str]) -> int:
        """Runs the command of the task that has begun; returns its exit code. Not called for cached tasks."""

    def refused(self, reason: str) -> None:
        """The task that has begun is in the cache, but not as it was put there: it will be launched."""


@contextlib.contextmanager
def replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """Lets `module.name` be `value` inside the block."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


@contextlib.contextmanager
def observed(observer: Observer, cache_root: Path | None) -> Iterator[None]:
    """Reports all tasks that kfp.local executes to `observer`, which also starts their processes.

    A task `x` in a loop is reported as `x-1`, `x-2`, ...

    Args:
        observer: what is told.
        cache_root: where finished tasks are kept, verified before they are used again; None: every task runs.
    """
    from kfp.local import cache, status, subprocess_task_handler
    from kfp.local.orchestrator import task_executor

    from local.cache import VerifiedCache

    verified = VerifiedCache(cache_root, observer.refused) if cache_root is not None else None
    execute = task_executor.execute_single_task

    def execute_single_task(task_name: str, **arguments: Any) -> Any:
        inside = _ITERATION.search(str(arguments["pipeline_resource_name"]))
        name = f"{task_name}-{int(inside[1]) + 1}" if inside else task_name
        observer.begin(name)
        outputs, state = execute(task_name=task_name, **arguments)
        observer.end(name, outputs, state == status.Status.SUCCESS)
        return outputs, state

    def run_local_subprocess(full_command: list[str], env_vars: Mapping[str, str] | None = None) -> int:
        return observer.launch(full_command, env_vars or {})

    root = logging.getLogger()
    with contextlib.ExitStack() as stack:
        # KFP indents prints and redirects logs around each task; tasks of a loop, in threads, put back one another's.
        stack.enter_context(replaced(builtins, "print", builtins.print))
        stack.enter_context(replaced(root, "handlers", root.handlers[:]))
        stack.callback(root.setLevel, root.level)
        stack.enter_context(replaced(task_executor, "execute_single_task", execute_single_task))
        stack.enter_context(replaced(subprocess_task_handler, "run_local_subprocess", run_local_subprocess))
        stack.enter_context(replaced(cache, "get_local_cache", lambda: verified))
        yield


@contextlib.contextmanager
def observed_docker(
    observe: Callable[[], contextlib.AbstractContextManager[None]], exited: Callable[[int], None]
) -> Iterator[None]:
    """Runs each container of kfp.local's DockerRunner inside `observe()`, and reports its exit code to `exited`."""
    from kfp.local import docker_task_handler

    run = docker_task_handler.run_docker_container
    one_at_a_time = threading.Lock()  # their output is told apart by redirecting this process's own

    def run_docker_container(*arguments: Any, **options: Any) -> int:
        with one_at_a_time, observe():
            code = run(*arguments, **options)
        exited(code)
        return int(code)

    with replaced(docker_task_handler, "run_docker_container", run_docker_container):
        yield
