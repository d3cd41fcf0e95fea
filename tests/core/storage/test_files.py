import threading
from pathlib import Path

import pytest

from core import storage
from core.errors import UserError


def test_create_has_exactly_one_winner(tmp_path: Path) -> None:
    results: list[bool] = []
    barrier = threading.Barrier(16)

    def race(number: int) -> None:
        barrier.wait()
        results.append(storage.create(tmp_path / "manifest", str(number).encode() * 1000))

    threads = [threading.Thread(target=race, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False] * 15 + [True]
    assert len(set((tmp_path / "manifest").read_bytes().decode())) <= 2
    assert [path.name for path in tmp_path.iterdir()] == ["manifest"]


def test_copy_tree_and_hashes_agree(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "x.bin").write_bytes(bytes(range(256)) * 5000)
    storage.copy_tree(tmp_path / "a", tmp_path / "c")
    assert storage.sha256(tmp_path / "a/b/x.bin") == storage.sha256(tmp_path / "c/b/x.bin")


@pytest.mark.parametrize("uri", ["/nowhere/at/all", "nonsense://x/y"])
def test_what_cannot_be_read_is_one_line(uri: str) -> None:
    with pytest.raises(UserError) as error:
        storage.read_bytes(uri)
    assert "\n" not in str(error.value)
    assert uri in str(error.value)


def test_a_file_over_its_limit_is_refused(tmp_path: Path) -> None:
    storage.write_bytes(tmp_path / "x", b"12345")
    with pytest.raises(UserError, match="larger than 4 bytes"):
        storage.read_bytes(tmp_path / "x", limit=4)


def test_a_link_that_leads_out_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match="refuses the name 'weights': a link leads out"):
        storage.copy_tree(tmp_path / "model", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
