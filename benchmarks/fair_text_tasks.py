"""What benchmarks/fair_text.py gives its processes to do. Each task finds data sets, judge and starts under `place`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from benchmarks.fair_text_measures import (
    LANES,
    PROCESS,
    Facts,
    Sizes,
    bits,
    infill,
    keep_weights,
    kept_weights,
    samples,
    texts_of,
    verdict,
    windows_of,
)
from benchmarks.text import SHARED
from benchmarks.text_peers import (
    BlockMasksObjective,
    FillInTheMiddleObjective,
)
from core import storage
from core.config import TrainConfig
from core.processes.world import World, own_device
from core.storage.checkpoint import CheckpointStore
from core.text.config import TextModel
from core.text.data import TextSet
from core.text.objective import AutoregressiveObjective, DiffusionObjective, MaskedObjective
from core.training.loop import fit


@dataclass(frozen=True)
class Contender:
    """A way to model text on the one backbone; `warm` if it begins as an autoregressive model."""

    name: str
    objective: Callable[[TextModel, TextSet, int], Any]
    process: Facts = field(default_factory=lambda: dict(PROCESS))
    warm: bool = False


FIELD = (
    Contender("autoregressive", AutoregressiveObjective),
    Contender("fill in the middle", FillInTheMiddleObjective),
    Contender("masks (MDLM)", MaskedObjective),
    Contender("block masks 4 (BD3-LM)", BlockMasksObjective, {"blocks": (4,)}, warm=True),
    Contender("block masks 8 (BD3-LM)", BlockMasksObjective, {"blocks": (8,)}, warm=True),
    Contender("ours", DiffusionObjective, warm=True),
    Contender("ours in lanes", DiffusionObjective, LANES, warm=True),
    Contender("ours with endpoints", DiffusionObjective, {**PROCESS, "endpoints": 0.25}, warm=True),
)


def contender(name: str) -> Contender:
    return next(one for one in FIELD if one.name == name)


def judged(place: Path, examples: int, sizes: Sizes) -> Facts:
    """Trains the second judge, an autoregressive model of characters; what real text is to both judges."""
    texts = texts_of(place, "characters")
    objective = AutoregressiveObjective(sizes.model({}), texts, 1)
    network, facts = fitted(objective, examples, 0.02, 1)
    keep_weights(place / "judge.safetensors", network)
    real = [texts_of(place).tokenizer.decode(row) for row in windows_of(place, sizes).tokens.tolist()]
    return {**facts, "windows": [len(text) for text in real], "test text": verdict(place, sizes, real)}


def started(place: Path, examples: int, rate: float, seed: int, sizes: Sizes) -> Facts:
    """The autoregressive model that warm contenders of a seed begin with."""
    network, facts = fitted(AutoregressiveObjective(sizes.model(PROCESS), texts_of(place), seed), examples, rate, seed)
    keep_weights(_start(place, seed), network)
    return facts


def short(place: Path, name: str, rate: float, examples: int, sizes: Sizes) -> Facts:
    """The loss on validation text after a short training."""
    return _trained(place, contender(name), rate, 0, examples, sizes)[1]


def full(place: Path, name: str, rate: float, seed: int, examples: int, sizes: Sizes) -> Facts:
    """A training, and all that is measured of its best weights by validation.

    The weights stay under `place`, and a run that goes on there measures them without training again.
    """
    one = contender(name)
    network, facts = _kept(place, one, rate, seed, examples, sizes)
    return facts | {
        "bits": bits(place, network, sizes),
        "samples": samples(place, network, seed, sizes),
        "infill": infill(place, network, seed, sizes),
    }


def _kept(place: Path, one: Contender, rate: float, seed: int, examples: int, sizes: Sizes) -> tuple[nn.Module, Facts]:
    """As `_trained`, of which weights and facts are kept with what they were asked for."""
    weights, notes = (place / f"{one.name}-{seed}.{kind}" for kind in ("safetensors", "json"))
    start = storage.sha256(_start(place, seed)) if one.warm else None
    asked = {"rate": rate, "examples": examples, "model": repr(sizes.model(one.process)), "start": start}
    if notes.exists() and (noted := storage.read_json(notes))["asked"] == asked:
        network = _objective(place, one, seed, sizes).model.to(own_device())
        network.load_state_dict(kept_weights(weights))
        return network.eval(), noted["facts"]
    network, facts = _trained(place, one, rate, seed, examples, sizes)
    keep_weights(weights, network)
    storage.write_json(notes, {"asked": asked, "facts": facts})
    return network, facts


def _trained(
    place: Path, one: Contender, rate: float, seed: int, examples: int, sizes: Sizes
) -> tuple[nn.Module, Facts]:
    objective = _objective(place, one, seed, sizes)
    if one.warm:
        objective.model.autoregressive.load_state_dict(kept_weights(_start(place, seed)))
    return fitted(objective, examples, rate, seed)


def _objective(place: Path, one: Contender, seed: int, sizes: Sizes) -> Any:
    return one.objective(sizes.model(one.process), texts_of(place), seed)


def _start(place: Path, seed: int) -> Path:
    return place / f"start-{seed}.safetensors"


def fitted(objective: Any, examples: int, rate: float, seed: int) -> tuple[nn.Module, Facts]:
    """A training of an objective: the averaged weights at the best of ten looks at validation text."""
    own = {"validate_every": 0.1, "early_stop": 100, "checkpoint_minutes": 60, "muon_learning_rate": rate, "seed": seed}
    settings = TrainConfig.model_validate({**SHARED, **own, "examples": examples})
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        result = fit(objective, settings, CheckpointStore(folder), World(0, 1, own_device()))
    looks = [(row["validation"]["loss"], row["examples"]) for row in result.log if "validation" in row]
    loss, best = min(looks)
    parameters = sum(p.numel() for p in result.model.parameters())
    facts = {"loss": loss, "best at": best, "examples": result.examples_seen, "parameters": parameters}
    return result.model.eval(), facts | {"training, s": round(result.seconds, 1)}
