"""`serve --watch` and `textdiffusion watch`: what is kept is bounded; all is told with counts and thresholds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core import storage
from core.errors import UserError
from core.metrics import Metric
from core.storage import integrity
from factory.watch import Compared, Served, look, quantiles
from serving.watch import LATENCIES, OF_AN_ORDER
from tests.serving.conftest import served
from textdiffusion.cli import app as cli


def test_a_service_keeps_latencies_and_its_newest_samples(shelf: Path, tmp_path: Path) -> None:
    place = str(tmp_path / "kept")
    with served("tiny", "--registry", str(shelf / "registry"), "--watch", place, "--watch-keep", "6") as server:
        answers = [server.post("/generate", {"seed": seed, "class": "two", "format": "array"}) for seed in range(4)]
        server.post("/generate", {"count": OF_AN_ORDER + 2, "seed": 9, "steps": 3})
        server.post("/generate", {"class": "nine"}, 422)
    facts = Served.model_validate(integrity.read_json(f"{place}/served.json"))
    assert (facts.model, facts.served, facts.kept) == ("tiny", 4 + OF_AN_ORDER + 2, 6)
    assert facts.requests["/generate"] == {"200": 5, "422": 1}
    assert len(facts.seconds["/generate"]) == 5 <= LATENCIES
    assert facts.steps == {"4": 2, "3": 4}
    (last,) = facts.history
    assert (last.n, last.refused) == (6, 1)
    assert last.p50 == quantiles(facts.seconds["/generate"])["p50"]
    with np.load(Path(place, "samples/samples.npz")) as kept:
        assert kept["labels"].tolist() == [2, 2, 0, 1, 2, 0]
        assert (kept["images"][1] == np.array(answers[3]["samples"][0]["array"])).all()


def test_texts_are_kept_without_the_prompts_of_clients(shelf: Path, tmp_path: Path) -> None:
    place = str(tmp_path / "kept")
    with served("words", "--registry", str(shelf / "registry"), "--watch", place) as server:
        said = server.post("/generate", {"prompt": "my secret ", "seed": 1})["samples"][0]["text"]
        server.post("/generate", {"prompt": "a secret ___ gap", "seed": 1})
    (row,) = storage.read_json_lines(f"{place}/samples/samples.jsonl")
    assert "my secret " + row["text"] == said
    assert "secret" not in json.dumps(row)


def metric(value: float, se: float | None = 0.1) -> Metric:
    return Metric(value=value, se=se, floor=1.0, n=100)


@pytest.mark.parametrize(
    ("better", "value", "se", "drifted"),
    [
        ("lower", 2.0, 0.1, False),
        ("lower", 2.5, 0.1, True),
        ("lower", 1.0, 0.1, False),  # better is no drift
        ("higher", 1.5, 0.1, True),
        ("floor", 1.5, 0.1, True),
        ("floor", 2.5, 0.1, True),
        ("lower", 9.0, None, False),  # nothing says what is chance
    ],
)
def test_a_drift_is_worse_by_more_than_three_standard_errors(
    better: str, value: float, se: float | None, drifted: bool
) -> None:
    assert Compared("m", metric(value, se), metric(2.0), better).drifted is drifted


@pytest.fixture(scope="module")
def measured_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """runs/ with a run of the embedded digits: data, judge, and samples that are test images."""
    from core.images import data, judge
    from core.images.config import ImageData, ImageEvaluate
    from factory.run_folder import new_run

    runs = tmp_path_factory.mktemp("watched") / "runs"
    run = new_run(runs, "images-training", "digits", ["prepare-data", "train-judge", "sample"], {"config": {}})
    folders = {"dataset": "prepare-data", "judge": "train-judge", "samples": "sample"}
    for artifact, step in folders.items():
        path = f"steps/{step}"
        run.update(step, state="succeeded", artifacts={artifact: {"path": path, "uri": "", "type": "", "metadata": {}}})
    data.prepare_data(ImageData(source="digits"), run.folder / "steps/prepare-data")
    judge.train(ImageEvaluate(judge_epochs=2), run.folder / "steps/prepare-data", run.folder / "steps/train-judge")
    save_samples(run.folder / "steps/sample", runs, 0)
    run.save(status="succeeded")
    return runs


def save_samples(folder: Path, runs: Path, start: int, noise: int = 0) -> None:
    """Samples that are training images from `start` on, with `noise` in their pixels."""
    from core.images.dataset import ImageDataset

    data = ImageDataset.open(next(runs.glob("*/*/steps/prepare-data")))
    images, labels = data.images("train")[start : start + 150], data.labels("train")[start : start + 150]
    shaken = images.astype(int) + np.random.default_rng(0).integers(-noise, noise + 1, images.shape)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "samples.npz", images=shaken.clip(0, 255).astype(np.uint8), labels=labels)
    storage.write_json(folder / "sample.json", {"class_names": data.class_names})


def left_by_a_service(folder: Path, runs: Path, noise: int, **changes: Any) -> str:
    save_samples(folder / "samples", runs, 200, noise)
    facts = {
        "model": "digits", "version": "1", "weights_sha256": "ab", "modality": "images", "since": "s", "until": "u",
        "served": 150, "kept": 150, "samples_sha256": storage.sha256(folder / "samples/samples.npz"),
        "run": next(runs.glob("*/*/run.json")).parent.name, "steps": {"16": 150},
        "requests": {"/generate": {"200": 98, "429": 2}}, "seconds": {"/generate": [i / 100 for i in range(1, 101)]},
    }  # fmt: skip
    integrity.write_json(folder / "served.json", {**facts, **changes})
    return str(folder)


def test_samples_as_measured_have_not_drifted_and_noisy_ones_have(measured_run: Path, tmp_path: Path) -> None:
    quiet = look(left_by_a_service(tmp_path / "quiet", measured_run, 0), measured_run).facts()
    assert quiet["drifted"] == []
    assert quiet["latencies"] == [{"route": "/generate", "n": 100, "p50_ms": 500, "p95_ms": 950, "p99_ms": 990}]
    noisy = look(left_by_a_service(tmp_path / "noisy", measured_run, 200), measured_run).facts()
    assert "frechet_distance" in noisy["drifted"]
    for row in noisy["compared"]:
        assert row["n"] > 64
        assert row["floor"] is not None
        assert row["threshold"] is None or row["threshold"] > 0


def test_the_command_retrains_by_the_commands_of_every_day(
    measured_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = left_by_a_service(tmp_path / "noisy", measured_run, 200)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(measured_run, "runs", symlinks=True)

    def watch(*more: str) -> int:
        with pytest.raises(SystemExit) as ended:
            cli.main(["watch", folder, *more])
        return int(ended.value.code or 0)

    assert watch() == 3
    said = capfd.readouterr()
    assert "drifted: frechet_distance" in said.err
    assert "/generate: 2 with 429" in said.out
    assert watch("--out", "served.txt") == 2
    assert "name a file that ends with .html" in capfd.readouterr().err
    Path("runs/index.html").write_text("")
    assert watch("--json", "--out", "runs/served/digits.html") == 3
    assert "served/digits.html" in Path("runs/index.html").read_text()
    page = Path("runs/served/digits.html").read_text()
    assert all(f'id="{part}"' in page for part in ("samples", "drift", "latency", "requests"))
    assert page.count("data:image/png") > 100
    assert json.loads(capfd.readouterr().out)["count"] > 64
    assert watch("--retrain", "no-such-job --set train.seed=1") == 2
    said = capfd.readouterr()
    assert "textdiffusion run no-such-job --set train.seed=1" in said.err
    assert "error: " in said.err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run": None}, "served.json names no run, as of a model of no registry; name it: --run RUN"),
        ({"run": "gone"}, "run 'gone': there is none"),
    ],
)
def test_latencies_are_told_where_nothing_can_be_compared(
    changes: dict[str, Any], message: str, measured_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = left_by_a_service(tmp_path / "kept", measured_run, 0, **changes)
    monkeypatch.setenv("TEXTDIFFUSION_RUNS", str(measured_run))
    with pytest.raises(SystemExit) as ended:
        cli.main(["watch", folder])
    said = capfd.readouterr()
    assert (ended.value.code, "990" in said.out) == (2, True)
    assert message in said.err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples_sha256": "00"}, "samples.npz is not the one that served.json names; it is being written"),
        ({"seconds": {"/generate": [-1]}}, "seconds"),
        ({"history": [{"until": "u", "n": -1, "refused": 0}]}, "history"),
    ],
)
def test_what_is_damaged_is_one_line(changes: dict[str, Any], message: str, measured_run: Path, tmp_path: Path) -> None:
    folder = left_by_a_service(tmp_path / "kept", measured_run, 0, **changes)
    with pytest.raises(UserError, match=message):
        look(folder, measured_run, page=tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_texts_of_another_kind_have_drifted(tmp_path: Path) -> None:
    from core.text import watch
    from core.text.config import TextData
    from core.text.data import load, prepare
    from core.text.evaluation import NGramJudge, judge_description

    real = "the cat sat on the mat and the dog ran to the door. " * 200
    (tmp_path / "real.txt").write_text(real)
    prepare(TextData(source="file", data_dir=str(tmp_path / "real.txt")), tmp_path / "data")
    texts = load(tmp_path / "data")
    integrity.write_json(tmp_path / "judge/judge.json", judge_description(NGramJudge(texts.long("train"), 3)))
    for name, drawn in (("own", real[:900]), ("same", real[30:930]), ("other", "zq xj " * 150)):
        rows = [{"mode": "diffusion", "prompt": "", "text": drawn[i * 30 : i * 30 + 30]} for i in range(30)]
        storage.write_json_lines(tmp_path / name / "samples.jsonl", rows)

    def drifted(name: str) -> list[str]:
        first, second, n = watch.compare(tmp_path / name, tmp_path / "own", tmp_path / "data", tmp_path / "judge")
        assert n == 30
        better = {"judge_nll": "lower", "entropy": "floor"}
        return [key for key in first if Compared(key, first[key], second[key], better[key]).drifted]

    assert drifted("same") == []
    assert drifted("other") == ["judge_nll", "entropy"]


@pytest.mark.parametrize(("job", "message"), [("mnist 'small", "No closing quotation"), ("  ", "name a job")])
def test_a_job_that_no_shell_could_read_is_said_before_anything_is_compared(
    job: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["watch", str(tmp_path / "none"), "--retrain", job])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
