"""What the pipeline itself costs: per step, to compile, to run again from the cache; and a million images prepared.

    python -m benchmarks.pipeline [--counts 50000,200000,1000000] [--repeats 3]

Overhead: the command `textdiffusion run` on a small job against one process that calls the steps of `core` in turn on
the same configuration, both from a cold start, alternating; the difference over the number of steps. Images: generated
ones stream from an npz through prepare-data in a process of its own, whose peak of memory is what the kernel says.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.lib import format as npy

from benchmarks.devices import peak_bytes
from benchmarks.results import parser, publish

ROOT = Path(__file__).parents[1]
JOB = """
job: overhead
description: A job as small as one can be, to measure what is around it
modality: images
data: {source: digits}
model: {network: {channels: [8, 16], blocks: [1, 1]}}
train: {examples: 256, batch_size: 64, warmup_examples: 64}
sample: {count: 16, steps: 2}
evaluate: {count: 16, judge_epochs: 1}
gate: {metric: frechet_distance, first_floors: 0}
"""
STEPS = 7  # prepare-data, train-judge, train, sample, evaluate, gate, register
CHUNK = 10_000  # images generated at once


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--counts", default="50000,200000,1000000", help="numbers of images")
    options.add_argument("--repeats", type=int, default=3, help="of each timing; the median counts")
    options.add_argument("--direct", nargs=2, metavar=("JOB", "FOLDER"), help=argparse.SUPPRESS)
    options.add_argument("--prepare", nargs=2, metavar=("NPZ", "FOLDER"), help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.direct:
        run_directly(*arguments.direct)
        return
    if arguments.prepare:
        prepare(*arguments.prepare)
        return
    rows = [*overheads(arguments.repeats), *streamed([int(count) for count in arguments.counts.split(",")])]
    publish("pipeline", "# What the pipeline costs", rows, arguments.out)


def run_directly(job_file: str, folder: str) -> None:
    """The steps of a training job by function calls, without a pipeline."""
    from core.config import GateConfig
    from core.evaluation import Evaluation
    from core.metrics import dump
    from core.modality import run
    from core.requests import (
        EvaluateRequest,
        PrepareDataRequest,
        SampleRequest,
        Section,
        TrainJudgeRequest,
        TrainRequest,
    )
    from factory.gate import Challenge, compare
    from factory.registry import Registry
    from pipelines.jobs import load_job, sections

    job: dict[str, Section] = sections(load_job(job_file))
    place = Path(folder)
    dataset, judge, model, samples, evaluation = (place / name for name in ("dataset", "judge", "model", "s", "e"))
    run(PrepareDataRequest(modality="images", data=job["data"], out=dataset))
    run(TrainJudgeRequest(modality="images", evaluate=job["evaluate"], dataset=dataset, out=judge))
    training = {"model": job["model"], "train": job["train"], "work": str(place / "work")}
    trained = run(TrainRequest(modality="images", **training, dataset=dataset, out=model))
    run(SampleRequest(modality="images", sample=job["sample"], model=model, out=samples))
    folders = {"dataset": dataset, "judge": judge, "model": model, "samples": samples}
    run(EvaluateRequest(modality="images", evaluate=job["evaluate"], **folders, out=evaluation))
    registry = Registry(place / "registry")
    challenge = Challenge("images", model, evaluation, dataset, judge, job["sample"], job["evaluate"])
    champion = registry.champion("overhead")
    verdict = compare(GateConfig.model_validate(job["gate"]), challenge, champion, place)
    measured = Evaluation.read(evaluation)
    version = registry.register(
        "overhead",
        {"model": model},
        metrics=dump(measured.metrics),
        evaluation_key=measured.evaluation_key,
        weights_sha256=trained["weights_sha256"],
        lineage={},
    )
    registry.promote("overhead", version.version, verdict.reason)


def overheads(repeats: int) -> list[dict[str, Any]]:
    """Rows for the overhead of a step, the compilation of all jobs and the run from the cache."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        folder = Path(scratch)
        (folder / "overhead.yaml").write_text(JOB)
        pipeline: list[Seconds] = []
        direct, cached, compiled = list(pipeline), list(pipeline), list(pipeline)
        for number in range(repeats):
            place = folder / str(number)
            run = ["textdiffusion.cli.app", "run", "overhead.yaml"]
            here = {"TEXTDIFFUSION_RUNS": str(place / "runs"), "TEXTDIFFUSION_REGISTRY": str(place / "registry")}
            direct.append(timed(["benchmarks.pipeline", "--direct", "overhead.yaml", str(place / "direct")], folder))
            pipeline.append(timed(run, folder, here))
            cached.append(timed(run, folder, here))
            compiled.append(timed(["textdiffusion.cli.app", "compile", "all"], folder))
    whole, alone = median(pipeline), median(direct)
    overhead = Seconds((whole.wall - alone.wall) / STEPS, (whole.cpu - alone.cpu) / STEPS)
    return [
        row("the small job, steps of core called directly", alone),
        row("the small job, `textdiffusion run`", whole),
        row("overhead of a step", overhead, 0.5),
        row("the same again, from the cache", median(cached), 5),
        row("`textdiffusion compile all`", median(compiled), 5),
    ]


