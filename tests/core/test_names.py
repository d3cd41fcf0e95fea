"""A name that was listed or read leads below the folder that it is joined to, or is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import storage
from core.errors import UserError
from core.names import inside, single

OUTSIDE: list[Any] = [
    "", "/", "/tmp/x", "//host/x", "..", "../x", "a/../../x", "a/..", ".", "./x", "a/./x", "a//x", "a/", "C:", "C:/x",
    "c:x", "\\x", "..\\x", "a\\..\\x", "\\\\host\\share", "a\0b", "a\nb", "a\rb", "\x1b[31m", "\x7f", "\x85", "\u2028",
    "\ud800", None, 3, b"x", ["x"], Path("x"), "gs://other/x", "http://127.0.0.1/x",
]  # fmt: skip


@pytest.mark.parametrize("folder", [Path("folder"), "folder", "/folder", "gs://bucket/m"])
@pytest.mark.parametrize("name", OUTSIDE, ids=repr)
def test_a_name_that_leads_out_is_refused_for_local_folders_and_for_buckets(folder: Any, name: Any) -> None:
    with pytest.raises(UserError, match="refuses the name") as error:
        inside(folder, name)
    assert str(error.value).isprintable()


def test_a_plain_name_is_joined_and_the_folder_keeps_its_kind(tmp_path: Path) -> None:
    name = "previews/class 3/ümlaut…-12:30.png"
    assert inside(tmp_path, name) == tmp_path / name
    assert inside(str(tmp_path), name) == f"{tmp_path}/{name}"
    assert inside("gs://bucket/m/", name) == f"gs://bucket/m/{name}"
    assert inside(Path("/"), "x") == Path("/x")
    assert single("..x.", "somewhere") == "..x."
    with pytest.raises(UserError, match=r"somewhere: .*without a slash"):
        single("a/b", "somewhere")


@given(st.text(st.sampled_from("./\\aC:\0\n~%"), max_size=12))
def test_whatever_is_joined_stays_below(name: str) -> None:
    try:
        found = inside(Path("/folder"), name)
    except UserError:
        return
    assert found.resolve().is_relative_to("/folder")
    assert found.resolve() != Path("/folder")


def test_a_link_that_leads_out_is_refused_unless_it_is_to_be_followed(tmp_path: Path) -> None:
    for folder in ("mine", "elsewhere"):
        (tmp_path / folder).mkdir()
    (tmp_path / "elsewhere" / "x").write_text("secret")
    (tmp_path / "mine" / "out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "mine" / "within").symlink_to("y")
    (tmp_path / "mine" / "loop").symlink_to("loop")
    for name in ("out", "out/x", "out/not/there/yet"):
        with pytest.raises(UserError, match="a link leads out"):
            inside(tmp_path / "mine", name)
        assert inside(tmp_path / "mine", name, links=True) == tmp_path / "mine" / name
    assert inside(tmp_path / "mine", "within").name == "within"
    inside(tmp_path / "mine", "loop")


def test_join_refuses_parts_that_lead_out() -> None:
    assert storage.join("gs://b/m/", "a", "b/c") == "gs://b/m/a/b/c"
    with pytest.raises(UserError, match="refuses the name"):
        storage.join("gs://b/m", "a", "../../other")


def test_no_file_is_copied_if_one_name_leads_out_through_a_link_at_the_target(tmp_path: Path) -> None:
    for folder in ("source/previews", "target", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "source" / "a").write_text("a")
    (tmp_path / "source" / "previews" / "1.png").write_text("png")
    (tmp_path / "target" / "previews").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"target: refuses the name 'previews/1\.png': a link leads out"):
        storage.copy_tree(tmp_path / "source", tmp_path / "target")
    assert storage.list_files(tmp_path / "target") == storage.list_files(tmp_path / "elsewhere") == []
