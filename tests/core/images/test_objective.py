"""The objective, guidance and a trained model's life: against textbook formulas and exact expectations."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from core import noise
from core.errors import UserError
from core.images import pictures
from core.images.config import ImageModel, Process
from core.images.guidance import guided
from core.images.model import ImageShape, NoiseProcess, load_model, save_model
from core.images.networks import UNetConfig
from core.images.objective import ImageObjective
from core.randomness import Draws

NETWORK = UNetConfig(channels=(8, 16), blocks=(1, 1), embedding=16, head_channels=8)
SHAPE = ImageShape(channels=1, height=8, width=8, class_names=("a", "b", "c"))


def objective(images: torch.Tensor | None = None, count: int = 600, **options) -> ImageObjective:
    generator = torch.Generator().manual_seed(0)
    if images is None:
        images = torch.randint(0, 256, (count, 8, 8), generator=generator, dtype=torch.uint8)
    labels = torch.arange(len(images)) % 3
    config = ImageModel(**{"network": NETWORK, **options})
    split = images.numpy(), labels.numpy()
    return ImageObjective(config, SHAPE, split, (split[0][:64], split[1][:64]))


def draws(start: int = 0, stop: int = 600, total: int = 600, seen: int = 0) -> Draws:
    return Draws(0, seen, start, stop, total, torch.device("cpu"))


class Recorder:
    """Stands in for a network: answers zero and keeps what it was asked."""

    def __call__(self, x, level, labels):
        self.x, self.level, self.labels = x, level, labels
        return torch.zeros_like(x)


def test_a_network_that_knows_nothing_has_loss_one_on_data_of_sigma_data():
    uniform = ((torch.arange(256) / 127.5 - 1) ** 2).mean().sqrt().item()
    goal = objective(process=Process(sigma_data=uniform))
    loss = goal.loss(goal.model, goal.batch(torch.arange(600), draws())).mean()
    assert loss.item() == pytest.approx(1.0, abs=0.03)  # EDM's targets have unit variance; 600 x 64 pixels


def test_epsilon_loss_is_the_simple_loss_of_ddpm():
    process = Process(parameterisation="epsilon", density="uniform")
    goal, network = objective(process=process, label_dropout=0.0), Recorder()
    losses = goal.loss(network, goal.batch(torch.arange(600), draws()))
    same = draws()
    table = noise.linear_beta_sigmas()
    t = (same.stratified() * 1000).long()
    epsilon = same.normal(1, 8, 8)
    abar = (1 / (1 + table[t] ** 2)).float()[:, None, None, None]
    clean = torch.from_numpy(goal._train[0])[:, None] / 127.5 - 1
    torch.testing.assert_close(network.x, abar.sqrt() * clean + (1 - abar).sqrt() * epsilon, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(network.level, t / 999, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(losses, epsilon.square().mean((1, 2, 3)), rtol=2e-2, atol=2e-2)


def test_a_margin_puts_black_and_white_where_a_doubting_mean_still_decodes_to_them():
    levels = pictures.to_float(torch.arange(256, dtype=torch.uint8).view(1, 16, 16))
    plain, margin = (NoiseProcess(Process(margin=value)).encoded(levels) for value in (0.0, 0.05))
    assert torch.equal(plain, levels)
    assert np.array_equal(pictures.to_uint8(margin).ravel(), np.arange(256))
    assert (margin != levels).sum() == 2  # greys stay

    def decoded(encoded):  # the posterior mean of a pixel that is black with 99 %
        return int(pictures.to_uint8((0.99 * encoded.min() + 0.01 * encoded.max()).view(1, 1, 1, 1))[0, 0, 0])

    assert (decoded(plain), decoded(margin)) == (3, 0)


def test_the_loss_sees_images_with_their_margin():
    images = torch.tensor([0, 128, 255], dtype=torch.uint8).repeat_interleave(200)[:, None, None].expand(-1, 8, 8)
    goal, network = objective(images.contiguous(), process=Process(sigma_data=0.6, margin=0.1)), Recorder()
    goal.loss(network, goal.batch(torch.arange(600), draws()))
    same = draws()
    sigma, unit = goal.process.density.quantile(same.stratified()), same.normal(1, 8, 8)
    clean = torch.tensor([-1.1, 128 / 127.5 - 1, 1.1]).repeat_interleave(200)[:, None, None, None]
    x = (clean + sigma[:, None, None, None] * unit) * goal.process.coefficients(sigma).in_[:, None, None, None]
    torch.testing.assert_close(network.x, x)


def test_losses_do_not_depend_on_how_a_batch_is_cut():
    goal, indices = objective(), torch.arange(600)
    whole = goal.loss(goal.model, goal.batch(indices, draws()))
    parts = [goal.loss(goal.model, goal.batch(indices[a:b], draws(a, b))) for a, b in [(0, 100), (100, 600)]]
    torch.testing.assert_close(torch.cat(parts), whole)


def test_labels_are_dropped_example_by_example_at_their_rate():
    goal, network = objective(label_dropout=0.25), Recorder()
    dropped = []
    for step in range(10):
        goal.loss(network, goal.batch(torch.arange(600), draws(seen=600 * step)))
        dropped.append(network.labels == goal.no_class)
        kept = ~dropped[-1]
        assert torch.equal(network.labels[kept], (torch.arange(600) % 3)[kept])
    rate = torch.stack(dropped).float().mean().item()
    assert rate == pytest.approx(0.25, abs=0.03)  # 6,000 draws: standard deviation 0.0056


def test_an_unconditional_model_never_sees_a_label():
    goal, network = objective(conditional=False), Recorder()
    goal.loss(network, goal.batch(torch.arange(600), draws()))
    assert (network.labels == goal.no_class).all()


def test_validation_is_the_same_every_time_and_covers_eight_noise_levels():
    goal = objective()
    first, second = goal.validate(goal.model), goal.validate(goal.model)
    assert first == second
    bins = [value for name, value in first.items() if name.startswith("loss/sigma=")]
    assert len(bins) == 8
    assert first["loss"] == pytest.approx(np.mean(bins))


def test_preview_is_a_png_with_a_column_for_each_class():
    goal = objective()
    suffix, content = goal.preview(goal.model)
    picture = Image.open(io.BytesIO(content))
    assert suffix == ".png"
    assert picture.width * (4 * 9 + 1) == picture.height * (3 * 9 + 1)  # four rows, three columns of 8 + 1 pixels


class ByLabel(nn.Module):
    """A network whose output is its label plus `more`; knows how large the batches were that it was asked for."""

    def __init__(self, more: int = 0) -> None:
        super().__init__()
        self.more = more
        self.batches: list[int] = []

    def forward(self, x, level, labels):
        self.batches.append(len(x))
        return torch.ones_like(x) * (labels[:, None, None, None] + self.more)


def test_guidance_extrapolates_from_no_class_inside_its_interval_only():
    process = NoiseProcess(Process(parameterisation="v"))
    labels, no_class = torch.tensor([0, 1]), 3
    x = torch.randn(2, 1, 8, 8)

    def estimate(label: list[int], sigma: float):
        return process.denoise(ByLabel(), x, torch.tensor(sigma), torch.tensor(label))

    denoiser = guided(ByLabel(), process, labels, no_class, scale=2.5, interval=(0.5, 5.0))
    for sigma in (0.1, 0.5, 10.0):
        torch.testing.assert_close(denoiser(x, torch.tensor(sigma)), estimate([0, 1], sigma))
    for sigma in (0.6, 5.0):
        plain, none = estimate([0, 1], sigma), estimate([3, 3], sigma)
        torch.testing.assert_close(denoiser(x, torch.tensor(sigma)), none + 2.5 * (plain - none))


def test_autoguidance_leads_away_from_the_guide_above_the_interval_too():
    process, labels, worse = NoiseProcess(Process(parameterisation="v")), torch.tensor([0, 1]), ByLabel(3)
    x = torch.randn(2, 1, 8, 8)
    denoiser = guided(ByLabel(), process, labels, 3, scale=2.5, interval=(0.5, 5.0), guide=worse, autoguidance=1.75)
    for sigma in (0.1, 0.5, 3.0, 10.0):
        level = torch.tensor(sigma)
        good, bad = (process.denoise(network, x, level, labels) for network in (ByLabel(), worse))
        none = process.denoise(ByLabel(), x, level, torch.tensor([3, 3]))
        wanted = good + (sigma > 0.5) * 0.75 * (good - bad) + (0.5 < sigma <= 5) * 1.5 * (good - none)
        torch.testing.assert_close(denoiser(x, level), wanted)
    assert worse.batches == [2] * 6  # four of them above, as oracles


def test_guidance_of_one_costs_one_evaluation():
    network, guide = ByLabel(), ByLabel()
    denoiser = guided(network, NoiseProcess(Process()), torch.tensor([0, 1]), 3, guide=guide)
    denoiser(torch.zeros(2, 1, 8, 8), torch.tensor(1.0))
    assert (network.batches, guide.batches) == ([2], [])


def test_a_saved_model_comes_back_whole(tmp_path):
    goal = objective()
    with torch.no_grad():
        for parameter in goal.model.parameters():
            parameter.normal_()
    early = {name: value + 1 for name, value in goal.model.state_dict().items()}
    save_model(tmp_path, goal.model, goal.config, SHAPE, {"examples_seen": 7}, early)
    again = load_model(tmp_path)
    assert again.config == goal.config
    assert again.shape == SHAPE
    assert again.description["examples_seen"] == 7
    for name, value in goal.model.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], value), name
        assert torch.equal(again.guide.state_dict()[name], value + 1), name


@pytest.mark.parametrize("name", ["weights", "guide"])
def test_a_damaged_model_is_refused_naming_the_file(tmp_path, name):
    goal = objective()
    save_model(tmp_path, goal.model, goal.config, SHAPE, {}, goal.model.state_dict())
    weights = tmp_path / f"{name}.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(UserError, match=rf"{name}\.safetensors: content does not match {name}_sha256"):
        load_model(tmp_path)


def test_a_model_of_another_kind_is_refused(tmp_path):
    (tmp_path / "model.json").write_text('{"modality": "text"}')
    with pytest.raises(UserError, match="not the description of a model of images"):
        load_model(tmp_path)