class Seconds(NamedTuple):
    """Time on the clock, and of the processor: the latter is little moved by what else runs on the machine."""

    wall: float
    cpu: float


def median(found: list[Seconds]) -> Seconds:
    """The median of each."""
    return Seconds(*(statistics.median(values) for values in zip(*found, strict=True)))


def row(what: str, seconds: Seconds, target: float | None = None, megabytes: float | None = None) -> dict[str, Any]:
    """One line of the table."""
    goal = None if target is None else f"under {target:g} s" if megabytes is None else f"under {target:,.0f} MB"
    return {"what": what, "s": round(seconds.wall, 3), "CPU s": round(seconds.cpu, 3), "MB": megabytes, "target": goal}


def timed(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> Seconds:
    """What `python -m COMMAND` takes, with all the processes that it starts."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
    done = subprocess.run([sys.executable, "-m", *command], cwd=folder, env=variables, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Seconds(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def streamed(counts: list[int]) -> list[dict[str, Any]]:
    """Rows for the preparation of generated data sets: time and peak of memory."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        for count in counts:
            found = prepared(count, Path(scratch) / str(count))
            each = f"{1e6 * found['wall'] / count:.1f} us each"
            rows.append(
                row(f"prepare-data, {count:,} images of 28 x 28, {each}", Seconds(found["wall"], found["cpu"]),
                    1000, round(found["bytes"] / 1e6))
            )  # fmt: skip
    return rows


def prepared(count: int, folder: Path) -> dict[str, float]:
    """What prepare-data of `count` generated images into `folder` takes in a process of its own; see `prepare`."""
    source = folder.with_suffix(".npz")
    generate(source, count)
    command = [sys.executable, "-m", "benchmarks.pipeline", "--prepare", str(source), str(folder)]
    found = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    source.unlink()
    return dict(found)


def generate(path: Path, count: int) -> None:
    """An npz of `count` random images of ten classes, written a chunk at a time."""
    random = np.random.default_rng(0)
    labels = np.arange(count) % 10
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        with archive.open("images.npy", "w", force_zip64=True) as stream:
            npy.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": (count, 28, 28)})
            for start in range(0, count, CHUNK):
                size = (min(CHUNK, count - start), 28, 28)
                stream.write(random.integers(0, 256, size, np.uint8).tobytes())
        with archive.open("labels.npy", "w", force_zip64=True) as stream:
            npy.write_array(stream, labels)


def prepare(source: str, folder: str) -> None:
    """prepare-data on one file, in this process; prints its seconds and its peak of memory as JSON."""
    import core.images.modality  # noqa: F401 - its imports are not what is timed
    from core.modality import run
    from core.requests import PrepareDataRequest

    request = PrepareDataRequest(modality="images", data={"source": "npz", "data_dir": source}, out=Path(folder))
    before = peak_bytes(torch.device("cpu"))
    began, spent = time.perf_counter(), time.process_time()
    run(request)
    wall, cpu = time.perf_counter() - began, time.process_time() - spent
    print(json.dumps({"wall": wall, "cpu": cpu, "bytes": peak_bytes(torch.device("cpu")), "before": before}))


if __name__ == "__main__":
    main()
