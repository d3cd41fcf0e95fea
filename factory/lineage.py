"""Where an artifact comes from: the facts that every step writes on its outputs, and the tree that they make."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from core import storage
from core.config import canonical_json, config_hash
from core.errors import UserError
from core.records import or_none, parse_parents
from core.storage.integrity import FILES_HASH, files_sha256
from factory.registry import Registry
from factory.steps import STEPS

Node = dict[str, Any]
"""{"artifact", "run", "step", "uri", "hash", facts..., "parents": [nodes]}"""
Made = tuple[str, str, str, Mapping[str, Any]]
"""(run, step, name, metadata) of an artifact."""
_ID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
IN_PIPELINE_ROOT = re.compile(rf"/({_ID})/([^/]+)/{_ID}/([^/]+)$")
"""(run, step, name) of an artifact where Kubeflow puts it."""
FACTS = (
    "config_hash", "config", "data_hash", "code_version", "image", "seed", "examples_seen",
    "effective_batch_size", "device", "weights_sha256", "data_fingerprint", "source", "model_name", "version",
)  # fmt: skip


def describe(
    artifact: Any, metadata: Mapping[str, Any], config: Mapping[str, Any], parents: Mapping[str, Any] | None = None
) -> None:
    """Puts the lineage of an output on it: configuration, hashes, code version, image and the artifacts it came from.

    Args:
        artifact: the output, with all its files: their hash is among its metadata, for `components.step.verified`.
        metadata: what the step returned; nested values become JSON text, because Vertex shows only flat ones.
        config: the sections the step was given, by name.
        parents: the input artifacts, by name; those that are None are left out.
    """
    config = restore_ints(config)
    given = {name: parent for name, parent in (parents or {}).items() if parent is not None}
    inputs = {name: {"uri": parent.uri, "hash": content_hash(parent.metadata)} for name, parent in given.items()}
    common: dict[str, Any] = {
        "config": config,
        "config_hash": config_hash(config),
        "code_version": os.environ.get("TEXTDIFFUSION_CODE_VERSION", "unknown"),
        "image": os.environ.get("TEXTDIFFUSION_IMAGE", "unknown"),
        "parents": inputs,
    }
    for parent in given.values():  # what holds for the input holds for what was made of it
        for key in ("data_hash", "seed", "examples_seen", "effective_batch_size"):
            if key in parent.metadata:
                common.setdefault(key, parent.metadata[key])
    if storage.exists(artifact.path):  # of several nodes that train together, one writes
        common[FILES_HASH] = files_sha256(artifact.path)
    for key, value in {**common, **metadata}.items():
        if value is not None:
            artifact.metadata[key] = canonical_json(value) if isinstance(value, Mapping | list | tuple) else value


def restore_ints(value: Any) -> Any:
    """`value` with 16.0 as 16 at any depth: pipeline backends carry every number as a double."""
    if isinstance(value, Mapping):
        return {key: restore_ints(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [restore_ints(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def content_hash(metadata: Mapping[str, Any]) -> str:
    """The hash of an artifact's content, from its metadata; empty if it states none."""
    by_content = ("weights_sha256", "content_sha256", "judge_sha256", "samples_sha256", "sha256", "data_hash")
    for key in (*by_content, FILES_HASH):
        if metadata.get(key):
            return str(metadata[key])
    return ""


def run_of(uri: str) -> str:
    """The run that an artifact belongs to, from where Vertex AI puts it, .../PROJECT NUMBER/RUN/STEP_-ID/NAME, or where
    Kubeflow does, .../RUN'S ID/STEP/ID/NAME.

    Runs that a schedule starts get their id only when they start, so it is not among their parameters.
    """
    match = re.search(r"/\d+/([a-z][-a-z0-9]*)/[^/]+_-?\d+/", uri) or IN_PIPELINE_ROOT.search(uri)
    return match[1] if match else ""


def node(
    artifact: str, run: str | None, step: str | None, uri: str, metadata: Mapping[str, Any], parents: Sequence[Node]
) -> Node:
    """One artifact with what its metadata states."""
    stated = {key: metadata[key] for key in FACTS if key in metadata}
    top = {"artifact": artifact, "run": run, "step": step, "uri": uri, "hash": content_hash(metadata)}
    return {**top, **stated, "parents": list(parents)}


def grow(name: str, uri: str, look: Callable[[str], Made | None], seen: tuple[str, ...] = ()) -> Node:
    """The tree of what the artifact at `uri` was made of, by the parents that artifacts state.

    Args:
        name: what it is called where nothing is known of it.
        uri: where it is.
        look: what is known of an artifact by its URI.
        seen: artifacts above it in the tree.
    """
    made = look(uri) if uri not in seen else None
    if made is None:
        return node(name, None, None, uri, {}, [])
    run, step, own_name, metadata = made
    parents = or_none(lambda: parse_parents(metadata.get("parents"), f"{run}: {own_name}")) or {}
    made_of = [grow(parent, artifact.uri, look, (*seen, uri)) for parent, artifact in parents.items()]
    return node(own_name, run, step, uri, metadata, made_of)


def version_of(name: str, registry: str) -> tuple[Node, dict[str, str]] | None:
    """The node of the registered version MODEL@VERSION and the URIs of its parents by name; None: no such name.

    Raises:
        UserError: the registry has no such version.
    """
    if "@" not in name or "/" in name:
        return None
    version = Registry(registry).resolve(name)
    shown = f"{version.model}@{version.version}"
    version_node = node(shown, version.lineage.get("run") or None, "register", version.uri, version.lineage, [])
    return {**version_node, "hash": version.weights_sha256}, dict(version.lineage.get("parents", {}))


def artifact_named(part: str, artifacts: Collection[str], run: str) -> str:
    """The artifact of a run that `part`, its own name or that of the step that made it, means.

    Raises:
        UserError: the run has no such artifact.
    """
    name = part if part in artifacts or part not in STEPS else STEPS[part].artifact
    if name not in artifacts:
        raise UserError(f"{run}: has no artifact {part!r}; there are: {', '.join(artifacts) or 'none yet'}")
    return name
