"""The gate: whether a challenger replaces the champion, and why. In doubt the champion stays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core import storage
from core.config import GateConfig
from core.evaluation import Contender, Decision, Evaluation, Verdict, read_metrics
from core.metrics import Metrics
from core.modality import run
from core.names import inside
from core.records import ModelFacts, read
from core.requests import EvaluateRequest, ModalityName, SampleRequest, Section
from factory.versions import Version


def decide(gate: GateConfig, challenger: Metrics, champion: Metrics | None) -> tuple[Decision, str]:
    """The decision and its reason, from the metrics of both; `champion` is None if there is none.

    A metric that is missing or not finite never promotes.
    """
    for name, worst in gate.require.items():
        value = _value(challenger, name)
        if value is None:
            return Decision.KEEP, f"required metric {name} is missing or not a finite number"
        better = _direction(gate, name, challenger)
        if better is None:
            return Decision.KEEP, f"required metric {name} does not state whether lower or higher is better"
        if value > worst if better == "lower" else value < worst:
            relation = "above" if better == "lower" else "below"
            return Decision.KEEP, f"{name} {value:.4g} is {relation} the required {worst:.4g}"
    new = _value(challenger, gate.metric)
    if new is None:
        return Decision.KEEP, f"metric {gate.metric} of the challenger is missing or not a finite number"
    if champion is None:
        return Decision.PROMOTE, f"first model: {gate.metric} {new:.4g}, no champion to beat"
    old = _value(champion, gate.metric)
    if old is None:
        return (
            Decision.KEEP,
            f"metric {gate.metric} of the champion is missing or not a finite number: they cannot be compared",
        )
    gain = old - new if gate.better == "lower" else new - old
    needed = gate.min_improvement * abs(old)
    against = f"{gate.metric} {new:.4g} against the champion's {old:.4g} ({gate.better} is better)"
    if gain <= 0:
        return Decision.KEEP, f"no improvement: {against}"
    if gain < needed:
        return Decision.KEEP, f"improvement below {gate.min_improvement:.2%}: {against}"
    return Decision.PROMOTE, f"improved: {against}"


@dataclass(frozen=True)
class Challenge:
    """A trained model, and all that a champion needs to be measured on equal terms.

    Paths are local folders: the model and its `evaluation`, the data set and the judge. `sample` and `evaluate` are
    the job's sections.
    """

    modality: ModalityName
    model: Path
    evaluation: Path
    dataset: Path
    judge: Path
    sample: Section
    evaluate: Section


def compare(gate: GateConfig, challenge: Challenge, champion: Version | None, scratch: Path) -> Verdict:
    """Judges a challenger against the registered champion on equal terms.

    If both were measured by the same evaluation (same data, judge, sampling and settings, so the same evaluation
    key), recorded metrics are compared. Otherwise the champion draws new samples with the challenger's settings and
    is measured on the challenger's data by its judge, in the folder `scratch`.

    Raises:
        UserError: an evaluation or a model does not hold what it should.
    """
    new = Evaluation.read(challenge.evaluation)
    weights = read(ModelFacts, str(challenge.model / "model.json")).weights_sha256
    challenger = Contender(
        weights_sha256=weights, evaluation_key=new.evaluation_key, metric=_value(new.metrics, gate.metric)
    )
    if champion is None:
        decision, reason = decide(gate, new.metrics, None)
        return Verdict(decision=decision, reason=reason, challenger=challenger)
    same = bool(new.evaluation_key) and new.evaluation_key == champion.evaluation_key
    measured_again = not same and champion.weights_sha256 != weights
    if measured_again:
        old: Metrics = _measure_again(challenge, champion, scratch)
    else:
        old = read_metrics(champion.metrics, f"{champion.model}@{champion.version}: metrics")
    if champion.weights_sha256 == weights:
        decision, reason = (
            Decision.KEEP,
            f"the challenger is the champion: the same weights as version {champion.version}",
        )
    else:
        decision, reason = decide(gate, new.metrics, old)
    if measured_again:
        reason += "; the champion was sampled and measured again, its evaluation was another one"
    return Verdict(
        decision=decision,
        reason=reason,
        challenger=challenger,
        champion=Contender(
            version=champion.version,
            weights_sha256=champion.weights_sha256,
            evaluation_key=champion.evaluation_key,
            metric=_value(old, gate.metric),
            measured_again=measured_again,
        ),
    )


def _measure_again(challenge: Challenge, champion: Version, scratch: Path) -> Metrics:
    champion.verify()
    paths: dict[str, Path] = {}
    for part in sorted({name.split("/")[0] for name in champion.files}):
        paths[part] = inside(scratch, part)
        storage.copy_tree(champion.folder(part), paths[part])
    model, autoregressive = paths["model"], paths.get("autoregressive")
    samples, out = scratch / "samples", scratch / "evaluation"
    run(
        SampleRequest(
            modality=challenge.modality,
            sample=challenge.sample,
            model=model,
            out=samples,
            autoregressive=autoregressive,
        )
    )
    run(
        EvaluateRequest(
            modality=challenge.modality,
            evaluate=challenge.evaluate,
            dataset=challenge.dataset,
            judge=challenge.judge,
            model=model,
            samples=samples,
            out=out,
            autoregressive=autoregressive,
        )
    )
    return Evaluation.read(out).metrics


def _value(metrics: Metrics, name: str) -> float | None:
    return metrics[name].value if name in metrics else None


def _direction(gate: GateConfig, name: str, metrics: Metrics) -> str | None:
    return gate.better if name == gate.metric else metrics[name].better
