"""The promises of local folders, kept in buckets: gcsfs, s3fs and adlfs against real servers, behind a proxy that
breaks requests. What trains from a bucket is in test_gcs.py."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest

from core import storage
from core.errors import UserError
from core.storage import generations, remote
from core.storage.checkpoint import CheckpointStore
from core.storage.exchange import exchange
from core.storage.faults import StorageError
from core.storage.leases import only_one
from core.storage.locks import LockedError
from factory.registry import Registry
from tests.factory.test_registry import register
from tests.fakes import azurite, s3, versity
from tests.fakes.faulty import FaultyProxy, without_pauses
from tests.fakes.gcs import GcsServer

Faulty = Callable[..., FaultyProxy]


SERVERS = {"gs": GcsServer, "s3": s3.S3Server, "versity": versity.VersityServer, "abfs": azurite.AzuriteServer}
LACKING = {"versity": versity.LACKING, "abfs": azurite.LACKING}
PACKAGES = {"s3": ("s3fs", "moto"), "versity": ("s3fs",), "abfs": ("adlfs",)}


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[Any]:
    for package in PACKAGES.get(request.param, ()):
        pytest.importorskip(package, reason=f"needs the package {package}")
    if why := LACKING.get(request.param):
        pytest.skip(why)
    with SERVERS[request.param]() as started:
        started.create_bucket("bucket")
        yield started


ENVIRONMENTS: dict[str, Callable[[str], dict[str, str]]] = {
    "gs": lambda url: {"STORAGE_EMULATOR_HOST": url}, "s3": s3.environment, "abfs": azurite.environment
}  # fmt: skip


def scheme(server: Any) -> str:
    return str(server.scheme).removesuffix("://")


@pytest.fixture
def use(server: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Sends the commands of this test to a URL: the server, or a proxy before it."""
    from gcsfs import GCSFileSystem

    kinds: list[Any] = [GCSFileSystem]
    with contextlib.suppress(ModuleNotFoundError):
        from s3fs import S3FileSystem

        kinds.append(S3FileSystem)
    with contextlib.suppress(ModuleNotFoundError):
        from adlfs import AzureBlobFileSystem

        kinds.append(AzureBlobFileSystem)

    def forget() -> None:  # they keep one for all servers that the environment ever named
        for kind in kinds:
            kind.clear_instance_cache()

    def use(url: str) -> None:
        for name, value in ENVIRONMENTS[scheme(server)](url).items():
            monkeypatch.setenv(name, value)
        forget()

    yield use
    forget()


@pytest.fixture
def bucket(server: Any, use: Callable[[str], None], request: pytest.FixtureRequest, monkeypatch: Any) -> str:
    """A prefix for one test."""
    for name, value in getattr(server, "environment", {}).items():
        monkeypatch.setenv(name, value)
    use(server.url)
    return f"{scheme(server)}://bucket/{request.node.name[:40].replace('[', '-').replace(']', '')}"


