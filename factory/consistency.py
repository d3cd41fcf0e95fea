"""What the sections of a job ask of one another: known before anything runs, so said before anything runs.

What only the data can tell, their classes and their size, is asked of them in `factory/looking.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from core.config import GateConfig, TrainConfig
from core.errors import UserError
from core.images.classes import NONE, class_indices
from core.images.config import ImageData, ImageEvaluate, ImageModel, ImageSample
from core.images.glossary import GLOSSARY as OF_IMAGES
from core.metrics import Definition, find
from core.similar import did_you_mean
from core.text.config import GAP, TextEvaluate, TextModel, TextSample, around_gap
from core.text.glossary import CHAIN, DIFFERENCE
from core.text.glossary import GLOSSARY as OF_TEXT

DIGITS = tuple(str(digit) for digit in range(10))
SIDES = {"digits": 8, "mnist-small": 28, "mnist": 28}  # in pixels, of the sources that are known without a look
BY_CLASS = ("class_accuracy", "class_chi2", "confidence")  # metrics of data sets with classes
Sample = ImageSample | TextSample
Evaluate = ImageEvaluate | TextEvaluate


def of_images(
    data: ImageData, sample: ImageSample, model: ImageModel | None = None, train: TrainConfig | None = None
) -> Iterator[str]:
    """What cannot be done together in a job of images, a sentence each; `model` and `train` are those of a training."""
    if problem := data.place_problem:
        yield problem
    if sample.count < 2:
        yield f"sample.count: found {sample.count}; samples are measured, and that takes at least 2"
    if data.source in SIDES or data.class_names is not None:
        yield from unknown_classes(sample, data.class_names or DIGITS)
    for name, share in (("redraw", sample.redraw), ("feedback", sample.feedback)):
        if share and sample.labels and all(str(label) == str(NONE) for label in sample.labels):
            yield f"sample.{name}: found {share:g}; sample.labels asks for no class that a sample could miss"
        if share and model is not None and not model.conditional:
            yield f"sample.{name}: found {share:g}; the model knows no classes, as model.conditional: false says"
    if model is None or train is None:
        return
    side = data.resolution or SIDES.get(data.source)
    if side is not None and (problem := model.network.obstacle(side, side)):
        yield problem
    if sample.autoguidance != 1 and train.guide_at is None:
        yield (
            f"sample.autoguidance: found {sample.autoguidance:g}, which needs train.guide_at, for example 0.1: the"
            " share of the training whose weights guide; or set it to 1"
        )
    levels = model.process.schedule.steps
    if sample.grid == "ddpm" and sample.steps > levels:
        yield f"sample.steps: found {sample.steps}; model.process.schedule.steps has {levels}"
    if not model.conditional and any(str(label) != str(NONE) for label in sample.labels or ()):
        yield "sample.labels: the model knows no classes, as model.conditional: false says; leave them out"


def unknown_classes(sample: ImageSample, names: Sequence[str]) -> Iterator[str]:
    """The class in `sample.labels` that is not in `names`, if there is one."""
    try:
        class_indices(sample.labels or (), names, "sample.labels")
    except UserError as error:
        yield str(error)


def of_text(sample: TextSample, model: TextModel | None = None, trainings: Sequence[TrainConfig] = ()) -> Iterator[str]:
    """The same of a job of text."""
    with_gap = [prompt for prompt in sample.prompts if GAP in prompt]
    for prompt in with_gap:
        try:
            around_gap(prompt)
        except UserError as error:
            yield str(error)
    if set(sample.modes) == {"infill"} and not with_gap:
        yield f"sample.modes: infill alone draws nothing without a prompt in sample.prompts that has {GAP}"
    if any(train.guide_at is not None for train in trainings):
        yield "train.guide_at: only sampling of images is guided by earlier weights; leave it out for text"
    if model is None:
        return
    room = max(model.process.blocks)
    if with_gap and sample.gap >= room:
        yield f"sample.gap: found {sample.gap}; the model fills gaps of at most {room - 1} tokens"
    if sample.block is not None and sample.block > model.context:
        yield f"sample.block: found {sample.block}; model.context is {model.context} tokens"


def of_gate(gate: GateConfig, sample: Sample, evaluate: Evaluate) -> Iterator[str]:
    """What the gate asks for that is not measured, or cannot decide."""
    glossary = OF_IMAGES if isinstance(sample, ImageSample) else OF_TEXT
    for key, name in [("gate.metric", gate.metric), *(("gate.require", name) for name in gate.require)]:
        definition, variant = find(glossary, name) or (None, "")
        if definition is None:
            yield from unknown_metric(name, glossary, key)
            continue
        if missing := _unmeasured(definition, variant, sample, evaluate):
            yield f"{key}: {name} is not measured: {missing}"
        if key == "gate.require" and definition.better == "floor" and name != gate.metric:
            yield f"gate.require: {name} is best near its floor, so there is no worst value"
        if key == "gate.metric" and definition.better not in ("floor", gate.better):
            yield f"gate.better: found {gate.better}; of {name} {definition.better} is better"


def unknown_metric(name: str, glossary: Mapping[str, Definition], where: str) -> Iterator[str]:
    """That no metric is called `name`, where none is."""
    if find(glossary, name) is None:
        yield f"{where}: found {name!r}; {did_you_mean(name, glossary)}allowed: {', '.join(glossary)}"


def _unmeasured(metric: Definition, variant: str, sample: Sample, evaluate: Evaluate) -> str:
    """Why the section `evaluate` does not measure a metric; empty if it does."""
    if isinstance(evaluate, TextEvaluate):
        measured = [f"{evaluations:g}" for evaluations in evaluate.evaluations_per_token]
        if metric in (CHAIN, DIFFERENCE) and variant and variant not in measured:
            return f"measured are evaluate.evaluations_per_token: {', '.join(measured) or 'none'}"
    elif isinstance(sample, ImageSample):
        if metric.name == "class_accuracy" and sample.labels and all(str(one) == str(NONE) for one in sample.labels):
            return "sample.labels asks for no class"
        if metric.name == "redrawn" and not sample.redraw:
            return "sample.redraw is 0, so none is drawn again"
        if metric.name in ("precision", "recall") and min(sample.count, evaluate.count) <= evaluate.nearest:
            return f"it needs more samples than evaluate.nearest, {evaluate.nearest}"
    return ""
