"""The gate: whether a challenger replaces the champion, and why. In doubt the champion stays.

A gain counts where it exceeds its own uncertainty: its lower bound at the job's confidence is above 0. The standard
error of the gain comes from pairs where both models were measured on the same parts of held-out text, else from the
standard errors of both, which for samples of equal seeds is too large rather than too small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist, stdev
from typing import NamedTuple

from core import storage
from core.config import GateConfig
from core.errors import IncomparableError, UserError
from core.evaluation import Contender, Decision, Evaluation, Verdict, read_metrics
from core.metrics import Metric, Metrics
from core.modality import modality, run
from core.names import inside
from core.records import ModelFacts, read
from core.requests import EvaluateRequest, ModalityName, SampleRequest, Section
from core.storage.faults import StorageError
from factory.versions import Version


class Ruling(NamedTuple):
    """A decision and its reason; the gain over the champion with the bounds of its interval, where both are known."""

    decision: Decision
    reason: str
    gain: float | None = None
    interval: tuple[float, float] | None = None


def decide(gate: GateConfig, challenger: Metrics, champion: Metrics | None) -> Ruling:
    """What is to be done, from the metrics of both; `champion` is None if there is none.

    A metric that is missing or not finite never promotes.
    """
    refusal = _unfit(gate, challenger)
    if refusal:
        return Ruling(Decision.KEEP, refusal)
    if champion is None:
        return _first(gate, challenger)
    new, old = challenger[gate.metric], champion.get(gate.metric, Metric())
    if new.value is None or old.value is None:
        what = f"metric {gate.metric} of the champion is missing or not a finite number"
        return Ruling(Decision.KEEP, f"{what}: they cannot be compared")
    gain = old.value - new.value if gate.better == "lower" else new.value - old.value
    error = standard_error(new, old)
    margin = NormalDist().inv_cdf(gate.confidence) * (error or 0.0)
    interval = (gain - margin, gain + margin) if error is not None else None
    against = f"{gate.metric} {new.value:.4g} against the champion's {old.value:.4g} ({gate.better} is better)"
    if interval:
        against += f"; gain {gain:.3g}, from {interval[0]:.3g} to {interval[1]:.3g} (each at {gate.confidence:.0%})"
    else:
        against += "; its uncertainty is not measured"
    against += _in_doubt(new)
    if gain <= 0:
        return Ruling(Decision.KEEP, f"no improvement: {against}", gain, interval)
    if gain < gate.min_improvement * abs(old.value):
        return Ruling(Decision.KEEP, f"improvement below {gate.min_improvement:.2%}: {against}", gain, interval)
    if gain <= margin:
        return Ruling(Decision.KEEP, f"no improvement beyond chance: {against}", gain, interval)
    return Ruling(Decision.PROMOTE, f"improved: {against}", gain, interval)


def standard_error(new: Metric, old: Metric) -> float | None:
    """Standard error of the difference of two values; None if neither states its own.

    Of a pair of models measured on the same parts the parts are compared one by one (the parts of one text are easy or
    hard for both). A value from before errors were stated has the other's.
    """
    if new.parts and old.parts and len(new.parts) == len(old.parts) > 1:
        gains = [a - b for a, b in zip(new.parts, old.parts, strict=True)]
        return stdev(gains) / math.sqrt(len(gains))
    one, other = (new.se if new.se is not None else old.se), (old.se if old.se is not None else new.se)
    return math.hypot(one, other) if one is not None and other is not None else None


def _unfit(gate: GateConfig, challenger: Metrics) -> str:
    """Why a model is refused, whatever the champion is; empty if it is not."""
    for name, worst in gate.require.items():
        value = _value(challenger, name)
        if value is None:
            return f"required metric {name} is missing or not a finite number"
        better = _direction(gate, name, challenger)
        if better is None:
            return f"required metric {name} does not state whether lower or higher is better"
        if value > worst if better == "lower" else value < worst:
            relation = "above" if better == "lower" else "below"
            return f"{name} {value:.4g} is {relation} the required {worst:.4g}"
    if _value(challenger, gate.metric) is None:
        return f"metric {gate.metric} of the challenger is missing or not a finite number"
    return ""


def _first(gate: GateConfig, challenger: Metrics) -> Ruling:
    """A model without a champion to beat must be near its floor by a measure worth trusting, and be precise at all;
    else it does not serve."""
    value, floor, times = _value(challenger, gate.metric), challenger[gate.metric].floor, gate.first_floors
    assert value is not None
    measured = f"first model: {gate.metric} {value:.4g}"
    if times > 0:
        if doubt := challenger[gate.metric].doubt:
            return Ruling(Decision.PROVISIONAL, f"{measured} cannot be trusted: {doubt} (gate.first_floors)")
        if floor is not None and floor > 0:
            limit = times * floor if gate.better == "lower" else floor / times
            if value > limit if gate.better == "lower" else value < limit:
                relation = "above" if gate.better == "lower" else "below"
                share = f"{times:g} floors" if gate.better == "lower" else f"the floor / {times:g}"
                return Ruling(
                    Decision.PROVISIONAL, f"{measured} is {relation} {limit:.4g}, {share} (gate.first_floors)"
                )
        precision = _value(challenger, "precision")
        if precision is not None and precision <= 0:
            return Ruling(Decision.PROVISIONAL, f"{measured}, but no sample is where real images are: precision 0")
    return Ruling(Decision.PROMOTE, f"{measured}, no champion to beat{_in_doubt(challenger[gate.metric])}")


def _in_doubt(metric: Metric) -> str:
    """Why the metric that decides says little, as the end of a reason. Between two models, measured alike, it decides
    all the same: what it misses is missing of both, and chance is in its uncertainty."""
    return f"; in doubt: {metric.doubt}" if metric.doubt else ""


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
    is measured on the challenger's data by its judge, in the folder `scratch`. Where it cannot be, `gate.incomparable`
    decides.

    Raises:
        UserError: an evaluation or a model does not hold what it should.
    """
    new = Evaluation.read(challenge.evaluation)
    weights = read(ModelFacts, str(challenge.model / "model.json")).weights_sha256
    challenger = Contender(
        weights_sha256=weights, evaluation_key=new.evaluation_key, metric=_value(new.metrics, gate.metric)
    )
    if champion is None:
        ruling = decide(gate, new.metrics, None)
        return Verdict(decision=ruling.decision, reason=ruling.reason, challenger=challenger)
    same = bool(new.evaluation_key) and new.evaluation_key == champion.evaluation_key
    again, obstacle = not same and champion.weights_sha256 != weights, ""
    old: Metrics = {}
    try:
        old = _measure_again(challenge, champion, scratch) if again else _recorded(champion)
        ruling = decide(gate, new.metrics, old)
    except IncomparableError as error:
        again, obstacle = False, str(error)
        ruling = _incomparable(gate, new.metrics, obstacle)
    if champion.weights_sha256 == weights:
        same_weights = f"the challenger is the champion: the same weights as version {champion.version}"
        ruling = Ruling(Decision.KEEP, same_weights)
    elif again:
        reason = f"{ruling.reason}; the champion was sampled and measured again, its evaluation was another one"
        ruling = ruling._replace(reason=reason)
    facts = {"gain": ruling.gain, "gain_interval": ruling.interval, "not_comparable": bool(obstacle) or None}
    return Verdict(
        decision=ruling.decision,
        reason=ruling.reason,
        challenger=challenger,
        champion=Contender(
            version=champion.version,
            weights_sha256=champion.weights_sha256,
            evaluation_key=champion.evaluation_key,
            metric=_value(old, gate.metric),
            measured_again=again,
        ),
        **{name: fact for name, fact in facts.items() if fact is not None},
    )