@pytest.fixture
def faulty(server: Any, bucket: str, use: Callable[[str], None]) -> Iterator[Faulty]:
    """Puts a proxy that breaks requests before the server; pauses between tries are left out."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(without_pauses())

        def start(**options: Any) -> FaultyProxy:
            proxy = stack.enter_context(FaultyProxy(server.url, **options))
            use(proxy.url)
            return proxy

        yield start


def test_files_come_back_as_they_went(bucket: str, tmp_path: Path) -> None:
    storage.write_bytes(f"{bucket}/a/b.bin", bytes(range(256)))
    storage.write_json(f"{bucket}/a/c.json", {"x": [1, None]})
    assert storage.list_files(bucket) == ["a/b.bin", "a/c.json"]
    assert storage.read_json(f"{bucket}/a/c.json") == {"x": [1, None]}
    assert storage.sizes(bucket)["a/b.bin"] == storage.size(f"{bucket}/a/b.bin") == 256
    storage.copy_tree(bucket, tmp_path / "down")
    assert storage.sha256(tmp_path / "down/a/b.bin") == storage.sha256(f"{bucket}/a/b.bin")
    storage.copy_tree(tmp_path / "down", f"{bucket}/up")
    assert storage.read_bytes(f"{bucket}/up/a/b.bin") == bytes(range(256))
    storage.remove(f"{bucket}/a")
    assert not storage.exists(f"{bucket}/a/b.bin")
    assert storage.list_files(f"{bucket}/a") == []


@pytest.mark.parametrize("server", ["s3", "versity"], indirect=True)
def test_what_kubeflow_calls_minio_is_the_same(bucket: str) -> None:
    storage.write_bytes(f"{bucket}/x", b"1")
    assert storage.read_bytes(f"{bucket}/x".replace("s3://", "minio://")) == b"1"


def test_create_has_exactly_one_winner(bucket: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: storage.create(f"{bucket}/manifest", str(n).encode()), range(8)))
    assert sum(won) == 1
    assert storage.read_bytes(f"{bucket}/manifest") == str(won.index(True)).encode()


def test_of_many_who_change_a_file_nobodys_change_is_lost(bucket: str) -> None:
    def add(number: int) -> None:
        exchange(f"{bucket}/list", lambda before: (before or b"") + f"{number},".encode())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(12)))
    assert sorted(map(int, storage.read_bytes(f"{bucket}/list").rstrip(b",").split(b","))) == list(range(12))


def test_an_object_that_was_replaced_or_removed_meanwhile_is_not_written_over(bucket: str) -> None:
    uri = f"{bucket}/x"
    first = generations.replace(uri, b"1", generations.ABSENT)
    seen = generations.look(uri)
    assert first is not None
    assert seen is not None
    assert (seen.data, seen.generation) == (b"1", first)
    assert 0 <= seen.age < 60
    assert generations.replace(uri, b"2", first) is not None
    assert generations.replace(uri, b"3", first) is None
    storage.remove(uri)
    assert generations.replace(uri, b"4", first) is None
    assert generations.look(uri) is None


def test_a_training_is_held_by_one(bucket: str) -> None:
    for _ in range(2):
        with only_one(bucket, "the training"):
            refused = pytest.raises(LockedError)
            with refused, only_one(bucket, "the training", patience=0.1):
                pass


def test_registry_is_empty_where_nothing_is(bucket: str) -> None:
    assert list(Registry(bucket).models()) == []


def test_of_versions_registered_at_once_each_has_its_number_and_one_is_promoted_by_hand(
    bucket: str, tmp_path: Path
) -> None:
    registry = Registry(f"{bucket}/registry")
    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(lambda name: register(registry, tmp_path, name), (b"one", b"two", b"three")))
    assert sorted(version.version for version in made) == [1, 2, 3]
    for number in (1, 3):
        registry.promote("digits", number, "by hand")
    assert registry.champion("digits") == registry.version("digits", 3)
    assert registry.rollback("digits", "by hand").version == 1
    registry.version("digits", 2).verify()


def test_what_is_not_there_is_one_line(bucket: str) -> None:
    with pytest.raises(UserError, match="cannot be read") as error:
        storage.read_bytes(f"{bucket}/nothing")
    assert "\n" not in str(error.value)
    with pytest.raises(StorageError, match="there is no such bucket"):
        storage.create(f"{bucket.partition(':')[0]}://no-such-bucket/x", b"1")


def test_of_an_upload_whose_answer_was_lost_the_writer_is_told_that_it_won(bucket: str, faulty: Faulty) -> None:
    proxy = faulty(share=1.0, faults=("lost answer",))
    proxy.draw = iter(["lost answer", *[""] * 100]).__next__  # the first request alone
    assert storage.create(f"{bucket}/manifest", b"mine")
    assert not storage.create(f"{bucket}/manifest", b"another's")
    assert storage.read_bytes(f"{bucket}/manifest") == b"mine"


def test_passing_faults_pass_and_lasting_ones_are_one_line(bucket: str, faulty: Faulty) -> None:
    proxy = faulty(share=0.3, faults=("503", "429", "reset", "truncated"), seed=3)
    for number in range(8):
        storage.write_bytes(f"{bucket}/{number}", bytes([number]) * 1000)
    assert [storage.read_bytes(f"{bucket}/{number}")[0] for number in range(8)] == list(range(8))
    assert proxy.broken > 0
    faulty(share=1.0, faults=("503",))
    with pytest.raises(StorageError, match=r"cannot be written: .*\(4 attempts\)") as error:
        storage.create(f"{bucket}/x", b"1")
    assert "\n" not in str(error.value)


def test_storage_that_never_answers_is_never_an_empty_answer(bucket: str, faulty: Faulty) -> None:
    faulty(share=1.0, faults=("503",))
    with pytest.raises(StorageError, match="cannot be looked up"):
        storage.exists(f"{bucket}/x")
    with pytest.raises(StorageError, match="cannot be listed"):
        CheckpointStore(bucket).load()  # which would begin the training anew


def test_a_truncated_body_is_read_again(bucket: str, faulty: Faulty, tmp_path: Path) -> None:
    content = bytes(range(256)) * 30_000
    storage.write_bytes(f"{bucket}/x", content)
    proxy = faulty(share=0.4, faults=("truncated",), seed=2)
    assert storage.read_bytes(f"{bucket}/x") == content
    storage.copy_tree(bucket, tmp_path / "copy")
    assert (tmp_path / "copy" / "x").read_bytes() == content
    assert proxy.broken > 0


def test_what_was_altered_on_the_way_is_read_again(bucket: str, faulty: Faulty) -> None:
    storage.write_bytes(f"{bucket}/x", b"content" * 1000)
    proxy = faulty(share=0.5, faults=("altered",), seed=1)
    assert [storage.read_bytes(f"{bucket}/x") for _ in range(8)] == [b"content" * 1000] * 8
    assert proxy.broken > 0


@pytest.mark.parametrize("server", ["abfs"], indirect=True)
def test_an_account_is_named_by_the_uri_or_the_environment_but_not_two(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = "@devstoreaccount1.dfs.core.windows.net"
    storage.write_bytes(f"{bucket}/x", b"1")
    assert storage.read_bytes(f"{bucket.replace('bucket', f'bucket{here}', 1)}/x") == b"1"
    assert storage.read_bytes(f"{bucket}/x".replace("abfs://", "az://")) == b"1"
    with pytest.raises(UserError, match=r"AZURE_STORAGE_CONNECTION_STRING is of the account devstoreaccount1; unset"):
        storage.read_bytes("abfs://bucket@another.dfs.core.windows.net/x")
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING")
    with pytest.raises(UserError, match=r"names no storage account; set AZURE_STORAGE_ACCOUNT_NAME or"):
        storage.read_bytes(f"{bucket}/x")


@pytest.mark.parametrize("server", ["abfs"], indirect=True)
def test_a_refused_key_is_one_line(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "AZURE_STORAGE_CONNECTION_STRING"
    monkeypatch.setenv(name, os.environ[name].replace("AccountKey=Eby8", "AccountKey=AAAA"))
    fsspec.get_filesystem_class("abfs").clear_instance_cache()
    with pytest.raises(StorageError, match=r"cannot be written: 403 AuthorizationFailure") as error:
        storage.create(f"{bucket}/x", b"1")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("server", ["abfs"], indirect=True)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"permission": "racwdl"}, ""),
        ({"permission": "rl"}, "cannot be written: 403 AuthorizationPermissionMismatch"),
        ({"permission": "racwdl", "hours": -1}, "cannot be written: 403 AuthorizationFailure"),
    ],
)
def test_a_signature_alone_does_what_it_allows(
    server: Any, bucket: str, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], said: str
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", server.signed("bucket", **change))
    fsspec.get_filesystem_class("abfs").clear_instance_cache()
    uri = f"{bucket}/{said[-9:] or 'made'}"  # another object for each
    if not said:
        assert storage.create(uri, b"1")
        return
    with pytest.raises(StorageError, match=said):
        storage.create(uri, b"1")
    if "hours" not in change:
        assert not storage.exists(uri)


@pytest.mark.parametrize(
    ("uri", "variables", "said"),
    [
        ("abfs://c@acc/x", {}, "acc is no account with its domain, as in ACCOUNT.dfs.core.windows.net"),
        ("abfs://c/x", {"AZURE_STORAGE_ACCOUNT_NAME": "acc.blob.core.windows.net/"}, "is no account's name"),
        ("abfs://c/x", {"AZURE_STORAGE_CONNECTION_STRING": "hello"}, "Connection string is either blank or malformed"),
        ("abfs://c/x", {"AZURE_STORAGE_CONNECTION_STRING": "AccountName=abc;AccountKey=abc;BlobEndpoint=http://127.0.0.1:9"},
         "the account's key cannot sign: Incorrect padding"),
        ("abfs:///x", {}, "not a place for files"),
        ("s3://c/x", {"AWS_ENDPOINT_URL": "127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"},
         "Invalid endpoint: 127.0.0.1:9"),
        ("s3://c/x", s3.environment("http://127.0.0.1:9"), r"Could not connect to the endpoint URL.*\(4 attempts\)"),
        ("s3:///x", {}, "not a place for files"),
    ],
)  # fmt: skip
def test_settings_that_cannot_work_are_one_line(
    monkeypatch: pytest.MonkeyPatch, uri: str, variables: dict[str, str], said: str
) -> None:
    for kind in ("adlfs", "s3fs"):
        pytest.importorskip(kind)
    for name in (*remote.AZURE, "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for kind in ("abfs", "s3"):
        fsspec.get_filesystem_class(kind).clear_instance_cache()
    with without_pauses(), pytest.raises(UserError, match=said) as error:
        storage.create(uri, b"1")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("server", ["versity"], indirect=True)
def test_a_wrong_key_of_s3_is_one_line(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(StorageError, match="cannot be written") as error:
        storage.create(f"{bucket}/x", b"1")
    assert "\n" not in str(error.value)
