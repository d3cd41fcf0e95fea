"""How commands answer: a table for a person, JSON for a program, examples in --help, names for the shell."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import typer

from core.printable import printable, printable_json, say

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def add_group(app: typer.Typer, name: str, about: str, commands: Mapping[Callable[..., None], Sequence[str]]) -> None:
    """Adds the group `name` to `app`; each command has its function's name, and its examples in --help."""
    group = typer.Typer(help=about, no_args_is_help=True)
    for command, lines in commands.items():
        group.command(command.__name__.removesuffix("_all"), epilog=examples(*lines))(command)
    app.add_typer(group, name=name)


@contextmanager
def warnings_in_a_line() -> Iterator[None]:
    """Warnings of the log go to stderr while a command runs: a line each, and each once."""
    lines = _Lines(logging.WARNING)
    logging.getLogger().addHandler(lines)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(lines)


class _Lines(logging.Handler):
    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self._said:
            self._said.add(text)
            say(f"warning: {text}", to=sys.stderr)


def answer(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], as_json: bool, empty: str = "") -> None:
    """Prints `rows`: as JSON with everything in them, or as a table of `columns`."""
    if as_json:
        print_json(rows)
        return
    if not rows:
        say(empty or "nothing there")
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        numeric = all(isinstance(row.get(column), int | float) for row in rows)
        # A run's id is copied into the next command, so it keeps its line where there is room.
        least = max(len(cell(row.get(column))) for row in rows) if column == "run" and console.width >= 120 else None
        justify: Literal["left", "right"] = "right" if numeric else "left"
        table.add_column(column.replace("_", " "), justify=justify, overflow="fold", min_width=least)
    for row in rows:
        table.add_row(*(cell(row.get(column)) for column in columns))
    console.print(table)


def print_json(value: Any) -> None:
    """Prints `value` as indented JSON."""
    say(printable_json(json.dumps(value, indent=2, ensure_ascii=False, default=str)), lines=True)


def cell(value: Any) -> str:
    """A value as a cell of a table: numbers with four digits, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return printable(str(value), one_line=True)


FIRST = 4  # metrics that a run is told by, as its report's heading has them


def print_metrics(metrics: Mapping[str, Any], *, everything: bool) -> None:
    """The content of metrics.json as a table: the first few in the order of the report; or all, each with its meaning
    the first time that it comes."""
    from report.metrics import meaning, ordered

    names = [name for name in ordered(metrics) if everything or metrics[name].get("value") is not None]
    told: set[str] = set()
    rows = []
    for name in names if everything else names[:FIRST]:
        entry = metrics[name]
        text = meaning(name)
        rows.append(
            {
                "metric": name,
                **{key: entry.get(key) for key in ("value", "floor", "n")},
                "judge": str(entry.get("judge") or "")[:8] or None,
                "meaning": None if text in told else text,
            }
        )
        told.add(text)
    columns = ("metric", "value", "floor", "n", "judge")
    answer(rows, (*columns, "meaning") if everything else columns, False)
    if len(names) > len(rows):
        say(f"{len(names) - len(rows)} more metrics: textdiffusion show --all")


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(dotted setting, old value, new value) of what differs."""
    one, two = _flat(old), _flat(new)
    return [(key, one.get(key), two.get(key)) for key in sorted({*one, *two}) if one.get(key) != two.get(key)]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flat(item, f"{prefix}.{key}" if prefix else str(key))
    return flat


def examples(*lines: str) -> str:
    """The end of a command's --help: how it is called. A backspace keeps click from wrapping the lines."""
    return "\b\nExamples:\n" + "\n".join(f"  textdiffusion {line}" for line in lines)


def complete_jobs(incomplete: str) -> list[str]:
    """Predefined jobs, and the YAML files here, that begin with `incomplete`."""
    from pathlib import Path

    from pipelines.jobs import job_names

    names = [*job_names(), *sorted(str(path) for path in Path().glob("*.yaml"))]
    return [name for name in names if name.startswith(incomplete)]


def complete_runs(incomplete: str) -> list[str]:
    """Runs on this machine, newest first."""
    from pathlib import Path

    from pipelines.settings import load_settings

    names = [path.parent.name for path in Path(load_settings().runs).glob("*/*/run.json")]
    return [name for name in ["latest", *sorted(set(names), reverse=True)] if name.startswith(incomplete)]


def complete_models(incomplete: str) -> list[str]:
    """Models in a local registry."""
    from pathlib import Path

    from pipelines.settings import load_settings

    registry = load_settings().registry
    names = [] if "://" in registry else [path.parent.name for path in Path(registry).glob("*/versions")]
    return [name for name in sorted(names) if name.startswith(incomplete)]
