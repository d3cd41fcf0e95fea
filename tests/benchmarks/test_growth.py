"""Growth: the fitted slope, and that the largest batch is seen in the peak of a fresh process."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import growth


def test_the_slope_of_a_power_law_is_its_exponent() -> None:
    x = [3, 10, 50, 200]
    assert growth.slope(x, [2 * value**1.7 for value in x]) == pytest.approx(1.7)
    assert growth.slope(x, [5, 5, 5, 5]) == pytest.approx(0)
    assert growth.slope(x, [0, 1, 2, 3]) is None


@pytest.mark.slow
@pytest.mark.timeout(900)  # two trainings, each in a process that imports torch
def test_a_table_with_slopes_and_a_picture_come_of_fresh_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    panel = growth.Panel("batch", "training step", (8, 1024), lambda x: growth.images(width=8, side=8, batch=x))
    monkeypatch.setattr(growth, "PANELS", (panel,))
    monkeypatch.setattr("sys.argv", ["growth", "--repeats", "1", "--out", str(tmp_path)])
    growth.main()
    rows = [re.split(r"\s*\|\s*", line)[1:-1] for line in capsys.readouterr().out.splitlines() if line[:1] == "|"]
    header, _, small, large, slope = rows
    cell = {name: place for place, name in enumerate(header)}
    assert [small[cell["value"]], large[cell["value"]]] == ["8", "1,024"]
    assert float(slope[cell["GFLOP"]]) == pytest.approx(1, abs=0.01)
    megabytes = [float(row[cell["MB"]].replace(",", "")) for row in (small, large)]
    assert megabytes[1] > megabytes[0] + 30  # 1,016 more examples keep 50 kB each for the gradient, and more
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")


def test_drawing_more_samples_takes_longer() -> None:
    assert growth.sample_seconds(256, 8) > growth.sample_seconds(4, 2)
