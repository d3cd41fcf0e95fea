"""What the steps sample, evaluate and gate leave for others to read, typed: one schema for both modalities.

    sample.json        Sampling: how samples were drawn
    metrics.json       {name: Metric}
    evaluation.json    Evaluation: its key, the sampling it measured, and what the report draws
    verdict.json       Verdict: the gate's decision and what it compared

Writers fill these in; gate, registry, components and report read them. Needs no torch.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from core import storage
from core.config import validate
from core.errors import UserError
from core.metrics import Metric, Number, dump
from core.records import Label, Note, Record, read

SAMPLING, METRICS, EVALUATION, VERDICT = "sample.json", "metrics.json", "evaluation.json", "verdict.json"

log = logging.getLogger(__name__)


class Sampling(Record):
    """How samples were drawn. What a modality does not have is null."""

    sampler: Label | None = None
    steps: int | None = None
    nfe: int | None = None  # network evaluations of one sample
    guidance: Number = None
    autoguidance: Number = None  # images
    feedback: Number = None  # images
    temperature: Number = None  # text
    block: int | None = None  # text: tokens denoised together
    seed: int | None = None
    count: int | None = None
    redrawn: int | None = None  # images: how many were drawn again (sample.redraw)
    seconds: Number = None
    device: Label | None = None
    processes: int | None = None
    weights_sha256: Label | None = None
    settings: dict[str, Any] = Field(default_factory=dict)  # the section `sample` of the job, with its defaults
    class_names: list[str] | None = None  # images: what the labels number, in the model that drew them

    @classmethod
    def read(cls, samples: Path) -> Sampling:
        """sample.json of the folder `samples`; nothing is known where there is none.

        Raises:
            UserError: the file does not hold what it should.
        """
        path = samples / SAMPLING
        return read(cls, str(path)) if path.is_file() else cls()

    def facts(self) -> dict[str, Any]:
        """Everything but the settings, flat: the metadata of the artifact."""
        return self.model_dump(mode="json", exclude={"settings", "class_names"}, exclude_none=True)

    def write(self, samples: Path) -> None:
        storage.write_json(samples / SAMPLING, self.model_dump(mode="json"))

    def terms(self) -> dict[str, Any]:
        """What decides which samples are drawn: the settings, or what an older sample.json says in their place."""
        older = ("sampler", "steps", "nfe", "guidance", "autoguidance", "seed", "count")
        return self.settings or {name: getattr(self, name) for name in older}


class JudgeFacts(Record):
    """A judge as its judge.json describes it."""

    sha256: Label | None = None
    accuracy: Number = None  # images: of the real test split
    n: int | None = None  # test images, or characters of the training text
    interval: tuple[float, float] | None = None


class Histogram(Record):
    """How many samples, and how many real images, are of each class."""

    samples: list[int] = Field(default_factory=list)
    real: list[int] = Field(default_factory=list)


class Confidence(Record):
    """The judge's mean confidence in samples and in real images."""

    samples: Number = None
    real: Number = None


class FrontierPoint(Record):
    """Samples at one temperature: the judge's nats per character against the entropy."""

    mode: str
    temperature: float
    entropy: float
    judge_nll: float
    n: int | None = None


class GammaLoss(Record):
    """Nats per token at one noise level, and those of the exact posterior without context."""

    gamma: float
    loss: float
    no_context: float


class ChainBits(Record):
    """Bits per character of held-out text with a number of evaluations, and how many above the autoregressive model's.

    `se` and `difference_se` are standard errors over windows; windows are the same for both models.
    """

    evaluations: float  # of the network, for a token
    steps: int  # of a block
    bits: float
    block: int | None = None  # tokens; None: that of all
    lanes: int = 1  # parts of a block that are written side by side
    se: Number = None
    difference: Number = None
    difference_se: Number = None


class Likelihood(Record):
    """Bits per character of held-out text against evaluations a token, along the noise levels that sampling takes."""

    characters: int = 0
    windows: int = 0
    block: int = 1
    tilt: float = 0.0
    chains: list[ChainBits] = Field(default_factory=list)
    bound: Number = None  # with as many evaluations as one likes
    autoregressive: Number = None
    inside: Number = None  # by the clean stream of the diffusion model


class FusionExample(Record):
    """A held-out middle between its sides, and the nats of its tokens: [weights][tokens]."""

    left: str
    right: str
    tokens: list[str]
    nats_alpha: list[list[float]]
    nats_w: list[list[float]]


class FusionCurve(Record):
    """Nats per character of held-out middles of `span` characters, at each weight of the two laws of fusion.

    `autoregressive` is that of the autoregressive model alone, `reranked` of so many of its `drafts`, of which one is
    drawn by how well the right side follows: an upper bound.
    """

    span: int
    alpha: list[float]
    w: list[float]
    nats_alpha: list[float]
    nats_w: list[float]
    autoregressive: Number = None
    reranked: Number = None
    drafts: int | None = None
    characters: int = 0
    seed: int | None = None
    examples: list[FusionExample] = Field(default_factory=list)


