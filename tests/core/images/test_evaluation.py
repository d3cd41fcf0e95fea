"""Evaluation: real images score like real images, and each way to be wrong shows in the metric made for it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from core.errors import UserError
from core.images.config import ImageData, ImageEvaluate
from core.images.contents import repeats
from core.images.data import prepare_data
from core.images.dataset import ImageDataset
from core.images.evaluation import evaluate, expected_classes
from core.images.glossary import GLOSSARY
from core.images.judge import Judge, train
from core.images.neighbours import closest_of_each_class, nearest_images
from core.images.samples import by_name, in_proportion

RANDOM = np.random.default_rng(3)
CONFIG = ImageEvaluate(count=1000, judge_epochs=15, neighbours=8)
Arrays = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of digits with a large test split, its judge and an empty model."""
    root = tmp_path_factory.mktemp("evaluation")
    prepare_data(ImageData(test_fraction=0.45, validation_fraction=0.25), root / "dataset")
    train(CONFIG, root / "dataset", root / "judge")
    (root / "model").mkdir()
    return root


@pytest.fixture
def measure(world: Path, tmp_path: Path) -> Callable[..., dict]:
    def run(images: np.ndarray, labels: np.ndarray, section: ImageEvaluate = CONFIG, **sample_json: object) -> dict:
        folder = tmp_path / "samples"
        folder.mkdir(exist_ok=True)
        np.savez(folder / "samples.npz", images=images, labels=labels)
        (folder / "sample.json").write_text(json.dumps(sample_json))
        evaluate(section, world / "dataset", world / "judge", world / "model", folder, tmp_path / "evaluation")
        return {
            "metrics": json.loads((tmp_path / "evaluation/metrics.json").read_text()),
            "facts": json.loads((tmp_path / "evaluation/evaluation.json").read_text()),
            "arrays": dict(np.load(tmp_path / "evaluation/neighbours.npz")),
        }

    return run


def real(world: Path, split: str = "validation") -> Arrays:
    data = ImageDataset.open(world / "dataset")
    return np.array(data.images(split)), data.labels(split)  # type: ignore[arg-type]


def noisy(world: Path) -> Arrays:
    images, labels = real(world)
    return np.clip(images + RANDOM.normal(0, 60, images.shape), 0, 255).astype(np.uint8), labels


def value(found: dict, name: str) -> float:
    return found["metrics"][name]["value"]


def floor(found: dict, name: str) -> float:
    return found["metrics"][name]["floor"]


def test_held_out_real_images_score_like_the_floor(world: Path, measure: Callable[..., dict]) -> None:
    found = measure(*real(world))
    assert value(found, "frechet_distance") < 2.5 * floor(found, "frechet_distance")
    assert abs(value(found, "kernel_distance")) < 0.1
    assert value(found, "precision") > floor(found, "precision") - 0.1
    assert value(found, "recall") > floor(found, "recall") - 0.1
    assert value(found, "class_accuracy") > 0.95
    assert value(found, "memorised") < 0.02
    assert value(found, "nearest_neighbour") == pytest.approx(floor(found, "nearest_neighbour"), rel=0.15)


def test_every_metric_states_floor_count_and_judge(world: Path, measure: Callable[..., dict]) -> None:
    found = measure(*real(world))
    judge = json.loads((world / "judge/judge.json").read_text())["sha256"]
    for name, entry in found["metrics"].items():
        assert {"value", "floor", "n", "judge"} <= set(entry), name
        assert entry["judge"] == (None if name in ("nearest_neighbour", "memorised") else judge)
        assert entry["n"] > 1
        assert name in GLOSSARY


def test_noise_shows_in_distances_and_precision(world: Path, measure: Callable[..., dict]) -> None:
    clean, bad = measure(*real(world)), measure(*noisy(world))
    for name in ("frechet_distance", "kernel_distance"):
        assert value(bad, name) > 5 * max(value(clean, name), floor(clean, name))
    assert value(bad, "precision") < value(clean, "precision") - 0.2


def test_copies_of_training_images_show_as_memorised_alone(world: Path, measure: Callable[..., dict]) -> None:
    images, labels = real(world, "train")
    found = measure(images, labels)
    assert value(found, "memorised") > 0.95
    assert value(found, "nearest_neighbour") == 0
    assert value(found, "frechet_distance") < 0.1 * floor(found, "frechet_distance"), "nearer than test images are"
    assert value(found, "frechet_distance_test") == pytest.approx(floor(found, "frechet_distance_test"), rel=0.2)
    assert (found["arrays"]["samples"] == found["arrays"]["neighbours"]).all()
    assert (found["arrays"]["labels"] == found["arrays"]["neighbour_labels"]).all()


