"""What every component shares: the name of its image, errors as one line, and the lineage on its outputs."""

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

IMAGE = "textdiffusion-image:unresolved"
"""Stands for the image until `pipelines.compile` puts in the one whose tag is the hash of its content."""


def component(name: str) -> Callable[[Callable[..., Any]], Any]:
    """Makes a KFP component of a function; its task is called `name`, whatever the function is called."""
    from kfp import dsl

    def make(function: Callable[..., Any]) -> Any:
        made = dsl.component(function, base_image=IMAGE, install_kfp_package=False)
        made.name = made.component_spec.name = name
        return made

    return make


@contextmanager
def step() -> Iterator[None]:
    """Runs a step's body: a `UserError` becomes its one line on stderr and exit code 2, without a traceback."""
    from core.errors import UserError
    from core.printable import say
    from core.storage.faults import every_refusal

    try:
        with every_refusal():  # a full disk shows where nobody looked for it
            yield
    except UserError as error:
        say(f"error: {error}", to=sys.stderr)
        raise SystemExit(error.EXIT_CODE) from None


def whole(value: Any) -> Any:
    """`value` with 16.0 as 16 at any depth: pipeline backends carry every number as a double."""
    if isinstance(value, Mapping):
        return {key: whole(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def describe(
    artifact: Any, metadata: Mapping[str, Any], config: Mapping[str, Any], parents: Mapping[str, Any] | None = None
) -> None:
    """Puts the lineage of an output on it: configuration, hashes, code version, image and the artifacts it came from.

    Args:
        artifact: the output, with all its files: their hash is among its metadata, for `verified`.
        metadata: what the step returned; nested values become JSON text, because Vertex shows only flat ones.
        config: the sections the step was given, by name.
        parents: the input artifacts, by name.
    """
    from core import storage
    from core.config import canonical_json, config_hash
    from core.storage.integrity import FILES_HASH, files_sha256

    config = whole(config)
    inputs = {
        name: {"uri": parent.uri, "hash": content_hash(parent.metadata)} for name, parent in (parents or {}).items()
    }
    common: dict[str, Any] = {
        "config": config,
        "config_hash": config_hash(config),
        "code_version": os.environ.get("TEXTDIFFUSION_CODE_VERSION", "unknown"),
        "image": os.environ.get("TEXTDIFFUSION_IMAGE", "unknown"),
        "parents": inputs,
    }
    for parent in (parents or {}).values():  # what holds for the input holds for what was made of it
        for key in ("data_hash", "seed", "examples_seen", "effective_batch_size"):
            if key in parent.metadata:
                common.setdefault(key, parent.metadata[key])
    if storage.exists(artifact.path):  # of several nodes that train together, one writes
        common[FILES_HASH] = files_sha256(artifact.path)
    for key, value in {**common, **metadata}.items():
        if value is not None:
            artifact.metadata[key] = canonical_json(value) if isinstance(value, Mapping | list | tuple) else value


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


def content_hash(metadata: Mapping[str, Any]) -> str:
    """The hash that stands for an artifact's content, from its metadata; empty if it states none."""
    by_content = ("weights_sha256", "content_sha256", "judge_sha256", "samples_sha256", "sha256", "data_hash")
    for key in (*by_content, "files_sha256"):
        if metadata.get(key):
            return str(metadata[key])
    return ""


def run_of(uri: str) -> str:
    """The run that an artifact belongs to, from where Vertex AI puts it: .../PROJECT NUMBER/RUN/STEP_-ID/NAME.

    Runs that a schedule starts get their id only when they start, so it is not among their parameters.
    """
    found = re.search(r"/\d+/([a-z][-a-z0-9]*)/[^/]+_-?\d+/", uri)
    return found[1] if found else ""