class Evaluation(Record):
    """One evaluation. On disk `metrics` is metrics.json and the rest evaluation.json, with the keys that were set.

    Two evaluations with the same `evaluation_key` may be compared: same data, judge, sampling settings and measures.
    """

    modality: Literal["images", "text"] = "images"
    metrics: dict[str, Metric] = Field(default_factory=dict)
    sample: dict[str, Any] = Field(default_factory=dict)  # the settings of the sampling
    evaluations: int | None = None  # of the network (NFE), for one sample
    count: int | None = None
    data_sha256: Label | None = None
    weights_sha256: Label | None = None
    judge: JudgeFacts | None = None
    evaluation_key: Note = ""

    # Images.
    class_names: list[str] = Field(default_factory=list)
    per_class_accuracy: list[Number] | None = None
    class_accuracy_interval: tuple[float, float] | None = None
    confusion: list[list[int]] | None = None  # rows: asked for, columns: read by the judge
    class_histogram: Histogram | None = None
    mean_confidence: Confidence | None = None
    validation_loss: dict[str, float] | None = None

    # Text.
    likelihood: Likelihood | None = None
    frontier: list[FrontierPoint] = Field(default_factory=list)
    gamma_bins: list[GammaLoss] = Field(default_factory=list)
    fusion: list[FusionCurve] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _older_name(cls, facts: Any) -> Any:
        """Evaluations of texts used to call their key `key`."""
        if isinstance(facts, Mapping) and "key" in facts:
            return {"evaluation_key": facts["key"], **{name: fact for name, fact in facts.items() if name != "key"}}
        return facts

    @classmethod
    def read(cls, folder: Path) -> Evaluation:
        """The evaluation in `folder`.

        Raises:
            UserError: a file is missing or does not hold what it should; the file and the key are named.
        """
        path = folder / EVALUATION
        facts = storage.read_json(path)
        if not isinstance(facts, dict):
            raise UserError(f"{path}: expected facts by name, found {str(facts)[:60]}")
        metrics = read_metrics(storage.read_json(folder / METRICS), str(folder / METRICS))
        return validate(cls, {**facts, "metrics": metrics}, str(path))

    def write(self, folder: Path) -> None:
        storage.write_json(folder / METRICS, dump(self.metrics))
        storage.write_json(folder / EVALUATION, self.model_dump(mode="json", exclude={"metrics"}, exclude_unset=True))

    def metadata(self) -> dict[str, Any]:
        """Values by name, and what they belong to: the metadata of the artifact."""
        values = {name: metric.value for name, metric in self.metrics.items()}
        judge = self.judge.sha256 if self.judge else None
        return {**values, "judge_sha256": judge, "evaluation_key": self.evaluation_key, "count": self.count}


def read_metrics(content: object, where: str) -> dict[str, Metric]:
    """The content of a metrics.json, or of what a registry keeps of one; `where` names it in errors.

    Raises:
        UserError: it does not hold metrics by name. A single odd entry costs a warning.
    """
    if not isinstance(content, Mapping):
        raise UserError(f"{where}: expected metrics by name, found {str(content)[:60]}")
    for name, entry in content.items():
        value = entry.get("value") if isinstance(entry, Mapping) else entry
        if not isinstance(entry, Mapping) or not isinstance(value, int | float | None):
            log.warning("%s: %s: found %s, not a measurement; it counts as missing", where, name, str(value)[:60])
    return {str(name): validate(Metric, entry, f"{where}: {name}") for name, entry in content.items()}


INTO_SERVICE = (
    "It is registered, but not in service: textdiffusion promote MODEL@VERSION puts it there (textdiffusion models);"
    " gate.first_floors: 0 promotes any first model"
)


class Decision(StrEnum):
    """What the gate says: the challenger becomes champion, is registered but does not serve, or is refused.

    `keep` is what records have always called a refusal: the champion stays, if there is one.
    """

    PROMOTE = "promote"
    PROVISIONAL = "provisional"
    KEEP = "keep"


class Contender(Record):
    """One side of the gate's comparison. A champion has a version, and may have been measured again."""

    version: int | None = None
    weights_sha256: Label = ""
    evaluation_key: Note = ""
    metric: Number = None  # the value that decides
    measured_again: bool | None = None


class Verdict(Record):
    """The gate's decision and why.

    `gain` is how much better the challenger is in the metric that decides; `gain_interval` its lower and upper bound,
    each at the confidence of the job.
    """

    decision: Decision
    reason: Note
    gain: Number = None
    gain_interval: tuple[float, float] | None = None
    not_comparable: bool = False
    challenger: Contender = Contender()
    champion: Contender | None = None

    @property
    def outcome(self) -> str:
        """The decision as people are told it."""
        if self.decision == Decision.KEEP:
            return "champion stays" if self.champion else "not promoted"
        return {Decision.PROMOTE: "promoted", Decision.PROVISIONAL: "provisional"}[self.decision]

    @property
    def explanation(self) -> str:
        """The reason, and how a provisional model comes into service all the same."""
        return f"{self.reason}. {INTO_SERVICE}" if self.decision == Decision.PROVISIONAL else self.reason

    @classmethod
    def read(cls, folder: Path) -> Verdict:
        """verdict.json in `folder`; a UserError if it does not hold one."""
        return read(cls, str(folder / VERDICT))

    def facts(self) -> dict[str, Any]:
        """The content of verdict.json, and the metadata of the artifact."""
        champion = self.champion and self.champion.model_dump(mode="json", exclude_unset=True)
        return {**self.model_dump(mode="json", exclude_unset=True), "champion": champion}

    def write(self, folder: Path) -> None:
        storage.write_json(folder / VERDICT, self.facts())
