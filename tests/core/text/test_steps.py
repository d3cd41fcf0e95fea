"""The steps of a text job on a tiny text: folders in, folders out, each mistake one line."""

import json
from dataclasses import replace
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest

from core import storage
from core.config import GateConfig, validate
from core.errors import UserError
from core.evaluation import Evaluation, Sampling
from core.metrics import dump, find
from core.requests import SampleRequest
from core.storage.snapshot import write_model
from core.text import data
from core.text.config import TextEvaluate, TextModel, TextSample, TokenizerConfig
from core.text.data import TextSet
from core.text.denoiser import Diffusion
from core.text.evaluation import evaluation_key, load_judge, sample_metrics
from core.text.glossary import AUTOREGRESSIVE_BITS, GLOSSARY
from core.text.metrics import NGramJudge
from core.text.model import begin_from, build, load_model
from core.text.objective import gamma_losses
from core.text.sampling import write
from core.text.tokenizer import train_tokenizer
from factory.gate import Challenge, compare
from factory.registry import Registry
from factory.shards import read_manifest
from factory.shards import sample_shards as draw_many
from tests.core.asked import Steps

steps = Steps("text")

MODEL = {
    "context": 16,
    "transformer": {"width": 32, "depth": 1, "heads": 2},
    "process": {"embedding": 16, "blocks": [4, 8], "lanes": [1, 2]},
}
TRAIN = {"examples": 64, "batch_size": 16, "optimizer": "muon", "warmup_examples": 16, "log_every": 1}
SAMPLE = {
    "count": 3,
    "steps": 3,
    "gap": 3,
    "modes": ["diffusion", "autoregressive", "guided"],
    "prompts": ["Anna said", "Anna ___ that the moon"],
}
EVALUATE = {
    "judge_order": 3,
    "temperatures": [0.8, 1.0],
    "frontier_count": 2,
    "spans": [4, 8],
    "span_count": 3,
    "bound_windows": 4,
    "weights": [0.0, 0.5, 1.0],
}


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A whole pipeline: judge, autoregressive, diffusion begun from it, samples, evaluation."""
    place = tmp_path_factory.mktemp("run")
    steps.train_judge(EVALUATE, folder, place / "judge")
    work = str(place / "work")
    first = steps.train(MODEL, TRAIN, folder, place / "ar", objective="autoregressive", work=work)
    facts = steps.train(MODEL, TRAIN, folder, place / "model", work=work, warm_start=place / "ar")
    steps.sample(SAMPLE, place / "model", place / "samples", autoregressive=place / "ar")
    found = steps.evaluate(
        EVALUATE,
        folder,
        place / "judge",
        place / "model",
        place / "samples",
        place / "evaluation",
        autoregressive=place / "ar",
    )
    return {"place": place, "dataset": folder, "ar": first, "diffusion": facts, "metrics": found, "work": work}


def lines(path: Path) -> list[dict[str, Any]]:
    return storage.read_json_lines(path)


def test_sharded_texts_are_those_that_one_step_draws(run: dict[str, Any], tmp_path: Path) -> None:
    settings = {"steps": 3, "seed": 5, "batch_size": 2, "modes": ["diffusion"]}
    steps.sample({**settings, "count": 7}, run["place"] / "model", tmp_path / "together")
    for size in (4, 3):
        out = str(tmp_path / f"out-{size}")
        for worker in (1, 0):
            draw_many("text", settings, run["place"] / "model", out, count=7, size=size, worker=worker, workers=2)
        drawn = [row for shard in read_manifest(out)["shards"] for row in lines(Path(out) / "shards" / shard["file"])]
        assert drawn == lines(tmp_path / "together" / "samples.jsonl")


def test_every_mode_has_its_samples_and_they_keep_what_was_given(run: dict[str, Any]) -> None:
    rows = lines(run["place"] / "samples" / "samples.jsonl")
    assert {row["mode"] for row in rows} == {"diffusion", "autoregressive", "guided", "infill"}
    assert sum(row["mode"] == "diffusion" and not row["prompt"] for row in rows) == 3
    for row in rows:
        before, _, after = row["prompt"].partition("___")
        assert row["text"].startswith(before)
        assert row["text"].endswith(after)


def test_texts_of_which_nobody_knows_how_they_were_drawn_are_not_measured(run: dict[str, Any], tmp_path: Path) -> None:
    place = run["place"]
    storage.copy_tree(place / "samples", tmp_path / "samples")
    (tmp_path / "samples" / "sample.json").unlink()
    inputs = (run["dataset"], place / "judge", place / "model", tmp_path / "samples")
    with pytest.raises(UserError, match=r"sample\.json: settings: "):
        steps.evaluate(EVALUATE, *inputs, tmp_path / "evaluation", autoregressive=place / "ar")
    assert not (tmp_path / "evaluation").exists()


def test_the_path_from_noise_to_text_ends_in_the_text(run: dict[str, Any]) -> None:
    frames = lines(run["place"] / "samples" / "trajectory.jsonl")
    assert frames[0]["gamma"] > frames[1]["gamma"]
    assert all(len(text) <= 16 for frame in frames for text in frame["tokens"])
    texts = [row["text"] for row in lines(run["place"] / "samples" / "samples.jsonl") if row["mode"] == "diffusion"]
    assert "".join(frames[-1]["tokens"][0]) == texts[0]


@pytest.mark.parametrize("prompt", ["", "Anna said", "Anna ___ that the moon"])
def test_a_text_is_written_alone_and_watched_while_it_resolves(
    prompt: str, run: dict[str, Any], tmp_path: Path
) -> None:
    seen: list[tuple[float, list[str]]] = []
    section = {"count": 5, "steps": 3, "gap": 3, "seed": 7}
    request = SampleRequest(modality="text", sample=section, model=run["place"] / "model", out=tmp_path / "none")
    rows = write(request, prompt, lambda gamma, texts: seen.append((gamma, texts)))
    assert not (tmp_path / "none").exists()
    before, _, after = prompt.partition("___")
    assert len(rows) == 5
    assert all(row["text"].startswith(before) and row["text"].endswith(after) for row in rows)
    assert len(seen) % 3 == 0  # at every evaluation of every block
    assert seen[0][0] > seen[1][0] > seen[2][0]
    assert all(len(texts) == 5 for _, texts in seen)
    if not after:
        assert seen[-1][1] == [row["text"] for row in rows]


def test_the_tokens_of_held_out_middles_are_kept_with_their_surprise(run: dict[str, Any]) -> None:
    curve = json.loads((run["place"] / "evaluation" / "evaluation.json").read_text())["fusion"][0]
    assert len(curve["examples"]) == 3  # as many as were measured
    for name in ("nats_alpha", "nats_w"):
        sums = [sum(sum(one[name][place]) for one in curve["examples"]) for place in range(3)]
        assert [total / curve["characters"] for total in sums] == pytest.approx(curve[name], abs=2e-3)


def test_every_metric_has_its_floor_count_and_judge(run: dict[str, Any]) -> None:
    metrics = json.loads((run["place"] / "evaluation" / "metrics.json").read_text())
    for name in ("word_validity", "word_validity_4", "js_4", "judge_nll", "entropy", "longest_copy", "distinct_2"):
        for suffix in ("", "_autoregressive", "_guided"):
            assert {"value", "floor", "n", "judge"} <= metrics[name + suffix].keys()
            assert metrics[name + suffix]["floor"] is not None
    assert metrics["judge_nll"]["judge"] is not None
    assert metrics["word_validity"]["better"] == "higher"
    for name in (
        "bound_bits_per_character",
        "bits_per_character_1",
        "bits_per_character_0.5",
        "autoregressive_bits_per_character",
        "inside_bits_per_character",
        "bits_over_autoregressive",
        "bits_over_autoregressive_4",
    ):
        assert metrics[name]["n"] == 4 * 16  # tokens
        assert metrics[name]["se"] > 0


def test_bits_fall_with_evaluations_and_are_compared_on_the_same_windows(run: dict[str, Any]) -> None:
    metrics = json.loads((run["place"] / "evaluation" / "metrics.json").read_text())
    curve = json.loads((run["place"] / "evaluation" / "evaluation.json").read_text())["likelihood"]
    chains = [(point["block"], point["lanes"], point["steps"]) for point in curve["chains"]]
    assert chains == [(8, 2, 4), (4, 1, 4), (4, 1, 8), (4, 1, 16)]  # with half an evaluation a token in lanes
    assert (curve["block"], curve["windows"]) == (4, 4)
    for point in curve["chains"]:
        name, own = f"{point['evaluations']:g}", metrics[AUTOREGRESSIVE_BITS.name]
        entry, more = metrics[f"bits_per_character_{name}"], metrics[f"bits_over_autoregressive_{name}"]
        assert (entry["value"], entry["se"]) == (point["bits"], point["se"])
        assert entry["floor"] == own["value"] == curve["autoregressive"]
        assert more["value"] == pytest.approx(point["bits"] - own["value"], abs=2e-5)
        paired = [mine - its for mine, its in zip(entry["parts"], own["parts"], strict=True)]  # window by window
        assert more["se"] == pytest.approx(stdev(paired) / len(paired) ** 0.5, abs=2e-5)


def test_infilling_is_measured_on_the_same_spans_with_its_error_for_every_way_of_it(run: dict[str, Any]) -> None:
    metrics = json.loads((run["place"] / "evaluation" / "metrics.json").read_text())
    for span in (4, 8):
        ways = [metrics[f"{name}_{span}"] for name in ("infill_alpha", "infill_w", "infill_reranked")]
        assert len({(way["n"], way["autoregressive"]) for way in ways}) == 1
        for way in ways:
            assert len(way["parts"]) == 3
            assert way["se"] > 0
            assert sum(way["parts"]) / 3 == pytest.approx(way["value"], abs=2e-5)


def test_every_metric_that_is_written_has_a_label_and_an_explanation(run: dict[str, Any]) -> None:
    for name, metric in Evaluation.read(run["place"] / "evaluation").metrics.items():
        known = find(GLOSSARY, name)
        assert known is not None, name
        assert known[0].label
        assert known[0].explanation
        assert metric.better == (None if known[0].better == "floor" else known[0].better)


def test_the_samplings_facts_have_the_names_that_both_modalities_share(run: dict[str, Any]) -> None:
    facts = json.loads((run["place"] / "samples" / "sample.json").read_text())
    assert facts.keys() == Sampling.model_fields.keys()
    assert Evaluation.read(run["place"] / "evaluation").evaluations == facts["nfe"] == 12


def test_only_texts_that_were_drawn_alike_are_measured_by_equal_evaluations(texts: TextSet) -> None:
    judge, settings = NGramJudge(texts.texts["train"], 3), TextEvaluate()

    def key(settings: TextEvaluate = settings, **sampling: Any) -> str:
        return evaluation_key(settings, TextSample(**sampling), texts, judge)

    assert key(temperature=0.8) == key(temperature=0.8)
    others = [key(temperature=0.8), key(temperature=0.5), key(temperature=0.8, steps=7), key(temperature=0.8, seed=1),
              key(TextEvaluate(seed=1), temperature=0.8)]  # fmt: skip
    assert len(set(others)) == len(others)


def test_judging_reads_no_split_as_a_whole(run: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(own: object, split: str) -> str:
        raise AssertionError(f"{split} is read as a whole")

    texts = data.load(run["dataset"])
    monkeypatch.setattr(type(texts.texts), "__getitem__", refused)
    judge = load_judge(run["place"] / "judge", texts)
    rows = storage.read_json_lines(run["place"] / "samples" / "samples.jsonl")
    assert sample_metrics(rows, texts, judge)["longest_copy"].floor is not None
    other = train_tokenizer(texts.long("train"), TokenizerConfig(kind="characters"))
    assert len(texts.retokenized(other, ["test"]).tokens["test"]) == len(texts.long("test"))


def test_a_champion_that_drew_at_another_temperature_is_measured_again(run: dict[str, Any], tmp_path: Path) -> None:
    place = run["place"]
    measured = Evaluation.read(place / "evaluation")
    registry, parts = Registry(tmp_path / "registry"), {"model": place / "model", "autoregressive": place / "ar"}
    made = registry.register(
        "tiny", parts, metrics=dump(measured.metrics), evaluation_key=measured.evaluation_key,
        weights_sha256="another", lineage={},
    )  # fmt: skip
    gate = GateConfig(metric="judge_nll")
    challenge = Challenge(
        "text", place / "model", place / "evaluation", run["dataset"], place / "judge", SAMPLE, EVALUATE
    )
    assert compare(gate, challenge, made, tmp_path / "a").champion.measured_again is False
    colder = {**SAMPLE, "temperature": 0.5}
    steps.sample(colder, place / "model", tmp_path / "samples", autoregressive=place / "ar")
    inputs = (run["dataset"], place / "judge", place / "model", tmp_path / "samples")
    steps.evaluate(EVALUATE, *inputs, tmp_path / "evaluation", autoregressive=place / "ar")
    challenge = replace(challenge, evaluation=tmp_path / "evaluation", sample=colder)
    registry.promote("tiny", made.version, "first")
    verdict = compare(gate, challenge, registry.champion("tiny"), tmp_path / "b")
    assert verdict.champion.measured_again is True


def test_the_curves_begin_and_end_at_the_single_models(run: dict[str, Any]) -> None:
    facts = json.loads((run["place"] / "evaluation" / "evaluation.json").read_text())
    assert [curve["span"] for curve in facts["fusion"]] == [4, 8]
    for curve in facts["fusion"]:
        assert curve["nats_alpha"][0] == pytest.approx(curve["nats_w"][0], abs=1e-6)  # the autoregressive model
        assert curve["autoregressive"] == pytest.approx(curve["nats_w"][0], abs=1e-4)
        assert len(curve["alpha"]) == len(curve["nats_alpha"]) == len(curve["w"]) == len(curve["nats_w"])
    assert {row["mode"] for row in facts["frontier"]} == {"diffusion", "autoregressive"}
    assert all({"gamma", "loss", "no_context"} <= row.keys() for row in facts["gamma_bins"])


def test_time_of_the_warm_start_is_counted(run: dict[str, Any]) -> None:
    both = run["ar"]["train_seconds"] + run["diffusion"]["train_seconds"]
    assert run["diffusion"]["total_seconds"] == pytest.approx(both, abs=0.2)


def test_the_log_shows_context_being_learned(run: dict[str, Any]) -> None:
    rows = [row for row in lines(run["place"] / "model" / "train_log.jsonl") if "validation" in row]
    assert any(key.startswith("loss/") for key in rows[-1]["validation"])
    assert any(key.startswith("no_context/") for key in rows[-1]["validation"])


def test_training_twice_gives_the_same_weights_to_the_bit(run: dict[str, Any], tmp_path: Path) -> None:
    again = steps.train(
        MODEL, TRAIN, run["dataset"], tmp_path / "m", work=str(tmp_path), warm_start=run["place"] / "ar"
    )
    assert again["weights_sha256"] == run["diffusion"]["weights_sha256"]


def test_a_model_without_the_evidence_of_next_tokens_may_begin_one_with_it(run: dict[str, Any]) -> None:
    folder = run["place"] / "model"
    before = load_model(folder)
    process = {**MODEL["process"], "next_evidence": True}
    network = build("diffusion", before.tokenizer.size, validate(TextModel, {**MODEL, "process": process}, "model"))
    begin_from(network, folder, before.tokenizer)
    assert isinstance(network, Diffusion)
    assert isinstance(before.network, Diffusion)
    windows = data.held_out(data.load(run["dataset"]).tokens["test"], 16, 2)
    assert gamma_losses(network.eval(), windows, 8) == gamma_losses(before.network, windows, 8)


@pytest.mark.parametrize("objective", ["masked", "original"])
def test_controls_go_through_the_same_steps(objective: str, run: dict[str, Any], tmp_path: Path) -> None:
    steps.train(MODEL, TRAIN, run["dataset"], tmp_path / "m", objective=objective, work=str(tmp_path / "w"))
    steps.sample({"count": 2, "steps": 3, "modes": ["diffusion"]}, tmp_path / "m", tmp_path / "s")
    found = steps.evaluate(
        EVALUATE, run["dataset"], run["place"] / "judge", tmp_path / "m", tmp_path / "s", tmp_path / "e"
    )
    assert 0 <= found["word_validity"] <= 1
    assert ("bound_bits_per_character" in found) == (objective == "masked")


def test_mistakes_are_one_line(run: dict[str, Any], tmp_path: Path) -> None:
    place, dataset = run["place"], run["dataset"]
    with pytest.raises(UserError, match="objective: found 'gan'; text allows"):
        steps.train(MODEL, TRAIN, dataset, tmp_path / "m", objective="gan")
    with pytest.raises(UserError, match="too short for one context of 2048"):
        steps.train({"context": 2048}, TRAIN, dataset, tmp_path / "m")
    with pytest.raises(UserError, match="does not divide the context"):
        steps.train({"context": 30}, TRAIN, dataset, tmp_path / "m")
    with pytest.raises(UserError, match=r"train\.guide_at: only sampling of images"):
        steps.train(MODEL, {**TRAIN, "guide_at": 0.1}, dataset, tmp_path / "m")
    with pytest.raises(UserError, match="the configured network has"):
        wide = {**MODEL, "transformer": {"width": 64, "depth": 1, "heads": 2}}
        steps.train(wide, TRAIN, dataset, tmp_path / "m", warm_start=place / "ar")
    with pytest.raises(UserError, match=r"at most 7 tokens"):
        steps.sample({**SAMPLE, "gap": 8}, place / "model", tmp_path / "s")
    with pytest.raises(UserError, match="more than one ___"):
        steps.sample({**SAMPLE, "prompts": ["a ___ b ___"]}, place / "model", tmp_path / "s")
    (tmp_path / "damaged").mkdir()
    for name in ("model.json", "tokenizer.json"):
        (tmp_path / "damaged" / name).write_bytes((place / "model" / name).read_bytes())
    (tmp_path / "damaged" / "weights.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(UserError, match="does not match weights_sha256"):
        steps.sample(SAMPLE, tmp_path / "damaged", tmp_path / "s")
    assert not (tmp_path / "m").exists()
    assert not (tmp_path / "s").exists()


def test_a_model_with_another_tokenizer_is_refused_and_a_registered_one_and_a_checkpoint_too(run, tmp_path):
    checkpoint = next(Path(run["work"]).iterdir())
    write_model(str(checkpoint), tmp_path / "snapshot")
    version = Registry(tmp_path / "registry").register(
        "words",
        {"model": run["place"] / "model"},
        metrics={},
        evaluation_key="",
        weights_sha256=run["diffusion"]["weights_sha256"],
        lineage={},
    )
    for folder in (tmp_path / "snapshot", Path(version.folder())):
        load_model(folder)
        path = folder / "tokenizer.json"
        saved = json.loads(path.read_text())
        vocabulary = saved["tokenizer"]["model"]["vocab"]
        vocabulary["a"], vocabulary["e"] = vocabulary["e"], vocabulary["a"]  # loads, and writes nonsense
        path.write_text(json.dumps(saved))
        with pytest.raises(UserError, match=r"tokenizer\.json: content does not match tokenizer_sha256"):
            load_model(folder)
    with pytest.raises(UserError, match=r"model/tokenizer\.json is damaged"):
        version.verify()


def test_checkpoints_of_a_training_are_models_with_their_tokenizer(run, tmp_path):
    found = {}
    for folder in Path(run["work"]).iterdir():
        facts = write_model(str(folder), tmp_path / folder.name)
        found[load_model(tmp_path / folder.name).description["objective"]] = facts["weights_sha256"]
    assert found == {name: run[key]["weights_sha256"] for name, key in (("autoregressive", "ar"), ("diffusion",) * 2)}


def test_text_with_every_separator_is_trained_written_and_measured(tmp_path: Path) -> None:
    """JSON lines end with a line feed alone; texts may hold all that Unicode and Python call the end of a line."""
    separators = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e"
    line = "".join(f"{number % 7}{separators[number % 8]}{separators[number % 5]}" for number in range(40))
    text = f"{line}\n" * 40
    (tmp_path / "in.txt").write_text(text, newline="\n")
    source = {"source": "file", "data_dir": str(tmp_path / "in.txt")}
    for kind in ("bpe", "characters"):
        steps.prepare_data({**source, "tokenizer": {"kind": kind, "vocabulary": 270}}, tmp_path / kind)
        loaded = data.load(tmp_path / kind)
        assert "".join(loaded.texts.values()) == text
        assert loaded.tokenizer.decode(loaded.tokens["test"].tolist()) == loaded.texts["test"]
    dataset, model = tmp_path / "characters", tmp_path / "model"
    steps.train_judge(EVALUATE, dataset, tmp_path / "judge")
    steps.train(MODEL, {**TRAIN, "examples": 16}, dataset, model, work=str(tmp_path / "work"))
    steps.sample({"count": 3, "steps": 2, "modes": ["diffusion"]}, model, tmp_path / "samples")
    drawn = "".join(row["text"] for row in lines(tmp_path / "samples" / "samples.jsonl"))
    assert set(drawn) & set(separators)
    found = steps.evaluate(
        {**EVALUATE, "temperatures": []},
        dataset,
        tmp_path / "judge",
        model,
        tmp_path / "samples",
        tmp_path / "evaluation",
    )
    assert found
