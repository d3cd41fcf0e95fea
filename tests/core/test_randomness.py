import pytest
import torch

from core.randomness import DataOrder, Draws, Noise, seed_of

CPU = torch.device("cpu")


def test_an_example_meets_the_same_noise_however_the_batch_is_split() -> None:
    whole = Draws(3, 640, 0, 12, 12, CPU)
    expected = [whole.normal(4), whole.stratified(), whole.integers(10), whole.uniform(2)]
    parts = [Draws(3, 640, start, stop, 12, CPU) for start, stop in ((0, 5), (5, 6), (6, 12))]
    drawn = [[part.normal(4), part.stratified(), part.integers(10), part.uniform(2)] for part in parts]
    for index, numbers in enumerate(expected):
        assert torch.equal(numbers, torch.cat([part[index] for part in drawn]))


def test_an_examples_noise_is_that_of_its_place_in_the_stream_alone() -> None:
    """Whatever batches the stream is cut into, and whoever asks for how much at once."""
    first, second = Draws(3, 0, 0, 64, 64, CPU), Draws(3, 32, 0, 16, 16, CPU)
    assert torch.equal(first.normal(5)[32:48], second.normal(5))
    assert not torch.equal(Draws(4, 32, 0, 16, 16, CPU).normal(5), Draws(3, 32, 0, 16, 16, CPU).normal(5))
    assert Draws(3, 2**62, 0, 2, 2, CPU).normal(5).isfinite().all()


def test_stratified_draws_hit_every_stratum_once() -> None:
    draws = Draws(0, 0, 0, 64, 64, CPU).stratified()
    assert sorted((draws * 64).long().tolist()) == list(range(64))


def test_each_stratified_draw_is_uniform_by_itself() -> None:
    firsts = torch.stack([Draws(0, seen, 0, 1, 32, CPU).stratified()[0] for seen in range(4000)])
    # The standard error of the mean is .0046, of the variance .0012.
    assert abs(float(firsts.mean()) - 1 / 2) < 0.02
    assert abs(float(firsts.var()) - 1 / 12) < 0.006


def test_the_stream_can_be_entered_anywhere() -> None:
    order = DataOrder(7, seed=1)
    stream = order(0, 50)
    assert torch.equal(DataOrder(7, seed=1)(33, 50), stream[33:])
    assert not torch.equal(DataOrder(7, seed=2)(0, 50), stream)


@pytest.mark.parametrize("size", [1, 2, 3, 16, 17, 1000])
def test_an_order_too_long_for_memory_shows_every_example_once_an_epoch(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DataOrder, "LARGE", 0)
    order = DataOrder(size, seed=1)
    epochs = order(0, 3 * size).view(3, size)
    assert all(epoch.sort().values.tolist() == list(range(size)) for epoch in epochs)
    assert torch.equal(torch.cat([order(at, min(at + 7, 3 * size)) for at in range(0, 3 * size, 7)]), epochs.flatten())
    if size == 1000:
        assert not torch.equal(epochs[0], epochs[1])
        assert not torch.equal(DataOrder(size, seed=2)(0, size), epochs[0])


def test_an_order_too_long_for_memory_is_as_good_as_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DataOrder, "LARGE", 0)
    size = 4096
    for seed in range(3):
        found = DataOrder(size, seed)(0, size).double()
        together = torch.stack([found, torch.arange(size).double(), found.roll(1), found.roll(64)])
        correlation = torch.corrcoef(together).triu(1)
        assert float(correlation.abs().max()) < 4.5 / size**0.5, "four and a half standard errors"
        steps = (found.diff() % size).long()
        assert len(steps.unique()) > 0.6 * size, "1 - 1/e of all are expected of differences that are drawn"


def test_an_index_among_billions_takes_no_memory_for_the_others() -> None:
    found = DataOrder(10**13, seed=0)(10**13 - 3, 10**13 + 3)
    assert len(found.unique()) == 6
    assert 0 <= int(found.min()) <= int(found.max()) < 10**13


@pytest.mark.parametrize(("size", "near", "window"), [(1, 5, 1), (23, 5, 2), (60, 10, 3), (61, 10, 4), (40, 50, 4)])
def test_an_order_near_shards_shows_every_example_once_an_epoch(size: int, near: int, window: int) -> None:
    def order() -> DataOrder:
        return DataOrder(size, 1, near, window)

    stream = order()(0, 4 * size)
    assert all(epoch.sort().values.tolist() == list(range(size)) for epoch in stream.view(4, size))
    walking = order()
    assert torch.equal(torch.cat([walking(at, min(at + 7, 4 * size)) for at in range(0, 4 * size, 7)]), stream)
    for at in (0, size - 1, size, 3 * size // 2):  # entered anywhere, and by any share of a batch
        assert torch.equal(order()(at, min(at + 9, 4 * size)), stream[at : at + 9])
    if size > 20:
        assert not torch.equal(stream[:size], stream[size : 2 * size])
        assert not torch.equal(DataOrder(size, 2, near, window)(0, size), stream[:size])


def test_an_order_near_shards_stays_within_a_few_and_says_which_are_next() -> None:
    told: list[list[int]] = []
    order, seen = DataOrder(95, 1, near=10, window=4, coming=told.append), list[list[int]]()
    for at in range(3 * 95):
        before = len(told)
        shard = int(order(at, at + 1)) // 10
        if len(told) > before:
            seen.append([])
        seen[-1].append(shard)
    windows = [list(dict.fromkeys(shards)) for shards in seen]
    assert [len(window) for window in windows] == [4, 4, 2] * 3
    for window, following, coming in zip(windows, windows[1:], told, strict=False):
        assert set(coming[: len(window)]) == set(window)
        assert set(coming[len(window) :]) == set(following)


def test_a_row_sees_its_own_numbers_whatever_shares_the_batch() -> None:
    keys = [seed_of("x", index) for index in range(5)]
    together, alone = Noise(keys), Noise(keys[3:4])
    for shape in ((2, 3), (4,), ()):
        assert torch.equal(together.normal(*shape)[3:4], alone.normal(*shape))
        assert torch.equal(together.uniform(*shape)[3:4], alone.uniform(*shape))
    some = together[3:]
    assert torch.equal(some.normal(7)[0], alone.normal(7)[0])
    assert torch.equal(Noise.of("x", rows=range(2, 4)).normal(9), Noise(keys[2:4]).normal(9))
    assert torch.equal(Noise.of("x", rows=2).normal(9), Noise(keys[:2]).normal(9))
    assert len(Noise([])) == 0
    assert Noise([]).normal(3, 2).shape == (0, 3, 2)


def test_rows_and_what_they_are_asked_for_are_independent() -> None:
    noise = Noise(range(64))  # keys that are neighbours
    numbers = torch.cat([noise.normal(32), noise.normal(32), noise.repeated(2).normal(32).view(64, 64)], dim=1)
    for values in (numbers, numbers.T):
        correlation = torch.corrcoef(values).triu(1)
        assert float(correlation.abs().max()) < 5.5 / values.shape[1] ** 0.5
    assert len(numbers.unique()) > numbers.numel() - 10
