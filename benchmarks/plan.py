"""The tables of docs/planning.md: what trainings take on GPUs, in hours and dollars, and which limit comes first.

    python -m benchmarks.plan

Nothing is measured here: networks are counted (benchmarks/workload.py), time is calculated (benchmarks/gpus.py).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator

from benchmarks import growth
from benchmarks.gpus import HARDWARE, UTILISATION, Training, dollars, exchange, fitting, hours, machine, step
from benchmarks.results import markdown
from benchmarks.volume import reach_rows, volume_rows
from benchmarks.workload import autoregressive_work, diffusion_work, image_work
from core.images.config import ImageModel
from core.images.model import ImageShape
from core.text.config import TextModel
from factory.job import ImageTrainingJob, TextTrainingJob
from pipelines.jobs import load_job

REFUSED = "refused: more GPUs than examples in a batch"
Field = list[Training]


def trainings() -> Iterator[Training]:
    """The jobs of this repository at a fixed budget, then the ladder for GPUs; counted one after the other."""
    mnist, shakespeare = load_job("mnist-training"), load_job("shakespeare-training")
    assert isinstance(mnist, ImageTrainingJob)
    assert isinstance(shakespeare, TextTrainingJob)
    vocabulary, windows = shakespeare.data.tokenizer.vocabulary, 30_000
    yield Training("`mnist-training`", image_work(mnist.model, _shape(1, 28)), 429_440, mnist.train.batch_size, 28 * 28)
    for name, count, train in (
        ("autoregressive", autoregressive_work, shakespeare.autoregressive),
        ("diffusion", diffusion_work, shakespeare.train),
    ):
        work = count(shakespeare.model, vocabulary)
        noise = _noise(shakespeare.model) if name == "diffusion" else 0
        yield Training(f"`shakespeare-training`, {name}", work, windows, train.batch_size, noise)
    colour = ImageModel.model_validate({"network": {"name": "unet", "channels": [128, 256, 256], "blocks": [2, 2, 2]}})
    yield Training("colour 32x32", image_work(colour, _shape(3, 32)), 1e8, 512, 3 * 32 * 32)
    yield Training("text 6 x 384", diffusion_work(_text(6), vocabulary), 64 * 20e3, 64, _noise(_text(6)))
    deep, noise = diffusion_work(_text(16), vocabulary), _noise(_text(16))
    yield Training("text 16 x 384", deep, 256 * 10e3, 256, noise)
    yield Training("text 16 x 384, five times as long", deep, 256 * 50e3, 256, noise)


def _noise(model: TextModel) -> int:
    return model.context * model.process.embedding


def _text(depth: int) -> TextModel:
    return TextModel.model_validate({"context": 256, "transformer": {"width": 384, "depth": depth, "heads": 6}})


def _shape(channels: int, side: int) -> ImageShape:
    return ImageShape(channels=channels, height=side, width=side, class_names=tuple("0123456789"))


def growth_table(_: Field) -> str:
    """Exponents of power laws between the smallest and the largest point of benchmarks.growth."""
    rows = []
    for panel in growth.PANELS:
        ends = panel.values[0], panel.values[-1]
        points = [(one, panel.spec(value)["batch"]) for value in ends if (one := growth.work(panel.spec(value)))]
        if not points:
            continue
        x = [one.parameters for one, _ in points] if panel.grows.startswith("parameters") else ends
        columns = {
            "FLOP": [one.flop * batch for one, batch in points],
            "activations": [one.activations * batch for one, batch in points],
            "state": [one.state for one, _ in points],
        }
        slopes = {name: f"{round(growth.slope(x, y) or 0, 2) + 0.0:.2f}" for name, y in columns.items()}
        rows.append({"grows": panel.grows, "from": min(x), "to": max(x), **slopes, "of a": panel.what})
    return markdown(rows)


def work_table(field: Field) -> str:
    """What one step costs, whatever it runs on."""
    rows = [
        {
            "training": one.name,
            "parameters": f"{one.work.parameters / 1e6:.1f} M",
            "GFLOP an example": f"{one.work.flop / 1e9:.3g}",
            "examples": f"{one.examples / 1e6:.3g} M",
            "batch": one.batch,
            "PFLOP in all": f"{one.flop / 1e15:,.3g}" if one.flop < 1e18 else f"{one.flop / 1e15:,.0f}",
            "operators a step": round(one.work.operators),
            "state": f"{one.work.state / 1e6:,.0f} MB",
            "activations an example": f"{one.work.activations / 1e6:,.1f} MB",
        }
        for one in field
        if not one.name.endswith("as long")
    ]
    return markdown(rows)


def machine_table(field: Field) -> str:
    """Hours, USD and what most of a step goes to, on each machine."""
    places = [(row, hardware.name, 1) for row, hardware in HARDWARE.items()] + [("a100-x8", "4 x 8 x A100", 4)]
    return markdown(
        [{"training": one.name, **{name: _cell(one, row, machines) for row, name, machines in places}} for one in field]
    )


def _cell(training: Training, row: str, machines: int) -> str:
    if machine(row).accelerator_count * machines > training.batch:
        return REFUSED
    return (
        f"{_time(hours(training, row, machines))}, {dollars(training, row, machines):,.2f} USD,"
        f" {step(training, row, machines).limit}"
    )


def _time(value: float) -> str:
    if value < 1 / 60:
        return f"{3600 * value:.0f} s"
    return f"{60 * value:.0f} min" if value < 2 else f"{value:,.1f} h"


def node_table(field: Field) -> str:
    """Speed-up by machines of eight A100 at the same global batch, against one A100; and where the network takes over.

    That is the number of examples on each GPU at which computing takes as long as the exchange of two machines.
    """
    rows = []
    for one in field:
        alone = step(one, "a100").seconds
        row: dict[str, object] = {"training": one.name, "batch": one.batch, "1 GPU": f"{1e3 * alone:.1f} ms"}
        for machines in (1, 2, 4, 8):
            gpus = 8 * machines
            if gpus > one.batch:
                row[f"{gpus} GPUs"] = "refused"
                continue
            taken = step(one, "a100-x8", machines)
            row[f"{gpus} GPUs"] = f"x {alone / taken.seconds:.1f}, {taken.limit}"
        even = exchange(one, "a100-x8", 2) * UTILISATION * HARDWARE["a100-x8"].peak / one.work.flop
        row["examples a GPU to keep up"] = math.ceil(even)
        rows.append(row)
    return markdown(rows)


def memory_table(field: Field) -> str:
    """The largest micro-batch of each GPU."""
    rows = []
    for one in field:
        row: dict[str, object] = {"training": one.name, "batch": one.batch}
        rows.append(row | {HARDWARE[name].name: fitting(one, name) for name in ("t4", "l4", "a100")})
    return markdown(rows)


def hardware_table(_: Field) -> str:
    """What is taken of each machine."""
    rows = []
    for row, one in HARDWARE.items():
        rented = machine(row)
        assert rented.usd_per_hour is not None
        rows.append(
            {
                "row": f"`{row}`",
                "machine": rented.machine_type,
                "GPUs": rented.accelerator_count,
                "peak of one": f"{one.peak / 1e12:.0f} TFLOP/s {one.format}",
                "memory": f"{one.memory / 1e9:.0f} GB, {one.bandwidth / 1e9:,.0f} GB/s",
                "between GPUs": "-" if math.isinf(one.link) else f"{one.link / 1e9:.0f} GB/s",
                "between machines": f"{one.network / 1e9 * 8:.0f} Gbit/s",
                "USD an hour": f"{rented.price():.2f}",
                "prices of": f"{rented.usd_per_hour.date}{'' if rented.usd_per_hour.verified else ', not verified'}",
            }
        )
    return markdown(rows)


TABLES: dict[str, Callable[[Field], str]] = {
    "growth": growth_table,
    "work": work_table,
    "hardware": hardware_table,
    "memory": memory_table,
    "machines": machine_table,
    "nodes": node_table,
    "volume": lambda _: markdown(volume_rows()),
    "reach": lambda field: markdown(reach_rows(field)),
}


def tables() -> Iterator[tuple[str, str]]:
    """Every table of the page by name."""
    field = list(trainings())
    for name, table in TABLES.items():
        yield name, table(field)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for name, table in tables():
        print(f"<!-- {name} -->\n{table}\n")


if __name__ == "__main__":
    main()
