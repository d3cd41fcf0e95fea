"""The same promises as for local folders, kept on Google Cloud Storage: gcsfs against a real server."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from gcsfs import GCSFileSystem

from core import storage
from core.errors import UserError
from core.storage.checkpoint import CheckpointStore
from core.storage.faults import StorageError
from core.training.loop import fit
from core.training.result import InterruptedTrainingError
from tests.core.toy import ToyObjective
from tests.core.training.test_loop import CPU, SHORT, StopAfter, same, timeless, train
from tests.fakes.faulty import FaultyProxy, without_pauses
from tests.fakes.gcs import GcsServer


def test_files_come_back_as_they_went(bucket: str, tmp_path: Path) -> None:
    storage.write_bytes(f"{bucket}/a/b.bin", bytes(range(256)))
    storage.write_json(f"{bucket}/a/c.json", {"x": [1, None]})
    assert storage.list_files(bucket) == ["a/b.bin", "a/c.json"]
    assert storage.read_json(f"{bucket}/a/c.json") == {"x": [1, None]}
    storage.copy_tree(bucket, tmp_path / "down")
    assert storage.sha256(tmp_path / "down/a/b.bin") == storage.sha256(f"{bucket}/a/b.bin")
    storage.remove(f"{bucket}/a")
    assert not storage.exists(f"{bucket}/a/b.bin")
    assert storage.list_files(bucket) == []


def test_create_has_exactly_one_winner(bucket: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: storage.create(f"{bucket}/manifest", str(n).encode()), range(8)))
    assert sum(won) == 1
    assert storage.read_bytes(f"{bucket}/manifest") == str(won.index(True)).encode()


def test_what_is_not_there_is_one_line(bucket: str) -> None:
    with pytest.raises(UserError, match="cannot be read") as error:
        storage.read_bytes(f"{bucket}/nothing")
    assert "\n" not in str(error.value)


def test_a_damaged_object_is_passed_over(bucket: str) -> None:
    store = CheckpointStore(bucket)
    for value in (1.0, 2.0):
        store.save({"model": {"w": torch.full((3,), value)}}, {}, {"value": value})
    (victim,) = [name for name in storage.list_files(f"{bucket}/data") if name.startswith("1-")]
    storage.write_bytes(f"{bucket}/data/{victim}", b"half an upl")
    loaded = store.load()
    assert loaded is not None
    assert loaded.meta["value"] == 1.0


def test_training_resumes_from_a_bucket_bit_exactly(bucket: str, tmp_path: Path) -> None:
    undisturbed = train(tmp_path)
    with pytest.raises(InterruptedTrainingError):
        fit(StopAfter(17), SHORT, CheckpointStore(bucket), CPU)
    resumed = fit(ToyObjective(), SHORT, CheckpointStore(bucket), CPU)
    assert resumed.resumed_at == 17 * 16
    assert same(undisturbed, resumed)
    assert timeless(undisturbed) == timeless(resumed)


@pytest.fixture
def faulty(server: GcsServer, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., FaultyProxy]]:
    """Puts a proxy that breaks requests before the server; pauses between tries are left out."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(without_pauses())

        def start(**options) -> FaultyProxy:
            proxy = stack.enter_context(FaultyProxy(server.url, **options))
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
            GCSFileSystem.clear_instance_cache()
            return proxy

        yield start
    GCSFileSystem.clear_instance_cache()


def test_of_an_upload_whose_answer_was_lost_the_writer_is_told_that_it_won(bucket: str, faulty) -> None:
    proxy = faulty(share=1.0, faults=("lost answer",))
    proxy.draw = iter(["lost answer", *[""] * 100]).__next__  # the first request alone
    assert storage.create(f"{bucket}/manifest", b"mine")
    assert not storage.create(f"{bucket}/manifest", b"another's")
    assert storage.read_bytes(f"{bucket}/manifest") == b"mine"


def test_storage_that_never_answers_well_is_one_line_after_bounded_tries(bucket: str, faulty) -> None:
    proxy = faulty(share=1.0, faults=("503",))
    with pytest.raises(StorageError, match=r"cannot be written: .*\(4 attempts\)"):
        storage.write_bytes(f"{bucket}/x", b"1")
    assert proxy.requests == 4 * 6
    with pytest.raises(StorageError, match="cannot be looked up"):
        storage.exists(f"{bucket}/x")
    with pytest.raises(StorageError, match="cannot be listed"):
        CheckpointStore(bucket).load()  # an empty answer would begin the training anew


def test_a_truncated_body_is_read_again(bucket: str, faulty, tmp_path: Path) -> None:
    content = bytes(range(256)) * 30_000
    storage.write_bytes(f"{bucket}/x", content)
    proxy = faulty(share=0.4, faults=("truncated",), seed=2)
    assert storage.read_bytes(f"{bucket}/x") == content
    storage.copy_tree(bucket, tmp_path / "copy")
    assert (tmp_path / "copy" / "x").read_bytes() == content
    assert proxy.broken > 0


def test_a_bucket_that_is_gone_is_one_line(server: GcsServer, bucket: str) -> None:
    with pytest.raises(StorageError, match="there is no such bucket"):
        fit(ToyObjective(), SHORT, CheckpointStore("gs://deleted-bucket/work"), CPU)
