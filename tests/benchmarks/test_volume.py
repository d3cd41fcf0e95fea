"""Volume by hand."""

import pytest

from benchmarks import volume
from benchmarks.gpus import Training
from benchmarks.volume import DataSet, reach_rows
from benchmarks.workload import Work


def test_one_process_that_writes_is_the_limit_where_processors_share_little() -> None:
    arrays, files = DataSet("a", 1e6, 1000, "arrays"), DataSet("f", 1e6, 1000, "files")
    assert arrays.prepared == arrays.serial == pytest.approx(5.5 + 5.2)
    assert files.shared == pytest.approx(320)
    assert files.prepared == pytest.approx(10.7)  # 320 s on 64 cores are less
    shards = DataSet("s", 20e6, 1000, "files")
    assert shards.prepared == pytest.approx((6400 + 110 + 104) / 64)  # each process writes its own
    text = DataSet("t", 1e9, 1, "text")
    assert text.shared == pytest.approx(65)
    assert text.prepared == pytest.approx(0.33e-6 * (1 << 26) + 2.4)  # merges are learned and tokens hashed by one


def test_what_is_larger_than_memory_is_read_by_each_process() -> None:
    small, large = (DataSet("d", size / 1.8, 1, "text").opened for size in (volume.MEMORY, 2 * volume.MEMORY))
    assert large == pytest.approx(16 * small)


def test_of_images_in_shards_labels_are_opened_and_the_rest_comes_while_training() -> None:
    whole, shards = DataSet("d", 15e6, 1000, "arrays"), DataSet("d", 20e6, 1000, "arrays")
    assert (whole.sharded, whole.epoch) == (False, 0)
    assert shards.opened == pytest.approx(8 * 20e6 / volume.DISK)
    assert shards.epoch == pytest.approx(20e9 * 5.3e-9 / 4)


def test_a_gpu_draws_the_noise_of_its_own_examples() -> None:
    (row,) = reach_rows([Training("by hand", Work(25_000_000, 3e9, 1000, 1e8), 1e6, 64, noise=1000)])
    assert row["noise of a step"] == "0.26 MB, 0 µs"
    assert int(row["1,024 GPUs"].split()[0]) <= int(row["64 GPUs"].split()[0])
