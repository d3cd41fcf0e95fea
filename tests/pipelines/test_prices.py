"""Prices are compared with a price list, figure by figure."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.machines import load_machines
from pipelines.prices import main


def written(folder: Path, changed: dict[str, float]) -> str:
    prices: dict[str, float] = {}
    for row in load_machines().values():
        assert row.usd_per_hour is not None
        prices[row.machine_type] = row.usd_per_hour.machine
        if row.accelerator_type:
            prices[row.accelerator_type] = row.usd_per_hour.accelerator
    lines = [f"{name},{value}" for name, value in (prices | changed).items() if value >= 0]
    (folder / "list.csv").write_text("\n".join(["name,usd_per_hour", *lines]))
    return str(folder / "list.csv")


def test_rows_as_in_the_list_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([written(tmp_path, {})]) == 0
    assert "t4: NVIDIA_TESLA_T4: 0.4025 USD (" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"NVIDIA_L4": 0.7}, "the list says 0.7"),
        ({"e2-standard-4": -1}, "cpu: e2-standard-4: 0.1541 USD (from memory, 2026-10-07); not in the list"),
    ],
)
def test_a_row_that_differs_or_is_not_listed_is_named(
    changed: dict[str, float], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([written(tmp_path, changed)]) == 1
    assert line in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "name,price\nx,1", "name,usd_per_hour\nx,nan", "name,usd_per_hour\nx,", None])
def test_what_is_no_list_is_one_line(text: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if text is not None:
        (tmp_path / "list.csv").write_text(text)
    assert main([str(tmp_path / "list.csv")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
