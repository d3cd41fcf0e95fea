import torch

from core.randomness import DataOrder, Draws

CPU = torch.device("cpu")


def test_an_example_meets_the_same_noise_however_the_batch_is_split() -> None:
    whole = Draws(3, 640, 0, 12, 12, CPU)
    expected = [whole.normal(4), whole.stratified(), whole.integers(10), whole.uniform(2)]
    parts = [Draws(3, 640, start, stop, 12, CPU) for start, stop in ((0, 5), (5, 6), (6, 12))]
    drawn = [[part.normal(4), part.stratified(), part.integers(10), part.uniform(2)] for part in parts]
    for index, numbers in enumerate(expected):
        assert torch.equal(numbers, torch.cat([part[index] for part in drawn]))


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
