"""Training from a bucket of Google Cloud Storage: gcsfs against a real server."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from gcsfs import GCSFileSystem

from core import storage
from core.storage.checkpoint import CheckpointStore
from core.storage.faults import StorageError
from core.training.loop import fit
from core.training.result import InterruptedTrainingError
from tests.core.toy import ToyObjective
from tests.core.training.test_loop import CPU, SHORT, StopAfter, same, timeless, train
from tests.fakes.faulty import FaultyProxy, without_pauses
from tests.fakes.gcs import GcsServer


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


def test_storage_that_never_answers_well_is_one_line_after_bounded_tries(bucket: str, faulty) -> None:
    proxy = faulty(share=1.0, faults=("503",))
    with pytest.raises(StorageError, match=r"cannot be written: .*\(4 attempts\)"):
        storage.write_bytes(f"{bucket}/x", b"1")
    assert proxy.requests == 4 * 6  # gcsfs tries each six times


def test_a_bucket_that_is_gone_is_one_line(server: GcsServer, bucket: str) -> None:
    with pytest.raises(StorageError, match="there is no such bucket"):
        fit(ToyObjective(), SHORT, CheckpointStore("gs://deleted-bucket/work"), CPU)
