"""The gallery as a file: self-contained, patient with broken runs, small with many."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from report.artifacts import read
from report.gallery import FRAMES, PICTURED, SHOWN, Entry, build, render
from tests.report.artifacts import image_run, text_run
from tests.report.test_report import HOSTILE, Page, scripts


def test_it_nests_and_loads_nothing_and_links_only_to_its_pages(pages: dict[str, Path]) -> None:
    source = pages["gallery"].read_text(encoding="utf-8")
    found = Page(source)
    assert found.faults == []
    assert found.open == []
    assert len(found.ids) == len(set(found.ids))
    outside = {str(one["href"]) for one in found.all("a") if not str(one["href"]).startswith("#")}
    reports = {link.partition("#")[0] for link in outside}
    assert reports == {
        "served/digits.html",
        "images/digits-1/report.html",
        "images/digits-2/report.html",
        "text/pydoc-1/report.html",
    }
    assert {one["src"][:11] for one in found.all("img")} == {"data:image/"}
    assert not re.search(r"(url\(|@import|fetch\(|XMLHttpRequest|WebSocket|https?://(?!www\.w3\.org/))", source)


def test_links_inside_the_page_lead_somewhere(pages: dict[str, Path]) -> None:
    found = Page(pages["gallery"].read_text(encoding="utf-8"))
    assert {str(one["href"])[1:] for one in found.all("a") if str(one["href"]).startswith("#")} <= set(found.ids)


def test_metrics_of_runs_stand_beside_their_floor(pages: dict[str, Path]) -> None:
    source = pages["gallery"].read_text(encoding="utf-8")
    facts = next(one for one in scripts(source) if isinstance(one, list) and one and "settings" in one[0])
    distances = {run["id"]: [row for row in run["metrics"] if row[0] == "frechet_distance"] for run in facts}
    assert distances["digits-2"][0][2:4] == ["1.90", "1.42"]
    assert distances["digits-3"] == []


def test_a_failed_run_says_why_on_its_card(pages: dict[str, Path]) -> None:
    source = pages["gallery"].read_text(encoding="utf-8")
    (why,) = re.findall(r'<p class="note why">(.*?)</p>', source)
    assert why == "Step train failed. the loss grew from 0.4 to 12"
    killed = {"id": "one", "job": "digits", "status": "failed", "interrupted": True, "steps": []}
    assert "Interrupted" in render([Entry(read(killed))])


def test_curves_of_the_runs_of_a_job_lie_over_one_another(pages: dict[str, Path]) -> None:
    source = pages["gallery"].read_text(encoding="utf-8")
    (section,) = re.findall(r'<section id="curves".*?</section>', source, re.S)
    assert re.findall(r'<span class="(run\d)">([^<]+)</span>', section) == [("run0", "digits-2"), ("run1", "digits-1")]
    assert "Loss of pydoc" not in section  # of one run alone there is nothing to compare


def test_a_player_of_fewer_frames_counts_the_samplers_steps(pages: dict[str, Path]) -> None:
    def counted(name: str) -> list[list[int]]:
        found = scripts(pages[name].read_text(encoding="utf-8"))
        return [one["steps"] for one in found if isinstance(one, dict) and "σ" in one.values()]

    steps, (report,) = counted("gallery"), counted("images")
    assert {found[-1] for found in steps} == {report[-1]} == {18}
    assert all(len(found) == FRAMES < len(report) for found in steps)


def test_no_run_yet_says_how_to_make_one(tmp_path: Path) -> None:
    build(tmp_path / "index.html", [])
    found = Page((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert "textdiffusion run mnist-small" in found.text
    assert found.faults == []


@pytest.mark.parametrize("value", [None, [], "text", 3, {"a": [1, {}]}, [[1], [2, 3]], float("nan")])
def test_odd_values_in_one_run_cost_only_that_run(value: object, tmp_path: Path) -> None:
    run = text_run(tmp_path / "odd")
    for path in (tmp_path / "odd").glob("*/*.json"):
        content = json.loads(path.read_text())
        path.write_text(json.dumps({key: content[key] if key == "modality" else value for key in content}))
    odd = {**run, "run": dict.fromkeys(run["run"], value)}
    good = image_run(tmp_path / "good")
    found = Page(render([Entry(read(**odd)), Entry(read(**good))]))
    assert found.faults == []
    assert good["run"]["id"] in found.text


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    run = image_run(tmp_path)
    run["run"] |= {"job": HOSTILE, "description": HOSTILE, "config": {HOSTILE: HOSTILE}}
    source = render([Entry(read(**run))] * 2)
    found = Page(source)
    assert HOSTILE in "".join(found.texts)
    assert [one for one in found.all("script") if one.get("type") != "application/json"] == [{}]
    assert scripts(source)


def test_many_large_runs_make_a_page_of_bounded_size(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 24, 32, 32, 3), dtype=np.uint8)  # cannot be compressed
    np.savez(tmp_path / "samples.npz", images=noise[0], labels=np.arange(24))
    np.savez(tmp_path / "trajectory.npz", images=noise, sigmas=np.linspace(80, 0, 20))
    facts = {"job": "many", "status": "succeeded"}
    entries = [Entry(read({"id": f"run-{i}", **facts}, samples=tmp_path)) for i in range(300)]
    source = render(entries)
    found = Page(source)
    assert len([one for one in found.all("li") if one.get("class") == "card"]) == SHOWN
    assert f"{300 - SHOWN} older runs are not shown" in found.text
    assert 0 < source.count('class="player"') < PICTURED
    assert len(source) < 12_000_000
