"""plan: what a budget buys, by laws through measured trainings."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from core.printable import say
from textdiffusion.cli.output import Json, answer, examples, print_json


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command(
        "plan", epilog=examples("plan --minutes 10 --device cpu", "plan --minutes 1 --device h200 --data mnist")
    )(plan)


def plan(
    minutes: Annotated[float, typer.Option(min=0.001, max=43_200, help="Of training.")],
    device: Annotated[
        str | None,
        typer.Option(
            help="cpu: two cores with AVX2; cpu-bf16: with AVX512; h200, l4, ..: one GPU; default: the first."
        ),
    ] = None,
    data: Annotated[str, typer.Option(help="The data of which job: mnist or shakespeare.")] = "mnist",
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Examples a second of the job on your machine, as its log says.")
    ] = None,
    as_json: Json = False,
) -> None:
    """What so many minutes of training give, with the interval of one more training; refused where nothing was
    measured."""
    from factory.plan import CONFIDENCE, choice, offers

    made = offers(minutes, device, data, rate)
    if as_json:
        print_json([asdict(one) for one in made])
        return
    rows = [
        {
            **asdict(one),
            "speed": "calculated" if one.calculated else "yours" if rate else "measured",
            "value": f"{one.value:.3g}",
            "interval": f"{one.low:.3g} to {one.high:.3g}",
        }
        for one in made
    ]
    columns = ("network", "parameters", "examples", "speed", "metric", "value", "interval", "trainings")
    answer(rows, columns, False)
    say(f"{choice(made)} ({CONFIDENCE:.0%} intervals of one more training; docs/explanation/scale-law.md)")
