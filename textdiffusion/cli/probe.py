"""probe: what only the service can tell, by one run under a dollar."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from core.printable import say
from textdiffusion.cli.output import Json, answer, examples, print_json


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command("probe", epilog=examples("probe --dry-run", "probe --machine l4 --out probe.json"))(probe)


def probe(
    machine: Annotated[str, typer.Option(metavar="ROW", help="Row of resources.yaml with the GPU to look at.")] = "t4",
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where what was found is written.")] = Path("probe.json"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check, and say what it can cost at most.")] = False,
    interval: Annotated[float, typer.Option(min=0.05, max=600, metavar="SECONDS", help="Between two looks.")] = 10.0,
    as_json: Json = False,
) -> None:
    """Run one tiny pipeline on Vertex AI, for less than a dollar, that reports what no emulator can tell: user, mounts,
    what a mounted bucket takes, driver, GPU, restarts."""
    from core import storage
    from core.errors import UserError
    from pipelines.settings import load_settings
    from pipelines.vertex import probe as probing
    from pipelines.vertex.client import Project, Vertex

    settings = load_settings()
    vertex = Vertex(Project.of(settings))
    if dry_run:
        _, estimate = probing.prepare(vertex, settings, machine)
        if as_json:
            print_json({"usd": round(estimate.usd, 2)})
        else:
            say(f"at most {estimate.usd:.2f} USD")
        return
    if out.exists():
        raise UserError(f"--out {out}: is there already; name another file")
    observed = probing.probe(vertex, settings, machine, lambda line: say(line, to=sys.stderr), interval)
    storage.write_bytes(out, (json.dumps(observed, indent=2) + "\n").encode())
    if as_json:
        print_json(observed)
    else:
        answer(probing.rows_of(observed), ("fact", "found"), as_json)
    say(f"written: {out}", to=sys.stderr)
