"""The report is one safe, self-contained file, whatever the run left behind."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core import storage
from report import build
from report.charts import Axis, Series, line_chart
from report.pictures import unenlarged
from tests.report.artifacts import image_run, text_run

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'{{7*7}}"
VOID = {"meta", "link", "img", "input", "br", "hr", "path", "rect"}


class Page(HTMLParser):
    """Elements with their attributes and text; complains about tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.faults: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    @property
    def ids(self) -> list[str]:
        return [str(attributes["id"]) for _, attributes in self.elements if "id" in attributes]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("images")
    run = image_run(folder)
    return build(folder / "report.html", **run), run


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("text")
    run = text_run(folder)
    return build(folder / "report.html", **run), run


def page(found: tuple[Path, dict]) -> Page:
    return Page(found[0].read_text(encoding="utf-8"))


@pytest.mark.parametrize("which", ["images", "text"])
class TestEveryReport:
    def test_tags_nest_and_ids_are_unique(self, which: str, request: pytest.FixtureRequest) -> None:
        found = page(request.getfixturevalue(which))
        assert found.faults == []
        assert found.open == []
        assert len(found.ids) == len(set(found.ids))

    def test_links_inside_the_page_lead_somewhere(self, which: str, request: pytest.FixtureRequest) -> None:
        found = page(request.getfixturevalue(which))
        targets = {str(one["href"]) for one in found.all("a")}
        assert targets
        assert {target.removeprefix("#") for target in targets} <= set(found.ids)

    def test_nothing_is_loaded_from_outside(self, which: str, request: pytest.FixtureRequest) -> None:
        source = request.getfixturevalue(which)[0].read_text(encoding="utf-8")
        found = Page(source)
        for tag, attributes in found.elements:
            for name in ("src", "href", "srcset", "action", "data"):
                value = attributes.get(name)
                assert value is None or value.startswith(("data:", "#")), (tag, name, value[:80])
        assert not re.search(r"(url\(|@import|fetch\(|XMLHttpRequest|WebSocket)", source)
        assert not re.search(r"https?://(?!www\.w3\.org/)", source)

    def test_the_security_policy_admits_only_its_own_script(self, which: str, request: pytest.FixtureRequest) -> None:
        source = request.getfixturevalue(which)[0].read_text(encoding="utf-8")
        policy = next(str(m["content"]) for m in Page(source).all("meta") if m.get("http-equiv"))
        scripts = re.findall(r"<script>(.*?)</script>", source, re.S)
        assert len(scripts) == 1
        digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
        assert f"script-src 'sha256-{digest}'" in policy
        assert "default-src 'none'" in policy

    def test_nobody_is_left_out(self, which: str, request: pytest.FixtureRequest) -> None:
        found = page(request.getfixturevalue(which))
        assert found.elements[0][0] == "html"
        assert found.all("html")[0]["lang"] == "en"
        assert len(found.all("h1")) == 1
        assert len(found.all("main")) == 1
        assert all("alt" in one for one in found.all("img"))
        assert all(one.get("aria-label") or one.get("id") == "find" for one in found.all("input"))
        assert all("aria-labelledby" in one or "aria-label" in one for one in found.all("section"))

    def test_it_is_small(self, which: str, request: pytest.FixtureRequest) -> None:
        assert request.getfixturevalue(which)[0].stat().st_size < 3_000_000

    def test_it_is_built_in_two_seconds(self, which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
        _, run = request.getfixturevalue(which)
        start = time.process_time()
        build(tmp_path / "again.html", **run)
        assert time.process_time() - start < 2

    def test_the_same_run_gives_the_same_bytes(
        self, which: str, request: pytest.FixtureRequest, tmp_path: Path
    ) -> None:
        first, run = request.getfixturevalue(which)
        assert build(tmp_path / "again.html", **run).read_bytes() == first.read_bytes()


def test_metrics_stand_beside_floor_count_and_judge(images: tuple[Path, dict]) -> None:
    text = page(images).text
    metrics = json.loads((images[1]["evaluation"] / "metrics.json").read_text())
    assert "Fréchet distance" in text
    assert "1.63×" in text  # 2.31 / 1.42
    assert "97.2 %" in text or "97.3 %" in text
    assert metrics["kernel_distance"]["judge"][:10] in text


def test_samples_of_a_class_stand_in_its_row(images: tuple[Path, dict]) -> None:
    found, run = page(images), images[1]
    arrays = np.load(run["samples"] / "samples.npz")
    tiles = [decode(str(one["src"])) for one in found.all("img") if str(one["src"]).startswith("data:image")]
    shown = {tile.tobytes() for tile in tiles if tile.shape == (16, 16)}
    for label in range(10):
        first = arrays["images"][arrays["labels"] == label][0]
        assert first.tobytes() in shown  # pixel for pixel: no scaling, no loss


def test_the_denoising_path_keeps_every_frame_and_its_noise_level(images: tuple[Path, dict]) -> None:
    source = images[0].read_text(encoding="utf-8")
    facts = next(one for one in scripts(source) if isinstance(one, dict) and "frames" in one)
    arrays = np.load(images[1]["samples"] / "trajectory.npz")
    assert len(facts["frames"]) == len(facts["labels"]) == len(arrays["sigmas"])
    assert facts["labels"][0] == "40"
    last = decode(facts["frames"][-1])
    assert np.array_equal(last[:16, :16], arrays["images"][-1, 0])


def test_text_path_ends_in_the_final_text(text: tuple[Path, dict]) -> None:
    facts = next(one for one in scripts(text[0].read_text(encoding="utf-8")) if isinstance(one, dict))
    rows = storage.read_json_lines(text[1]["samples"] / "trajectory.jsonl")
    assert "".join(facts["texts"][-1][0]) == "".join(rows[-1]["tokens"][0])
    assert len(facts["texts"]) == len(rows)


def test_bits_are_drawn_against_evaluations_beside_the_autoregressive_model(text: tuple[Path, dict]) -> None:
    words, source = page(text).text, text[0].read_text(encoding="utf-8")
    for part in ("Likelihood", "evaluations a token", "autoregressive 2.31", "bound of many evaluations 2.24"):
        assert part in words
    assert "64 windows, 18,000 characters of unseen text" in words
    assert "2.26 ± 0.021 bits per character, 0.050 ± 0.018 below autoregressive" in source.replace("\\u00b1", "±")
    assert "Bits per character, 4 evaluations a token" in words
    assert "± 0.02" in words


def test_text_report_has_every_mode_and_both_fusions(text: tuple[Path, dict]) -> None:
    words = page(text).text
    for part in ("Diffusion", "Autoregressive", "Guided", "Infill", "Frontier", "Fusion, 8", "Mixing α", "Bayes w"):
        assert part in words
    assert "drafts reranked 1.62" in words
    assert "Best at α = 0.4" in words  # the minimum of 0.62 a² - 0.5 a over the grid


def test_the_fusion_slider_steps_through_every_measured_weight(text: tuple[Path, dict]) -> None:
    facts = [one for one in scripts(text[0].read_text(encoding="utf-8")) if isinstance(one, dict) and "methods" in one]
    measured = json.loads((text[1]["evaluation"] / "evaluation.json").read_text())["fusion"]
    assert len(facts) == len(measured) == 2
    for explorer, span in zip(facts, measured, strict=True):
        (alpha, mixing), (w, bayes) = explorer["methods"]
        assert (alpha, w) == ("nats_alpha", "nats_w")
        assert [len(mixing), len(bayes)] == [len(span["alpha"]), len(span["w"])]
        assert "as the autoregressive model alone" in mixing[0]
        shades = explorer["shades"][0]["nats_alpha"]
        assert shades[0] == pytest.approx([math.exp(-nats) for nats in span["examples"][0]["nats_alpha"][0]], abs=1e-3)


@pytest.mark.parametrize("missing", ["dataset", "judge", "model", "samples", "evaluation", "run"])
def test_a_missing_piece_is_a_quiet_note(missing: str, images: tuple[Path, dict], tmp_path: Path) -> None:
    found = Page(build(tmp_path / "report.html", **{**images[1], missing: None}).read_text(encoding="utf-8"))
    assert found.faults == []
    assert "could not be drawn" not in found.text
    assert len(found.all("h1")) == 1


def test_nothing_at_all_still_makes_a_page(tmp_path: Path) -> None:
    found = Page(build(tmp_path / "report.html").read_text(encoding="utf-8"))
    assert found.faults == []
    assert "This run made no samples." in found.text


def test_the_heading_says_how_many_samples_were_drawn_again(tmp_path: Path) -> None:
    (tmp_path / "sample.json").write_text('{"sampler": "dpmpp", "steps": 8, "count": 100, "redrawn": 3}')
    found = Page(build(tmp_path / "report.html", samples=tmp_path).read_text(encoding="utf-8"))
    assert "100 samples of which 3 were drawn again" in found.text


@pytest.mark.parametrize("which", [image_run, text_run])
def test_broken_files_cost_only_their_own_section(which, tmp_path: Path) -> None:
    run = which(tmp_path)
    for path in [one for one in tmp_path.rglob("*") if one.is_file()]:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])  # as a killed writer leaves them
    found = Page(build(tmp_path / "report.html", **run).read_text(encoding="utf-8"))
    assert found.faults == []
    assert "could not be read" in found.text