def _incomparable(gate: GateConfig, challenger: Metrics, obstacle: str) -> Ruling:
    """What becomes of a challenger whose champion cannot be measured on its data."""
    why = f"not comparable: {obstacle}"
    refusal = _unfit(gate, challenger)
    if refusal:
        return Ruling(Decision.KEEP, f"{refusal}; {why}")
    if gate.incomparable == "keep":
        return Ruling(Decision.KEEP, f"{why}; the champion stays (gate.incomparable: keep)")
    first = _first(gate, challenger)
    return first._replace(reason=f"{why}; so (gate.incomparable: promote) as without a champion: {first.reason}")


def _recorded(champion: Version) -> Metrics:
    return read_metrics(champion.metrics, f"{champion.name}: metrics")


def _measure_again(challenge: Challenge, champion: Version, scratch: Path) -> Metrics:
    """The champion's metrics as the challenger's were measured.

    Raises:
        IncomparableError: it cannot draw or be measured that way.
        UserError: its files are damaged.
    """
    champion.verify()
    paths: dict[str, Path] = {}
    for part in sorted({name.split("/")[0] for name in champion.files}):
        paths[part] = inside(scratch, part)
        storage.copy_tree(champion.folder(part), paths[part])
    model, autoregressive = paths["model"], paths.get("autoregressive")
    samples, out = scratch / "samples", scratch / "evaluation"
    try:
        terms = modality(challenge.modality).equal_terms(model, challenge.model, challenge.dataset, challenge.sample)
        run(
            SampleRequest(
                modality=challenge.modality,
                sample=terms,
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
    except (IncomparableError, StorageError):
        raise
    except UserError as error:  # the challenger's settings ask for what this model cannot do
        raise IncomparableError(str(error).replace(str(scratch), champion.name)) from None
    return Evaluation.read(out).metrics


def _value(metrics: Metrics, name: str) -> float | None:
    return metrics[name].value if name in metrics else None


def _direction(gate: GateConfig, name: str, metrics: Metrics) -> str | None:
    return gate.better if name == gate.metric else metrics[name].better
