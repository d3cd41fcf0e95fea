"""Files of far storage on this disk: verified, fetched once for all, and never more of them than allowed."""

import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from core.storage import cache as caches
from core.storage import files
from core.storage.cache import FileCache

SIZE = 3 << 20


class Far:
    """Files of `SIZE` bytes in a folder, which stands for a bucket."""

    def __init__(self, folder: Path, count: int = 5) -> None:
        self.contents = [bytes([number]) * SIZE for number in range(count)]
        self.hashes = [hashlib.sha256(content).hexdigest() for content in self.contents]
        self.uris = [str(folder / f"{number}") for number in range(count)]
        folder.mkdir()
        for uri, content in zip(self.uris, self.contents, strict=True):
            Path(uri).write_bytes(content)

    def read(self, cache: FileCache, number: int) -> bytes:
        with cache.open(self.uris[number], self.hashes[number], SIZE) as stream:
            return stream.read()


@pytest.fixture
def far(tmp_path: Path) -> Far:
    return Far(tmp_path / "far")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileCache:
    monkeypatch.setenv("TEXTDIFFUSION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TEXTDIFFUSION_CACHE_GB", str(2.5 * SIZE / 1e9))
    return FileCache.own("x", SIZE)


def kept(cache: FileCache) -> set[str]:
    return {path.name for path in cache.folder.iterdir() if path.suffix != ".lock"}


def test_what_was_opened_longest_ago_makes_room(far: Far, cache: FileCache) -> None:
    for number in (0, 1, 0, 2, 3, 0):
        assert far.read(cache, number) == far.contents[number]
        assert len(kept(cache)) <= 2
        if number == 2:
            assert kept(cache) == {far.hashes[0], far.hashes[2]}, "0 was opened after 1"


def test_a_reader_of_a_removed_file_reads_on(far: Far, cache: FileCache) -> None:
    with cache.open(far.uris[0], far.hashes[0], SIZE) as stream:
        for number in (1, 2, 3):
            far.read(cache, number)
        assert far.hashes[0] not in kept(cache)
        assert stream.read() == far.contents[0]


def test_of_many_that_ask_one_fetches(far: Far, cache: FileCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks belong to open files, so threads with files of their own meet as processes do."""
    fetched, answers = [], []
    read = files.open_read
    monkeypatch.setattr(files, "open_read", lambda uri: (fetched.append(uri), read(uri))[1])
    threads = [threading.Thread(target=lambda: answers.append(far.read(cache, 0))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [far.contents[0]] * 8
    assert fetched == [far.uris[0]]


def test_who_does_not_wait_leaves_a_file_to_the_one_that_fetches_it(far: Far, cache: FileCache) -> None:
    with cache._locked(far.hashes[0][:2]):
        cache.fetch(far.uris[0], far.hashes[0], SIZE, wait=False)
        assert kept(cache) == set()
    cache.fetch(far.uris[0], far.hashes[0], SIZE, wait=False)
    assert kept(cache) == {far.hashes[0]}


def test_what_a_killed_process_left_is_fetched_again_and_counts(far: Far, cache: FileCache) -> None:
    for number in (0, 1):
        (cache.folder / f"{far.hashes[number]}.part").write_bytes(b"half")
        os.truncate(cache.folder / f"{far.hashes[number]}.part", SIZE)
    assert far.read(cache, 0) == far.contents[0]
    far.read(cache, 2)
    assert kept(cache) == {far.hashes[0], far.hashes[2]}


@pytest.mark.parametrize("content", [b"short", b"\7" * SIZE, b"\0" * SIZE + b"more"])
def test_another_content_is_refused_and_leaves_nothing(far: Far, cache: FileCache, content: bytes) -> None:
    Path(far.uris[0]).write_bytes(content)
    with pytest.raises(UserError, match=r"far/0: its SHA-256 is not the one"):
        far.read(cache, 0)
    assert kept(cache) == set()


def test_a_file_that_lost_its_end_is_fetched_again(far: Far, cache: FileCache) -> None:
    far.read(cache, 0)
    os.truncate(cache.folder / far.hashes[0], 10)
    assert far.read(cache, 0) == far.contents[0]


def test_a_file_larger_than_the_cache_is_refused(far: Far, cache: FileCache) -> None:
    with pytest.raises(UserError, match="less than one file of"):
        FileCache(cache.folder, SIZE - 1).open(far.uris[0], far.hashes[0], SIZE)


def test_half_of_the_free_disk_is_taken_where_nobody_says(monkeypatch: pytest.MonkeyPatch, cache: FileCache) -> None:
    monkeypatch.delenv("TEXTDIFFUSION_CACHE_GB")
    free = caches.shutil.disk_usage(cache.folder).free
    assert 0.4 * free < FileCache.own("x", 1).limit < 0.6 * free


def test_no_file_changes_its_name_while_room_is_made(
    far: Far, cache: FileCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be listed by neither name, so not counted, and the cache would hold a file too many."""
    copied, fetched, under_lock = caches._copied, threading.Event(), []

    def copied_while_another_makes_room(*arguments: Any) -> str:
        found = copied(*arguments)
        locked = threading.Event()

        def make_room() -> None:
            with cache._locked("room"):
                locked.set()
                under_lock.append(fetched.wait(0.3))

        thread.append(threading.Thread(target=make_room))
        thread[0].start()
        locked.wait()
        return found

    thread: list[threading.Thread] = []
    monkeypatch.setattr(caches, "_copied", copied_while_another_makes_room)
    cache.fetch(far.uris[0], far.hashes[0], SIZE)
    fetched.set()
    thread[0].join()
    assert under_lock == [False]
    assert kept(cache) == {far.hashes[0]}