@pytest.mark.parametrize("value", [None, [], "text", 3, {"a": [1, {}]}, [[1], [2, 3]], float("nan")])
def test_values_of_the_wrong_kind_cost_only_their_own_section(value: object, tmp_path: Path) -> None:
    run = text_run(tmp_path)
    image_run(tmp_path / "images")
    for folder in (tmp_path, tmp_path / "images"):
        for path in folder.glob("*/*.json"):
            content = json.loads(path.read_text())
            path.write_text(json.dumps({key: content[key] if key == "modality" else value for key in content}))
    for folder in (tmp_path, tmp_path / "images"):
        arguments = {name: folder / path.name for name, path in run.items() if isinstance(path, Path)}
        odd = dict.fromkeys(run["run"], value)
        page = Page(build(folder / "report.html", **arguments, run=odd).read_text(encoding="utf-8"))
        assert page.faults == []
        assert len(page.all("h1")) == 1


@pytest.mark.parametrize("which", [image_run, text_run])
def test_hostile_strings_stay_text(which, tmp_path: Path) -> None:
    run = which(tmp_path)

    def poison(value: object) -> object:
        if isinstance(value, dict):
            return {**{key: poison(one) for key, one in value.items()}, HOSTILE: HOSTILE}
        if isinstance(value, list):
            return [poison(one) for one in value]
        return HOSTILE if isinstance(value, str) and value not in ("images", "text") else value

    for path in [*tmp_path.rglob("*.json"), *tmp_path.rglob("*.jsonl")]:
        lines = [json.dumps(poison(json.loads(line))) for line in path.read_text().split("\n") if line]
        path.write_text("\n".join(lines))
    run["run"] = poison(run["run"])
    source = build(tmp_path / "report.html", **run).read_text(encoding="utf-8")
    found = Page(source)
    assert found.faults == []
    assert HOSTILE in "".join(found.texts)  # shown, as text
    assert not [attributes for _, attributes in found.elements if any(name.startswith("on") for name in attributes)]
    assert [one for one in found.all("script") if one.get("type") != "application/json"] == [{}]
    assert [one for one in scripts(source)]  # every data block is still JSON


