"""What every component shares: the name of its image, its variants, errors as one line, and its row in `STEPS`."""

import copy
import inspect
import json
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from factory.lineage import describe
from factory.steps import STEPS

__all__ = [
    "BEAM_IMAGE",
    "IMAGE",
    "TRAIN_JOB",
    "TRIALS_IMAGE",
    "component",
    "describe",
    "load",
    "step",
    "variant",
    "verified",
]
IMAGE = "textdiffusion-image:unresolved"
"""Stands for the image until `pipelines.compile` puts in the one whose tag is the hash of its content."""
TRAIN_JOB = "TEXTDIFFUSION_TRAIN_JOB"
"""Environment variable: the TrainJob by which a step trains on several nodes, as JSON without a name."""
BEAM_IMAGE = "-beam"
"""After its tag: the same image with Apache Beam (containers/beam.Dockerfile), for a step that runs it."""
TRIALS_IMAGE = "-trials"
"""After its tag: the same image, begun as root (containers/Dockerfile), for trials of a tuning job on Vertex AI."""


def component(name: str) -> Callable[[Callable[..., Any]], Any]:
    """Makes a KFP component of a function; its task is called `name`, whatever the function is called."""
    from kfp import dsl

    def make(function: Callable[..., Any]) -> Any:
        return _named(dsl.component(function, base_image=IMAGE, install_kfp_package=False), name)

    return make


def variant(original: Any, artifacts: Collection[str], name: str | None = None) -> Any:
    """A component with those of its optional artifacts (their default is None) that `artifacts` names, then required.

    So one body serves both modalities, and what is compiled has no optional artifact: Vertex AI does not cache a step
    that has one (github.com/kubeflow/pipelines/issues/11410).

    Args:
        original: a component made of a function.
        artifacts: names of inputs and outputs; those that are not optional may be among them.
        name: of the task, if another one.
    """
    made = copy.copy(original)
    made.component_spec = copy.deepcopy(original.component_spec)
    optional = {key for key, value in inspect.signature(made.python_func).parameters.items() if value.default is None}
    for interface in (made.component_spec.inputs, made.component_spec.outputs):
        for key in optional & set(interface or ()):
            if not str(interface[key].type).startswith("system."):
                continue
            if key in artifacts:
                interface[key].optional = False
            else:
                del interface[key]
    return _named(made, name or original.name)


def load(name: str) -> Any:
    """The KFP component of the step called `name`, a key of `STEPS`."""
    module, _, function = STEPS[name].component.partition(":")
    return getattr(import_module(f"components.{module}"), function)


@contextmanager
def step() -> Iterator[None]:
    """Runs a step's body: a `UserError` becomes its one line on stderr and exit code 2, without a traceback.

    A service that starts a failed worker again is told the same at once: what was refused is not done twice.
    """
    from components.deadline import deadline
    from core.errors import UserError
    from core.printable import say
    from core.processes.accelerators import require_gpus
    from core.storage.faults import StorageError, every_refusal

    mark = _refusal_mark(sys.argv, os.environ)
    try:
        with deadline(), every_refusal():  # a full disk shows in unexpected places
            if mark is not None and mark.exists():
                raise UserError(f"refused before this worker was started again: {mark.read_text()}")
            require_gpus()
            yield
    except UserError as error:
        say(f"error: {error}", to=sys.stderr)
        lasting = error.EXIT_CODE == UserError.EXIT_CODE and not isinstance(error, StorageError)
        if mark is not None and lasting and not mark.exists():
            with suppress(OSError):
                mark.write_text(str(error))
        raise SystemExit(error.EXIT_CODE) from None


def _refusal_mark(arguments: Sequence[str], environment: Mapping[str, str]) -> Path | None:
    """Where a step leaves word that it refused its input: by its outputs, which on Vertex AI outlive the container.

    None elsewhere: a run that goes on is to look at mended input again.
    """
    if "CLUSTER_SPEC" not in environment or "--executor_input" not in arguments:
        return None
    try:
        given = json.loads(arguments[list(arguments).index("--executor_input") + 1])
        return Path(given["outputs"]["outputFile"]).with_name("refused.txt")
    except (ValueError, KeyError, TypeError, IndexError):
        return None


def verified(artifact: Any) -> Path:
    """Where the files of an input are, compared with the hash that the step which made it left in its metadata.

    Models and data sets verify themselves when they are opened; this is for what states no hash of its own.

    Raises:
        UserError: a file was changed, removed or added since.
    """
    from core.errors import UserError
    from core.printable import say
    from core.storage.integrity import FILES_HASH, files_sha256

    path, stated = Path(artifact.path), artifact.metadata.get(FILES_HASH)
    if stated is None:
        say(f"warning: {artifact.name}: its metadata state no {FILES_HASH}, so it is not verified", to=sys.stderr)
    elif files_sha256(path) != stated:
        raise UserError(
            f"{artifact.name}: the files in {path} are not those that its step wrote ({FILES_HASH} differs);"
            " run that step again"
        )
    return path


def _named(made: Any, name: str) -> Any:
    made.name = made.component_spec.name = name
    return made
