"""The judge: right about real images, the same from the same seed, and never silently another one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from core import storage
from core.errors import UserError
from core.images.config import ImageData, ImageEvaluate
from core.images.data import prepare_data
from core.images.dataset import ImageDataset
from core.images.judge import Judge, JudgeNetwork, move_randomly, train, wilson

SHORT = ImageEvaluate(judge_epochs=12)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judge") / "digits"
    prepare_data(ImageData(), folder)
    return folder


@pytest.fixture(scope="module")
def trained(digits: Path) -> Path:
    train(SHORT, digits, digits.with_name("judge"))
    return digits.with_name("judge")


def test_the_judge_reads_real_digits(digits: Path, trained: Path) -> None:
    judge, data = Judge.open(trained), ImageDataset.open(digits)
    accuracy = (judge.examine(data.images("test")).classes == data.labels("test")).mean()
    assert accuracy > 0.96
    assert judge.description["accuracy"] == pytest.approx(accuracy)
    assert judge.description["n"] == data.count("test")
    assert judge.description["content_sha256"] == data.content_sha256


def test_features_are_standardised_on_real_images(digits: Path, trained: Path) -> None:
    features = Judge.open(trained).examine(ImageDataset.open(digits).images("train")).features
    assert features.shape == (1295, 64)
    np.testing.assert_allclose(features.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(features.std(0), 1, atol=1e-4)


def test_a_verdict_does_not_depend_on_the_batch(digits: Path, trained: Path) -> None:
    judge, images = Judge.open(trained), ImageDataset.open(digits).images("test")[:50]
    one, other = judge.examine(images, 50), judge.examine(images, 7)
    np.testing.assert_allclose(one.features, other.features, atol=1e-4)
    np.testing.assert_array_equal(one.classes, other.classes)


def test_the_same_seed_gives_the_same_judge(digits: Path, tmp_path: Path) -> None:
    brief = ImageEvaluate(judge_epochs=0.5)
    first, second = (train(brief, digits, tmp_path / name)["sha256"] for name in "ab")
    other = train(ImageEvaluate(judge_epochs=0.5, judge_seed=1), digits, tmp_path / "c")["sha256"]
    assert first == second != other


def test_training_leaves_the_callers_random_numbers_alone(digits: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(ImageEvaluate(judge_epochs=0.2), digits, tmp_path / "j")
    assert torch.equal(torch.rand(3), expected)


def test_a_time_limit_stops_training(digits: Path, tmp_path: Path) -> None:
    description = train(ImageEvaluate(judge_epochs=1000, judge_minutes=1 / 60), digits, tmp_path / "j")
    assert description["epochs"] < 500
    assert description["seconds"] < 30


def test_changed_weights_are_refused(trained: Path, tmp_path: Path) -> None:
    storage.copy_tree(trained, tmp_path / "j")
    path = tmp_path / "j" / "judge.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="its SHA-256 is"):
        Judge.open(tmp_path / "j")


def test_a_missing_judge_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"judge\.json"):
        Judge.open(tmp_path)


@pytest.mark.parametrize("size", [(1, 8, 8), (3, 16, 16), (1, 28, 28), (3, 33, 47), (1, 128, 96)])
def test_the_network_takes_images_of_any_size(size: tuple[int, int, int]) -> None:
    features, logits = JudgeNetwork(*size, classes=4).eval()(torch.zeros(2, *size))
    assert (features.shape, logits.shape) == ((2, 64), (2, 4))


def test_random_moves_keep_flat_images_and_stay_within_their_bounds() -> None:
    generator = torch.Generator().manual_seed(0)
    assert torch.allclose(move_randomly(torch.full((4, 1, 9, 9), 0.3), generator), torch.tensor(0.3))
    dot = torch.zeros(200, 1, 41, 41)
    dot[:, :, 20, 20] = 1
    moved = move_randomly(dot, generator)[:, 0]
    grid = torch.arange(41.0)
    mass = moved.sum((1, 2))
    for centre in ((moved.sum(1) * grid).sum(1) / mass, (moved.sum(2) * grid).sum(1) / mass):
        assert (centre - 20).abs().max() < 0.07 * 41 * 1.15 + 1
        assert centre.std() > 1


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (9940, 10_000), (17, 20), (5, 5)])
def test_the_interval_is_wilsons(successes: int, n: int) -> None:
    expected = binomtest(successes, n).proportion_ci(method="wilson")
    assert wilson(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-6)