def test_large_colour_images_stay_within_the_limit(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (400, 64, 64, 3), dtype=np.uint8)  # noise cannot be compressed
    (tmp_path / "previews").mkdir()
    for index in range(30):
        Image.fromarray(np.concatenate(noise[:6], axis=1)).save(tmp_path / f"previews/{index}.png")
    np.savez(tmp_path / "samples.npz", images=noise, labels=np.arange(400) % 20)
    np.savez(tmp_path / "trajectory.npz", images=np.stack([noise[:64]] * 60), sigmas=np.linspace(80, 0, 60))
    np.savez(tmp_path / "neighbours.npz", samples=noise[:64], neighbours=noise[:64], distances=random.random(64))
    out = build(tmp_path / "report.html", samples=tmp_path, model=tmp_path, evaluation=tmp_path)
    assert out.stat().st_size < 6_000_000
    assert "could not be drawn" not in out.read_text(encoding="utf-8")


def test_a_failed_run_says_which_step_and_why(tmp_path: Path) -> None:
    run = {
        "job": "digits",
        "status": "failed",
        "steps": [
            {"name": "prepare-data", "state": "succeeded", "seconds": 1.0},
            {"name": "train", "state": "failed", "seconds": 2.0, "error": "out of memory"},
        ],
    }
    words = Page(build(tmp_path / "report.html", run=run).read_text(encoding="utf-8")).text
    assert "Failed" in words
    assert "Step train failed. out of memory" in words


def test_an_interrupted_write_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = build(tmp_path / "report.html")
    before = out.read_bytes()
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        build(out, run={"job": "other"})
    assert out.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize("factor", [1, 2, 7])
@pytest.mark.parametrize("shape", [(9, 13), (6, 4, 3)])
def test_enlarged_pictures_come_back_pixel_for_pixel(factor: int, shape: tuple[int, ...]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(unenlarged(picture.repeat(factor, 0).repeat(factor, 1)), picture)


def test_torch_is_not_imported() -> None:
    code = "import sys, report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def scripts(source: str) -> list[object]:
    """The page's JSON blocks."""
    return [json.loads(one) for one in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', source, re.S)]


def decode(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


@pytest.mark.parametrize(
    ("points", "left", "below"),
    [
        ([(0.0, 1.0), (1.0, 1.0)], False, False),  # far from the rule: at the right, above it
        ([(0.0, 1.0), (1.0, 2.05)], True, False),  # a curve that ends there
        ([(0.0, 2.05), (1.0, 2.05)], False, True),  # one that runs along it
    ],
)
def test_the_label_of_a_rule_is_where_no_curve_runs_through_it(
    points: list[tuple[float, float]], left: bool, below: bool
) -> None:
    chart = line_chart("t", [Series("s", points)], Axis("x"), Axis("y", include=(0.0, 3.0)), rules=[(2.0, "a rule")])
    assert chart is not None
    (rule,) = chart.rules
    assert (rule.left, rule.below) == (left, below)


def test_a_curve_of_a_single_point_is_a_dot() -> None:
    for points, dots in (([(20.0, 0.5)], 1), ([(20.0, 0.5), (40.0, 0.4)], 0)):
        chart = line_chart("Learning rate", [Series("learning rate", points)], Axis("examples"), Axis("rate"))
        assert chart is not None
        assert chart.curves[0].dots.count("M") == dots


def test_labels_of_two_rules_near_each_other_do_not_collide() -> None:
    chart = line_chart(
        "t", [Series("s", [(0.0, 0.0), (1.0, 0.0)])], Axis("x"), Axis("y"), rules=[(2.0, "one rule"), (2.02, "another")]
    )
    assert chart is not None
    first, second = chart.rules
    assert (first.left, first.below) != (second.left, second.below)