def test_a_training_set_stored_twice_hides_no_copy(world: Path) -> None:
    data = ImageDataset.open(world / "dataset")
    once = np.array(data.images("train")[:200])
    twice = np.concatenate([once, once])
    found = nearest_images(once[:50], twice, repeats(twice))
    assert found.copies().all()
    assert (found.second > 0).all()
    assert (found.second == nearest_images(once[:50], once, repeats(once)).second).all()
    alone = nearest_images(once[:2], np.stack([once[0]] * 3), np.array([False, True, True]))
    assert (alone.second == np.inf).all()


def rarely_right(images: np.ndarray, labels: np.ndarray) -> Arrays:
    """Nine fives for each other image, as in a data set where nine of ten are of one class."""
    fives, others = np.flatnonzero(labels == 5), np.flatnonzero(labels != 5)[:8]
    chosen = np.concatenate([np.resize(fives, 72), others])
    return images[chosen], labels[chosen]


def test_floors_are_of_the_samples_classes(world: Path, measure: Callable[..., dict]) -> None:
    data, judge = ImageDataset.open(world / "dataset"), Judge.open(world / "judge")
    answers, labels = judge.examine(data.images("test")), data.labels("test")
    right, sure = answers.classes == labels, answers.probabilities.max(1)
    drawn = rarely_right(*real(world))
    shares = np.bincount(drawn[1], minlength=10) / len(drawn[1])
    found = measure(*drawn)
    for name, per_image in (("class_accuracy", right), ("confidence", sure)):
        by_class = np.array([per_image[labels == label].mean() for label in range(10)])
        assert floor(found, name) == pytest.approx(by_class @ shares), name
    assert floor(found, "class_chi2") < 3, "test images in nine fives of ten, against nine fives of ten"
    sevens = real(world)[1] == 7
    only = measure(*(side[sevens] for side in real(world)))
    assert floor(only, "class_accuracy") == pytest.approx(right[labels == 7].mean())
    assert only["facts"]["class_histogram"]["real"][7] == sum(only["facts"]["class_histogram"]["real"])
    assert only["facts"]["mean_confidence"]["real"] == floor(only, "confidence")


def test_samples_without_a_class_are_expected_to_be_as_training_images_are() -> None:
    training = np.array([3, 1, 0])
    assert expected_classes(np.array([2, 2, 0]), training).tolist() == [1, 0, 2]
    assert expected_classes(np.array([-1] * 8), training).tolist() == [6, 2, 0]
    assert expected_classes(np.array([2, 2, -1, -1, -1, -1]), training).tolist() == [3, 1, 2]


def test_wrong_classes_show_in_accuracy_and_the_confusion_matrix(world: Path, measure: Callable[..., dict]) -> None:
    images, labels = real(world)
    found = measure(images, (labels + 1) % 10)
    assert value(found, "class_accuracy") < 0.05
    confusion = np.array(found["facts"]["confusion"])
    assert confusion.sum() == len(labels)
    assert confusion[np.arange(10), np.arange(10) - 1].sum() > 0.9 * len(labels)


def test_a_forgotten_class_shows_in_recall_and_class_balance(world: Path, measure: Callable[..., dict]) -> None:
    images, labels = real(world, "train")
    kept = np.flatnonzero(labels != 4)
    shown = np.concatenate([kept, kept[labels[kept] == 9]])
    pretended = labels[shown].copy()
    pretended[len(kept) :] = 4
    whole, found = measure(images, labels), measure(images[shown], pretended)
    assert value(found, "class_chi2") > 10 * value(whole, "class_chi2") + 1
    assert value(found, "recall") < value(whole, "recall") - 0.05
    assert found["facts"]["class_histogram"]["samples"][4] <= 3


def test_samples_of_one_class_are_compared_with_that_class(world: Path, measure: Callable[..., dict]) -> None:
    images, labels = real(world)
    sevens = labels == 7
    found = measure(images[sevens], labels[sevens])
    assert value(found, "frechet_distance") < 3 * floor(found, "frechet_distance")
    assert "too few for the judge's 64 features" in found["metrics"]["frechet_distance"]["doubt"]


def test_unconditional_samples_have_no_class_accuracy(world: Path, measure: Callable[..., dict]) -> None:
    images, labels = real(world)
    found = measure(images, np.full_like(labels, -1))
    assert "class_accuracy" not in found["metrics"]
    assert found["facts"]["confusion"] is None
    assert value(found, "frechet_distance") < 2.5 * floor(found, "frechet_distance")


def test_many_samples_are_measured_in_groups_of_the_floors_count(world: Path, measure: Callable[..., dict]) -> None:
    images, labels = (np.concatenate([a, b]) for a, b in zip(real(world), real(world, "train"), strict=True))
    entry = measure(images, labels)["metrics"]["frechet_distance"]
    assert entry["n"] <= ImageDataset.open(world / "dataset").count("test") < len(images)
    few = measure(images[:300], labels[:300])["metrics"]["frechet_distance"]
    assert few["n"] == 300
    assert few["floor"] > entry["floor"], "the bias of few samples is in the floor too"


