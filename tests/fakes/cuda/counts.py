"""Steps of training and sampling on the device that computes nothing, and what each takes, as JSON.

python -m tests.fakes.cuda.counts
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fakes.cuda.device import Counts, prepare, pretended

STEPS = 5  # of diffusion of text, whose steps differ
DRAWN = 32


class NoCheckpoints:
    root = "nowhere"

    def load(self) -> None:
        return None


def training(
    objective: Any, settings: dict[str, Any], counts: Counts, steps: int = 1, *, record: bool = False
) -> dict[str, Any]:
    """The dearest of `steps` steps between two rows of the log, after the first, which makes the optimizers' state; and
    what one that is recorded waits for."""
    import torch

    from core.config import TrainConfig
    from core.processes.world import World
    from core.training.graphs import Graphs
    from core.training.loop import _Training

    config = TrainConfig(**{**settings, "examples": 10**6, "minutes": None, "graphs": False})
    world = World(0, 1, torch.device("cuda", 0))
    run = _Training(objective, config, NoCheckpoints(), world, "train", None, {})  # type: ignore[arg-type]
    run._step()
    found = []
    for _ in range(steps):
        counts.reset()
        run._step()
        found.append(counts.summary())
    waits = {place: count for one in found for place, count in one["waits"].items()}
    if record:
        counts.reset()
        run.step.graphs = Graphs(warm=0)
        run._step()
        waits |= counts.waits
    run._read_outcomes()
    return {"kernels": max(one["kernels"] for one in found), "waits": waits, "precision": run.precision.reason}


def images(counts: Counts) -> dict[str, Callable[[], Any]]:
    import numpy as np
    import torch

    from core.images import sampling
    from core.images.model import ImageShape, NoiseProcess, TrainedModel
    from core.images.objective import ImageObjective
    from core.images.prepared import RECORDED, Prepared
    from core.processes.world import World
    from factory.job import ImageTrainingJob
    from pipelines.jobs import load_job

    job = load_job("mnist-training")
    assert isinstance(job, ImageTrainingJob)
    rng, device = np.random.default_rng(0), torch.device("cuda", 0)
    split = rng.integers(0, 256, (300, 28, 28), dtype=np.uint8), rng.integers(0, 10, 300)
    shape = ImageShape(channels=1, height=28, width=28, class_names=tuple("0123456789"))

    def objective(**process: Any) -> ImageObjective:
        model = job.model.model_copy(update={"process": job.model.process.model_copy(update=process)})
        return ImageObjective(model, shape, split, split)

    def train(precision: str = "auto", *, record: bool = False, **process: Any) -> Any:
        settings = job.train.model_dump() | {"precision": precision, "guide_at": None, "batch_size": 64}
        return training(objective(**process), settings, counts, record=record)

    def ready(**changes: Any) -> Any:
        own = objective()
        network, guide = (m.to(device).eval().requires_grad_(False) for m in (own.model, objective().model))
        trained = TrainedModel(network, NoiseProcess(own.config.process), shape, own.config, {}, guide)
        settings = job.sample.model_copy(update={"count": DRAWN, **changes})
        return (
            trained,
            settings,
            sampling.choose_labels(settings, trained),
            sampling.choose_sigmas(settings, trained.process),
        )

    def draw(**changes: Any) -> Any:
        trained, settings, labels, sigmas = ready(**changes)
        counts.reset()
        sampling.draw(trained, settings, labels, sigmas, World(0, 1, device))
        return counts.summary() | {"evaluations": sampling.denoiser_evaluations(settings)}

    def draw_on() -> Any:
        """What a batch takes after the first, of as many as are worth a recording."""
        trained, settings, labels, sigmas = ready()
        model = Prepared(trained, settings, device, RECORDED)
        sampling.draw_batch(model, settings, range(DRAWN), labels, sigmas, device)
        counts.reset()
        sampling.draw_batch(model, settings, range(DRAWN), labels, sigmas, device)
        recording = [place for place in counts.waits if "in a graph" in place]
        counts.reset()
        sampling.draw_batch(model, settings, range(DRAWN), labels, sigmas, device)
        return counts.summary() | {"recording": recording}

    def look() -> Any:
        own = objective()
        network = own.model.to(device)
        counts.reset()
        own.validate(network)
        own.preview(network)
        return counts.summary()

    return {
        "train images": train,
        "train images, fp16": lambda: train("fp16"),
        "train images, epsilon": lambda: train(
            record=True, parameterisation="epsilon", density="uniform", weight="min_snr"
        ),
        "draw images": draw,
        "draw images, heun": lambda: draw(sampler="heun", steps=4),
        "draw images, feedback": lambda: draw(feedback=0.1),
        "draw images, another batch": draw_on,
        "look at images": look,
    }


def texts(counts: Counts) -> dict[str, Callable[[], Any]]:
    import torch

    from core.randomness import Noise
    from core.text import autoregressive, fusion, generation, masked, original
    from core.text.data import TextSet
    from core.text.objective import OBJECTIVES
    from core.training.casts import cast
    from core.training.graphs import WARM, WORTH
    from factory.job import TextTrainingJob
    from pipelines.jobs import load_job

    job = load_job("shakespeare-training")
    assert isinstance(job, TextTrainingJob)
    device = torch.device("cuda", 0)

    class Tokens:
        size = 1024

        def decode(self, ids: list[int]) -> str:
            return "".join(chr(97 + index % 26) for index in ids)

    tokens = {split: torch.randint(0, 1024, (20_000,)) for split in ("train", "validation", "test")}
    data = TextSet({"train": "a", "validation": "a"}, tokens, Tokens(), {})  # type: ignore[arg-type]

    shallow = job.model.transformer.model_copy(update={"depth": 1})  # enough to see what drawing waits for

    def objective(name: str, **changes: Any) -> Any:
        return OBJECTIVES[name](job.model.model_copy(update=changes), data, 0)

    def train(name: str, steps: int = 1) -> Any:
        settings = job.train.model_dump() | {"guide_at": None}
        return training(objective(name), settings, counts, steps, record=name == "diffusion")

    def network(name: str) -> Any:
        return objective(name, transformer=shallow).model.to(device).eval().requires_grad_(False)

    def count(model: Any, work: Callable[[], Any]) -> Any:
        counts.reset()
        with torch.autocast("cuda", torch.bfloat16), cast(torch.bfloat16, model):
            work()
        return counts.summary()

    def look(name: str) -> Any:
        own = objective(name, transformer=shallow)
        model = own.model.to(device).eval()
        counts.reset()
        own.validate(model)
        return counts.summary()

    settings, context = generation.Settings(steps=4, guidance=1.5), job.model.context
    empty = torch.zeros(4, 0, dtype=torch.long)

    def diffusion() -> Any:
        model, start = network("diffusion"), empty.to(device)
        left, right = torch.zeros(4, 5, dtype=torch.long).to(device), torch.zeros(4, 6, dtype=torch.long).to(device)

        many = torch.zeros(2, 3, 8, dtype=torch.long).to(device)

        def join(own: Any, both: Any, alone: Any) -> Any:
            return fusion.bayes(own, both, alone, 1.0)

        def work() -> None:
            noise = Noise(range(4), device)
            generation.generate(model, start, 8, 4, settings, noise)
            generation.fill(model, left, 4, right, settings, noise)
            fusion.fill(model.autoregressive, model, left, 3, right, join, noise)
            fusion.reweight(model.autoregressive, many, 1.0, noise[:2])

        return count(model, work)

    def verify() -> Any:
        model, start = network("diffusion"), empty[:1].to(device)
        return count(
            model, lambda: fusion.verify(model.autoregressive, model, start, 2, 2, settings, Noise([0], device))
        )

    def next_tokens() -> Any:
        model, start = network("autoregressive"), empty.to(device)
        return count(model, lambda: autoregressive.generate(model, start, 6, Noise(range(4), device)))

    def token_more() -> Any:
        """What a token takes once its work is repeated."""
        model, start = network("autoregressive"), empty.to(device)

        def drawn(length: int) -> Any:
            return count(model, lambda: autoregressive.generate(model, start, length, Noise(range(4), device)))

        few, more = drawn(WORTH), drawn(WORTH + 10)
        return more | {"kernels": (more["kernels"] - few["kernels"]) / 10}

    def block_more() -> Any:
        """What a block takes once its work is repeated: its steps, and that it is read."""
        model, start, tokens = network("diffusion"), empty.to(device), torch.zeros(4, 8, dtype=torch.long).to(device)
        waits: dict[str, int] = {}

        def work() -> None:
            prefix, noise = generation.Prefix(model, start, 8, WORTH), Noise(range(4), device)
            for _ in range(WARM + 2):
                waits.update(counts.waits)
                counts.reset()
                ids, _ = generation.denoise_block(model, prefix, tokens, tokens > 0, settings, noise)
                prefix.extend(ids, 8)

        return {**(last := count(model, work)), "waits": waits | last["waits"], "evaluations": settings.steps}

    def at_once(name: str, generate: Callable[..., Any]) -> Any:
        model = network(name)
        return count(model, lambda: generate(model, context, 4, Noise(range(4), device)))

    return {
        "train text, autoregressive": lambda: train("autoregressive"),
        "train text, diffusion": lambda: train("diffusion", STEPS),
        "train text, masked": lambda: train("masked"),
        "train text, original": lambda: train("original"),
        "draw text, diffusion": diffusion,
        "draw text, autoregressive": next_tokens,
        "draw text, autoregressive, a token more": token_more,
        "draw text, diffusion, a block more": block_more,
        "draw text, masked": lambda: at_once("masked", masked.generate),
        "draw text, original": lambda: at_once("original", original.generate),
        "draw text, verified": verify,
        "look at text, diffusion": lambda: look("diffusion"),
        "look at text, autoregressive": lambda: look("autoregressive"),
    }


def traced() -> dict[str, Any]:
    """Whether torch.compile finds its way through diffusion of text on a GPU, after clean text and without.

    Nothing is compiled: dynamo traces with tensors of its own that compute nothing.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from core.text.denoiser import Diffusion, Noisy
    from factory.job import TextTrainingJob
    from pipelines.jobs import load_job

    job = load_job("shakespeare-training")
    assert isinstance(job, TextTrainingJob)
    config = job.model.model_copy(update={"transformer": job.model.transformer.model_copy(update={"depth": 1})})
    torch.cuda._lazy_init = lambda: None
    traces: list[Any] = []

    def taken(graph: Any, _: Any) -> Any:
        traces.append(graph)
        results = [node.meta["example_value"] for node in graph.graph.output_node().args[0]]
        return lambda *_: results

    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"):
        model, length = Diffusion(1024, config, torch.zeros(1024)), config.context
        tokens = torch.zeros(2, length, dtype=torch.long)
        known, begins = torch.zeros(2, length, dtype=torch.bool), torch.zeros(length, dtype=torch.bool)
        z = torch.zeros(2, length, config.process.embedding)
        slots = [Noisy(z, z[..., 0], tokens, known, tokens, begins, has_prefix) for has_prefix in (False, True)]
    for noisy in slots:
        torch.compile(model, backend=taken)(noisy, 8)
    return {"graphs": len(traces)}


def outcome(work: Callable[[], Any]) -> Any:
    """What `work` returns, or the error that it ended with."""
    try:
        return work()
    except Exception as error:
        if "--trace" in sys.argv:
            raise
        return {"error": f"{type(error).__name__}: {error}"[:300]}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        found: dict[str, Any] = {}
        with pretended() as counts:
            for name, work in {**images(counts), **texts(counts)}.items():
                counts.reset()
                found[name] = outcome(work)
        found["trace text, diffusion"] = outcome(traced)
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
