"""The registry: versions are whole or absent, the champion pointer is never absent, history says why."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from core import storage
from core.errors import UserError
from factory.registry import Registry
from factory.versions import Version


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


def register(registry: Registry, folder: Path, weights: bytes, run: str = "run", model: str = "digits") -> Version:
    source = folder / f"model-{weights.decode()}"
    (source / "previews").mkdir(parents=True, exist_ok=True)
    (source / "weights.safetensors").write_bytes(weights)
    (source / "previews" / "1.png").write_bytes(b"png")
    return registry.register(
        model,
        {"model": source},
        metrics={"distance": {"value": 1.0}},
        evaluation_key="key",
        weights_sha256=weights.decode(),
        lineage={"run": run},
    )


def test_a_version_holds_what_was_registered(registry: Registry, tmp_path: Path) -> None:
    made = register(registry, tmp_path, b"one")
    found = registry.version("digits", 1)
    assert found == made
    assert (found.evaluation_key, found.lineage, found.metrics) == ("key", {"run": "run"}, {"distance": {"value": 1.0}})
    assert storage.read_bytes(f"{found.folder()}/weights.safetensors") == b"one"
    found.verify()
    with pytest.raises(UserError, match="holds no autoregressive model"):
        found.folder("autoregressive")


def test_versions_count_up_and_a_retried_registration_is_the_same_version(registry: Registry, tmp_path: Path) -> None:
    numbers = [register(registry, tmp_path, weights).version for weights in (b"one", b"two")]
    assert numbers == [1, 2]
    assert register(registry, tmp_path, b"one").version == 1
    assert register(registry, tmp_path, b"one", run="another").version == 3
    assert registry.models() == ["digits"]


def test_a_version_without_a_manifest_is_not_there(registry: Registry, tmp_path: Path) -> None:
    register(registry, tmp_path, b"one")
    killed = register(registry, tmp_path, b"two")
    storage.remove(f"{killed.uri}/manifest.json")
    assert [version.version for version in registry.versions("digits")] == [1]
    assert register(registry, tmp_path, b"three").version == 3  # its place is not given away
    with pytest.raises(UserError, match="there are: 1, 3"):
        registry.promote("digits", 2, "by mistake")


def test_writers_at_the_same_moment_get_different_versions(registry: Registry, tmp_path: Path) -> None:
    made: list[int] = []

    def work(index: int) -> None:
        made.append(register(registry, tmp_path, f"w{index}".encode(), run=str(index)).version)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 8
    assert len(registry.versions("digits")) == 8


def test_rollback_walks_back_through_the_champions(registry: Registry, tmp_path: Path) -> None:
    assert registry.champion("digits") is None
    for number, weights in enumerate((b"one", b"two", b"three"), 1):
        register(registry, tmp_path, weights)
        registry.promote("digits", number, f"better {number}")
    assert registry.resolve("digits").version == registry.resolve("digits@champion").version == 3
    assert [registry.rollback("digits", "worse").version for _ in range(2)] == [2, 1]
    with pytest.raises(UserError, match="no earlier champion"):
        registry.rollback("digits", "worse")
    assert registry.resolve("digits").version == 1
    events = [(entry["event"], entry["version"]) for entry in registry.history("digits")]
    assert events == [("promote", 1), ("promote", 2), ("promote", 3), ("rollback", 2), ("rollback", 1)]


def test_a_damaged_version_is_not_promoted(registry: Registry, tmp_path: Path) -> None:
    register(registry, tmp_path, b"one")
    registry.promote("digits", 1, "first")
    damaged = register(registry, tmp_path, b"two")
    Path(damaged.uri, "model", "weights.safetensors").write_bytes(b"twO")
    with pytest.raises(UserError, match=r"digits@2: model/weights\.safetensors is damaged"):
        registry.promote("digits", 2, "better")
    assert registry.resolve("digits").version == 1


@pytest.mark.parametrize("name", ["digits", "digits@champion", "digits@7", "digits@latest", "../digits", "a/b@1", ""])
def test_a_name_that_means_nothing_is_a_user_error(registry: Registry, name: str) -> None:
    with pytest.raises(UserError):
        registry.resolve(name)


def test_a_broken_pointer_is_named(registry: Registry, tmp_path: Path) -> None:
    register(registry, tmp_path, b"one")
    storage.write_bytes(f"{registry.root}/digits/champion.json", b'{"version": "x"}')
    with pytest.raises(UserError, match=r"champion\.json: version: Input should be a valid integer"):
        registry.champion("digits")


def champions(registry: Registry, tmp_path: Path) -> None:
    for number, weights in enumerate((b"one", b"two"), 1):
        register(registry, tmp_path, weights)
        registry.promote("digits", number, f"better {number}")


class Killed(BaseException):
    """Stands for the end of the process."""


def test_a_kill_between_the_pointer_and_the_history_loses_no_line(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    champions(registry, tmp_path)

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        write = Registry._write_line
        calls = iter([write, killed])
        patch.setattr(Registry, "_write_line", lambda *given: next(calls)(*given))
        with pytest.raises(Killed):
            registry.rollback("digits", "worse")
    expected = [("promote", 1), ("promote", 2), ("rollback", 1)]
    assert registry.champion("digits").version == 1  # type: ignore[union-attr]
    assert [(line["event"], line["version"]) for line in registry.history("digits")] == expected
    registry.promote("digits", 2, "again")
    names = storage.list_files(f"{registry.root}/digits/history")
    assert len(names) == len(registry.history("digits")) == 4  # the line was written before the pointer was replaced


@contextlib.contextmanager
def failing_sync(monkeypatch: pytest.MonkeyPatch, fails: Callable[[Path], bool]) -> Iterator[None]:
    """fsync of these files and folders fails with EIO."""
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        if fails(Path(os.readlink(f"/proc/self/fd/{descriptor}"))):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        yield


def test_a_promotion_that_the_disk_did_not_confirm_says_that_the_champion_changed(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    champions(registry, tmp_path)
    said = r"^digits: version 1 is champion now, but .*champion.json: is written, but may be lost"
    with failing_sync(monkeypatch, lambda path: path.name == "digits"), pytest.raises(UserError, match=said):
        registry.promote("digits", 1, "by hand")
    assert registry.resolve("digits").version == 1
    assert registry.history("digits")[-1]["version"] == 1


def test_a_promotion_whose_line_cannot_be_written_says_so_and_the_line_is_not_lost(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    champions(registry, tmp_path)
    said = r"version 1 is champion now, but its line in the history is not: .*cannot be written: Input/output error"
    with failing_sync(monkeypatch, lambda path: "history" in path.parts), pytest.raises(UserError, match=said):
        registry.promote("digits", 1, "by hand")
    assert registry.resolve("digits").version == 1
    assert [line["version"] for line in registry.history("digits")] == [1, 2, 1]


def test_a_promotion_that_cannot_be_written_changes_nothing(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    champions(registry, tmp_path)
    with (
        failing_sync(monkeypatch, lambda path: path.suffix == ".tmp"),
        pytest.raises(UserError, match="cannot be writ"),
    ):
        registry.promote("digits", 1, "by hand")
    assert registry.resolve("digits").version == 2
    assert [line["version"] for line in registry.history("digits")] == [1, 2]


def test_of_champions_promoted_at_the_same_moment_none_is_forgotten(registry: Registry, tmp_path: Path) -> None:
    for number in range(6):
        register(registry, tmp_path, f"w{number}".encode())
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda number: registry.promote("digits", number, "at once"), range(1, 7)))
    champion = registry.resolve("digits").version
    before = [registry.rollback("digits", "back").version for _ in range(5)]
    assert sorted([champion, *before]) == [1, 2, 3, 4, 5, 6]
    assert len(registry.history("digits")) == 11


def test_a_provisional_version_serves_only_once_it_is_promoted(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "weights").write_bytes(b"w")
    registry.register(
        "m", {"model": tmp_path / "m"}, metrics={}, evaluation_key="", weights_sha256="w", lineage={}, provisional=True
    )
    assert [(one.state(champion=champion)) for one, champion in registry.listed("m")] == ["provisional"]
    with pytest.raises(UserError, match=r"no champion in .*; m@1 is provisional: name it, or promote it"):
        registry.resolve("m")
    registry.promote("m", 1, "by hand")
    assert [(one.state(champion=champion)) for one, champion in registry.listed("m")] == ["champion"]
    assert registry.resolve("m").version == 1