def test_only_evaluations_on_equal_terms_have_equal_keys(world: Path, measure: Callable[..., dict]) -> None:
    clean, bad = real(world), noisy(world)
    sampled = {"settings": {"steps": 16}, "weights_sha256": "a", "seconds": 1}
    key = measure(*clean, **sampled)["facts"]["evaluation_key"]
    assert measure(*bad, **{**sampled, "weights_sha256": "b", "seconds": 2})["facts"]["evaluation_key"] == key
    assert measure(*clean, **{**sampled, "settings": {"steps": 17}})["facts"]["evaluation_key"] != key
    other = CONFIG.model_copy(update={"nearest": 5})
    assert measure(*clean, other, **sampled)["facts"]["evaluation_key"] != key


def test_validation_loss_by_noise_level_is_the_last_of_the_log(world: Path, measure: Callable[..., dict]) -> None:
    log = world / "model" / "train_log.jsonl"
    rows = [{"examples": 1, "validation": {"loss": 2.0}}, {"examples": 2, "validation": {"loss": 1.0, "loss/0.5": 3}}]
    log.write_text("\n".join(json.dumps(row) for row in [*rows, {"examples": 3, "loss": 9}]))
    try:
        assert measure(*real(world))["facts"]["validation_loss"] == {"loss": 1.0, "loss/0.5": 3.0}
    finally:
        log.unlink()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda i, y: (i[:, :7], y), "expected at least two uint8 images of the data set's shape"),
        (lambda i, y: (i.astype(float), y), "expected at least two uint8"),
        (lambda i, y: (i, y[:-1]), "expected at least two uint8"),
        (lambda i, y: (i, y + 1), "labels from 1 to 10; allowed are -1 to 9"),
        (lambda i, y: (np.array([None] * len(y)), y), "not a whole npz"),
    ],
)
def test_samples_that_do_not_fit_are_refused(
    world: Path, measure: Callable[..., dict], tmp_path: Path, change: Callable[..., Arrays], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        measure(*change(*real(world)))
    assert not (tmp_path / "evaluation").exists()


def test_a_judge_of_other_data_is_refused(world: Path, measure: Callable[..., dict], tmp_path: Path) -> None:
    prepare_data(ImageData(split_seed=9), tmp_path / "other")
    measure(*real(world))
    with pytest.raises(UserError, match="run train-judge"):
        evaluate(
            CONFIG, tmp_path / "other", world / "judge", world / "model", tmp_path / "samples", tmp_path / "refused"
        )


# --- the parts


def test_nearest_images_are_scipys_over_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.images.neighbours.TRAIN_BLOCK", 64)
    images, training = (RANDOM.integers(0, 256, (n, 5, 4, 3), dtype=np.uint8) for n in (40, 300))
    distances = cdist(images.reshape(40, -1), training.reshape(300, -1)) / 255 / np.sqrt(60)
    found = nearest_images(images, training, repeats(training))
    np.testing.assert_allclose(found.distances, distances.min(1), rtol=1e-9)
    np.testing.assert_array_equal(found.indices, distances.argmin(1))
    np.testing.assert_allclose(found.second, np.sort(distances, 1)[:, 1], rtol=1e-9)
    assert nearest_images(training[:3], training, repeats(training)).distances.tolist() == [0, 0, 0]


def test_the_shown_neighbours_are_the_closest_of_each_class() -> None:
    distances, labels = np.array([5.0, 1, 2, 3, 4, 0]), np.array([0, 0, 0, 1, 1, 2])
    assert closest_of_each_class(distances, labels, 5).tolist() == [5, 1, 3, 2, 4]


def test_every_part_of_a_proportional_choice_has_the_proportions() -> None:
    labels = np.sort(RANDOM.integers(0, 3, 600))
    order = in_proportion(labels, np.array([1, 2, 0]), 600, shuffled=True)
    assert set(labels[order]) == {0, 1}
    assert len(set(order)) == len(order) > 250
    for start in range(0, len(order) - 60, 60):
        assert abs((labels[order[start : start + 60]] == 1).sum() - 40) <= 1


def test_classes_are_matched_by_name() -> None:
    labels = np.array([0, 1, 2, -1, 1])
    own, wanted = ["bee", "cat", "dog"], ["ant", "bee", "cat", "dog"]  # one sorts before the others
    assert by_name(labels, own, wanted, "samples").tolist() == [1, 2, 3, -1, 2]
    assert by_name(labels, own, own, "samples") is by_name(labels, None, wanted, "samples") is labels
    with pytest.raises(UserError, match="samples of class dog, which the data set does not have"):
        by_name(labels, own, ["bee", "cat"], "samples")
