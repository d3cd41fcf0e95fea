"""Compares the prices of resources.yaml with a price list: `python -m pipelines.prices LIST.csv`.

The list is a CSV file with the columns `name` and `usd_per_hour`, a line for each machine type and accelerator, copied
from https://cloud.google.com/vertex-ai/pricing or from your contract:

    name,usd_per_hour
    n1-standard-4,0.21849885
    NVIDIA_TESLA_T4,0.4025

Prints a line for each row, and exits with 1 if one differs by more than a hundredth or is not in the list.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from core.errors import UserError
from core.printable import say
from pipelines.machines import Machine, load_machines

TOLERANCE = 0.01
COLUMNS = {"name", "usd_per_hour"}


def read_list(path: Path) -> dict[str, float]:
    """USD per hour by machine type or accelerator.

    Raises:
        UserError: the file cannot be read, lacks a column, or holds what is no price.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    if not rows or not set(rows[0]) >= COLUMNS:
        raise UserError(f"{path}: expected columns {', '.join(sorted(COLUMNS))} and a line for each price")
    prices = {}
    for number, row in enumerate(rows, start=2):
        try:
            price = float(row["usd_per_hour"])
        except (TypeError, ValueError):
            price = -1.0
        if not 0 <= price < 10_000:  # which is also no infinity and no NaN
            raise UserError(f"{path}: line {number}: usd_per_hour: found {row['usd_per_hour']!r}; allowed: USD an hour")
        prices[row["name"]] = price
    return prices


def compare(machines: Mapping[str, Machine], listed: Mapping[str, float]) -> list[tuple[str, bool]]:
    """(line, whether it agrees) for each figure of each row."""
    lines = []
    for name, row in machines.items():
        price = row.usd_per_hour
        if price is None:
            lines.append((f"{name}: states no price", False))
            continue
        figures = [(row.machine_type, price.machine)]
        figures += [(row.accelerator_type, price.accelerator)] if row.accelerator_type else []
        for part, stated in figures:
            of = f"{name}: {part}: {stated:g} USD ({price.source}, {price.date})"
            if part not in listed:
                lines.append((f"{of}; not in the list", False))
            elif abs(stated - listed[part]) > TOLERANCE * max(stated, listed[part]):
                lines.append((f"{of}; the list says {listed[part]:g}", False))
            else:
                lines.append((f"{of}; as in the list", True))
    return lines


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1:
        say("error: expected: python -m pipelines.prices LIST.csv", to=sys.stderr)
        return UserError.EXIT_CODE
    try:
        lines = compare(load_machines(), read_list(Path(arguments[0])))
    except UserError as error:
        say(f"error: {error}", to=sys.stderr)
        return error.EXIT_CODE
    for line, _ in lines:
        say(line)
    return int(not all(agrees for _, agrees in lines))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
