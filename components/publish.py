"""Between KFP artifacts and core: metrics for the console, versions for the registry, models out of it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.step import describe, verified
from components.vertex_registry import mirror_from_step
from core import storage
from core.errors import UserError
from core.evaluation import Decision, Evaluation, Verdict
from core.metrics import Metrics, dump
from core.records import ModelFacts, read
from core.storage import integrity
from factory.lineage import run_of
from factory.registry import Registry

_LINEAGE = ("data_hash", "code_version", "image", "seed", "examples_seen", "effective_batch_size", "device", "config")


def publish_metrics(evaluation: Path, metrics: Any, classification: Any | None) -> None:
    """Shows metrics.json as `system.Metrics`, and the judge's confusion matrix if the evaluation has one.

    Args:
        evaluation: folder of the evaluation.
        metrics: the `dsl.Metrics` output.
        classification: the `dsl.ClassificationMetrics` output, or None.
    """
    measured = Evaluation.read(evaluation)
    for name, metric in measured.metrics.items():
        for label, number in ((name, metric.value), (f"{name} (floor)", metric.floor)):
            if number is not None:
                metrics.log_metric(label, number)
    _leave_file(metrics)
    if classification is not None:
        if measured.confusion:
            names = [str(index) for index in range(len(measured.confusion))]
            classification.log_confusion_matrix(names, measured.confusion)
        _leave_file(classification)


def _leave_file(artifact: Any) -> None:
    """Metrics live in metadata; but the local cache takes an artifact without a file for one that was lost."""
    storage.write_json(Path(artifact.path), dict(artifact.metadata))


def publish_version(
    registry: str,
    model_name: str,
    run: str,
    parts: Mapping[str, Any],
    evaluation: Any,
    verdict: Any,
    registered: Any,
    card: Any,
) -> None:
    """Registers the model artifacts in `parts`, makes the version champion if it was promoted, and writes its card.

    Args:
        registry: folder or gs:// prefix.
        model_name: the model that gets a version.
        run: id of the run, for the lineage.
        parts: the `dsl.Model` artifacts of the version by name: model, autoregressive.
        evaluation: artifact of the evaluation.
        verdict: artifact of the gate's verdict.
        registered: output artifact.
        card: the `dsl.Markdown` output: the version's model card, which consoles show.
    """
    model = parts["model"]
    folders = {name: verified(artifact) for name, artifact in parts.items()}
    measured, decided = Evaluation.read(verified(evaluation)), Verdict.read(verified(verdict))
    weights = read(ModelFacts, storage.join(folders["model"], "model.json")).weights_sha256
    lineage = {key: model.metadata[key] for key in _LINEAGE if key in model.metadata}
    lineage["sample"] = measured.sample  # whoever draws from it later draws what was measured
    lineage["run"] = run or run_of(registered.uri)
    lineage["parents"] = {name: artifact.uri for name, artifact in parts.items()}
    store = Registry(registry)
    version = store.register(
        model_name,
        folders,
        metrics=dump(measured.metrics),
        evaluation_key=measured.evaluation_key,
        weights_sha256=weights,
        lineage=lineage,
        provisional=decided.decision == Decision.PROVISIONAL,
    )
    if decided.decision == Decision.PROMOTE:
        store.promote(model_name, version.version, decided.reason)
    else:
        record = {"version": version.version, "run": lineage["run"]}
        store.record(model_name, decided.decision, decided.reason, **record)
    mirror_from_step(store, model_name)
    facts = {"model": model_name, "version": version.version, "uri": version.uri, "reason": decided.reason}
    facts["state"] = version.state(champion=decided.decision == Decision.PROMOTE)
    inputs = {**parts, "evaluation": evaluation}
    storage.write_json(Path(registered.path) / "version.json", facts)
    describe(registered, {**facts, "weights_sha256": weights}, {}, inputs)
    storage.write_bytes(Path(card.path), _card(facts, measured.metrics, lineage).encode())
    describe(card, facts, {}, inputs)


def adopt(registry: str, name: str, part: str, artifact: Any) -> None:
    """Lets `artifact` be the model that `name` means: model, model@champion, model@3, or the path or URI of a model's
    folder, of a training's checkpoints or of one checkpoint's manifest.

    Raises:
        UserError: there is no such model, or its weights are not the ones its model.json states.
    """
    facts: dict[str, Any] = {"source": name}
    if "/" in name:
        uri = name.rstrip("/")
        if not storage.exists(storage.join(uri, "model.json")):
            from core.storage import snapshot

            if snapshot.is_checkpoint(uri):
                facts |= snapshot.write_model(uri, Path(artifact.path))
                describe(artifact, facts, {"source": name})
                return
        description = integrity.read_json(storage.join(uri, "model.json"))
        stated = description.get("weights_sha256")
        if stated and storage.sha256(storage.join(uri, "weights.safetensors")) != stated:
            raise UserError(f"{uri}: weights.safetensors is damaged: its SHA-256 is not the one in model.json")
        facts |= {key: description[key] for key in ("seed", "examples_seen") if key in description}
        facts |= {"weights_sha256": stated, "data_hash": description.get("data_sha256")}
    else:
        version = Registry(registry).resolve(name)
        version.verify()
        uri = version.folder(part)
        facts |= {key: version.lineage[key] for key in _LINEAGE if key in version.lineage}
        facts |= {"model_name": version.model, "version": version.version, "weights_sha256": version.weights_sha256}
    if storage.is_remote(uri) and not str(artifact.path).startswith("/gcs/"):
        storage.copy_tree(uri, Path(artifact.path))
    else:  # the registered folder itself: a version gives one cache key downstream here; KFP's key is a resource's name
        artifact.uri = uri if storage.is_remote(uri) else str(Path(uri).absolute())
    describe(artifact, facts, {"source": name})


def _card(facts: Mapping[str, Any], metrics: Metrics, lineage: Mapping[str, Any]) -> str:
    rows = "\n".join(
        f"| {name} | {metric.value} | {metric.floor} | {metric.n} | {(metric.judge or '')[:8]} |"
        for name, metric in metrics.items()
    )
    origin = "\n".join(f"- {key}: {json.dumps(value)}" for key, value in lineage.items())
    return (
        f"# {facts['model']} version {facts['version']}\n\n{facts['state'].capitalize()}: {facts['reason']}\n\n"
        "A floor is what real data scores against real data at the same count.\n\n"
        f"| metric | value | floor | n | judge |\n|---|---|---|---|---|\n{rows}\n\n"
        f"## Where it comes from\n\n{origin}\n- files: {json.dumps(facts['uri'])}\n"
    )
