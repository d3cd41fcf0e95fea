"""A text becomes a data set whole and unmixed, or one line says why not."""

import hashlib
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UserError
from core.storage import integrity
from core.text import data, long_text, source, token_files, tokenizer
from core.text.config import TextData
from core.text.source import read_source, source_name

LINES = "".join(f"line {index}: the quick brown fox\n" for index in range(400))


def config(**values: object) -> TextData:
    return TextData.model_validate({"source": "file", "tokenizer": {"kind": "bpe", "vocabulary": 280}} | values)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> int:
    """Characters in memory at once."""
    for module in (long_text, source, tokenizer):
        monkeypatch.setattr(module, "BLOCK", 1000)
    return 1000


def read(settings: TextData) -> str:
    return "".join(read_source(settings))


@given(st.text(min_size=1, max_size=2000), st.floats(0.01, 0.4), st.floats(0.01, 0.4))
def test_splits_are_contiguous_and_lose_nothing(text: str, validation: float, test: float) -> None:
    parts = data.split(text, validation, test)
    assert parts["train"] + parts["validation"] + parts["test"] == text


def test_splits_are_cut_at_line_ends() -> None:
    parts = data.split(LINES, 0.1, 0.1)
    assert all(part.endswith("\n") for part in parts.values())
    assert len(parts["train"]) == pytest.approx(0.8 * len(LINES), abs=200)


def test_pydoc_needs_no_download_and_is_english(tmp_path: Path) -> None:
    metadata = data.prepare(TextData(), tmp_path / "dataset")
    texts = data.load(tmp_path / "dataset").texts
    assert metadata["counts"]["train"] > 300_000
    assert texts["train"].count(" the ") > 1000


def test_a_loaded_data_set_is_what_was_prepared(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text(LINES)
    metadata = data.prepare(config(data_dir=str(tmp_path / "in.txt")), tmp_path / "dataset")
    found = data.load(tmp_path / "dataset")
    assert "".join(found.texts.values()) == LINES
    for name, part in found.texts.items():
        assert found.tokenizer.decode(found.tokens[name].tolist()) == part
        assert metadata["split_sha256"][name] == hashlib.sha256(part.encode()).hexdigest()


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("second\n" * 200)
    (tmp_path / "a.txt").write_text("first\n" * 200)
    (tmp_path / "c.md").write_text("not text")
    text = read(config(data_dir=str(tmp_path)))
    assert text == "first\n" * 200 + "\n" + "second\n" * 200


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "found 0 characters of text"),
        (b" \n" * 5000, "found 0 characters of text"),
        (b"abc", "at least 1000"),
        (b"x" * 2000 + b"\xff\xfe", "not UTF-8: byte 0xff at offset 2000"),
    ],
)
def test_unusable_text_is_named_in_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        data.prepare(config(data_dir=str(tmp_path / "in.txt")), tmp_path / "dataset")
    assert "\n" not in str(caught.value)
    assert "in.txt" in str(caught.value)
    assert not (tmp_path / "dataset").exists()


def test_a_character_that_only_held_out_text_has_is_in_the_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text(LINES + "ß" * 5)
    data.prepare(config(data_dir=str(tmp_path / "in.txt"), tokenizer={"kind": "characters"}), tmp_path / "dataset")
    found = data.load(tmp_path / "dataset")
    assert "ß" not in found.texts["train"] + found.texts["validation"]
    assert found.tokenizer.decode(found.tokens["test"].tolist()) == found.texts["test"]
    assert found.texts == data.split(LINES + "ß" * 5, 0.05, 0.05), "held out by position, as ever"


def test_byte_order_marks_and_crlf_are_gone_from_every_file_and_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + b"first\r\n" * 200)
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbf" + b"second\n" * 200)
    data.prepare(config(data_dir=str(tmp_path)), tmp_path / "dataset")
    found = data.load(tmp_path / "dataset")
    assert "".join(found.texts.values()) == "first\n" * 200 + "\n" + "second\n" * 200
    summary = found.metadata["summary"]
    assert (summary["read"], summary["byte_order_marks"], summary["crlf"]) == (2, 2, 1)


def test_one_bad_file_of_a_folder_is_named_with_its_own_offset(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("fine\n" * 300)
    (tmp_path / "b.txt").write_bytes(b"caf\xe9\n" * 300)
    with pytest.raises(UserError, match=r"b\.txt: not UTF-8: byte 0xe9 at offset 3; save it as UTF-8"):
        read(config(data_dir=str(tmp_path)))
    (tmp_path / "b.txt").write_text("x" * 2000, encoding="utf-16")
    with pytest.raises(UserError, match=r"b\.txt: is UTF-16"):
        read(config(data_dir=str(tmp_path)))


def test_copies_of_editors_do_not_double_the_corpus_and_other_files_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in" / ".ipynb_checkpoints").mkdir(parents=True)
    for name in ("a.txt", ".ipynb_checkpoints/a-checkpoint.txt", "b.md"):
        (tmp_path / "in" / name).write_text(LINES)
    data.prepare(config(data_dir=str(tmp_path / "in")), tmp_path / "dataset")
    assert sum(data.load(tmp_path / "dataset").metadata["counts"].values()) == len(LINES)
    said = capsys.readouterr().err
    assert "read 1 file; skipped 2: 1 hidden (.ipynb_checkpoints), 1 not .txt (data.suffixes) (b.md)" in said
    both = config(data_dir=str(tmp_path / "in"), suffixes=[".txt", ".md"])
    assert read(both) == LINES + "\n" + LINES


def test_a_folder_of_other_files_says_which_setting_reads_them(tmp_path: Path) -> None:
    (tmp_path / "b.md").write_text(LINES)
    with pytest.raises(UserError, match=r"found no text; .* \.txt files \(data\.suffixes\); there are 1 \.md"):
        read(config(data_dir=str(tmp_path)))


def test_a_zip_of_texts_is_a_folder_of_texts(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.writestr("book/2.txt", "second\n" * 200)
        archive.writestr("book/1.txt", "first\n" * 200)
    zipped = config(data_dir=str(tmp_path / "in.zip"))
    assert read(zipped) == "first\n" * 200 + "\n" + "second\n" * 200
    assert source_name(zipped) == str(tmp_path / "in.zip")


def test_a_wrong_checksum_a_missing_file_and_a_missing_place_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text(LINES)
    with pytest.raises(UserError, match="SHA-256"):
        read(config(data_dir=str(tmp_path / "in.txt"), sha256="0" * 64))
    with pytest.raises(UserError, match="found no text"):
        read(config(data_dir=str(tmp_path / "absent")))
    with pytest.raises(UserError, match="allowed: an https address"):
        read(TextData(source="shakespeare", url="file:///etc/passwd"))
    with pytest.raises(UserError, match="allowed: an https address"):
        read(TextData(source="shakespeare", url="http://127.0.0.1:9/latest/meta-data"))


def test_a_damaged_data_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text(LINES)
    data.prepare(config(data_dir=str(tmp_path / "in.txt")), tmp_path / "dataset")
    (tmp_path / "dataset" / "train.txt").write_text("other")
    with pytest.raises(UserError, match="does not match the SHA-256"):
        data.load(tmp_path / "dataset")


@pytest.mark.parametrize(
    ("name", "before", "after", "message"),
    [
        ("dataset.json", b'"split": "contiguous"', b'"split": "contiguouz"', r"dataset\.json: damaged"),
        ("train.npy", b"\x01\x00", b"\x02\x00", "does not match tokens_sha256"),
        ("tokenizer.json", b'"q"', b'"Q"', "does not match tokenizer_sha256"),
    ],
)
def test_a_description_a_token_or_a_tokenizer_that_was_changed_is_refused(
    tmp_path: Path, name: str, before: bytes, after: bytes, message: str
) -> None:
    (tmp_path / "in.txt").write_text(LINES)
    data.prepare(config(data_dir=str(tmp_path / "in.txt"), tokenizer={"kind": "characters"}), tmp_path / "dataset")
    path = tmp_path / "dataset" / name
    content = path.read_bytes()
    assert before in content
    path.write_bytes(after.join(content.rsplit(before, 1)))
    with pytest.raises(UserError, match=message):
        data.load(tmp_path / "dataset")


def test_text_shorter_than_one_context_is_refused() -> None:
    with pytest.raises(UserError, match="too short for one context of 128"):
        data.require_context(torch.zeros(127, dtype=torch.int64), 128, "train split")


def test_held_out_windows_do_not_overlap() -> None:
    tokens = torch.arange(1000)
    found = data.held_out(tokens, 32, 10)
    assert found.shape == (10, 32)
    assert len(found.unique()) == 320
    assert (found.diff(dim=1) == 1).all()


def test_preparing_holds_no_more_of_a_longer_text_in_memory(tmp_path: Path, small_blocks: int) -> None:
    peaks = []
    for copies in (4, 16):
        folder = tmp_path / str(copies)
        folder.mkdir()
        (folder / "in.txt").write_text(LINES * copies)
        tracemalloc.start()
        data.prepare(config(data_dir=str(folder / "in.txt"), tokenizer={"kind": "characters"}), folder / "dataset")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 3 * len(LINES), "of 12 times more, in three passes"
    assert data.load(folder / "dataset").metadata["counts"]["train"] > 10 * len(LINES) > 100 * small_blocks


@pytest.mark.parametrize("kind", ["characters", "bpe"])
def test_a_text_read_in_blocks_is_the_same_data_set(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in.txt").write_text(LINES + "für 日本 € 🙂\r\n" * 200)
    settings = config(data_dir=str(tmp_path / "in.txt"), tokenizer={"kind": kind, "vocabulary": 290})
    found = [data.prepare(settings, tmp_path / "one")]
    for module in (long_text, source, tokenizer):
        monkeypatch.setattr(module, "BLOCK", 61)
    found.append(data.prepare(settings, tmp_path / "blocks"))
    assert found[0] == found[1]
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "blocks" / file.name).read_bytes()


def test_tokens_take_two_bytes_and_are_mapped(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text(LINES)
    metadata = data.prepare(config(data_dir=str(tmp_path / "in.txt")), tmp_path / "dataset")
    found = data.load(tmp_path / "dataset").tokens["train"]
    assert found.dtype == torch.uint16
    assert (tmp_path / "dataset" / "train.npy").stat().st_size == 128 + 2 * metadata["tokens"]["train"]
    assert isinstance(np.load(tmp_path / "dataset" / "train.npy", mmap_mode="r"), np.memmap)
    windows = data.windows(found, torch.tensor([0, 5]), 16)
    assert windows.dtype == torch.int64
    assert windows.tolist() == [found.tolist()[:16], found.tolist()[5:21]]


def test_more_tokens_than_two_bytes_can_name_take_four(tmp_path: Path) -> None:
    ids = np.array([0, 65_536, 99_999], np.int32)
    count, digest = token_files.write(tmp_path / "ids.npy", [ids[:1], ids[1:]], 100_000)
    assert count == 3
    assert token_files.opened(tmp_path / "ids.npy", 100_000, digest).tolist() == ids.tolist()
    with pytest.raises(UserError, match="outside the vocabulary of 99999"):
        token_files.opened(tmp_path / "ids.npy", 99_999, digest)


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_tokens_of_an_earlier_layout_are_read(kind: type, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text(LINES)
    data.prepare(config(data_dir=str(tmp_path / "in.txt")), tmp_path / "dataset")
    starts, metadata = torch.arange(8), integrity.read_json(tmp_path / "dataset" / "dataset.json")
    tokens = {name: found.tolist() for name, found in data.load(tmp_path / "dataset").tokens.items()}
    for name, found in tokens.items():
        ids = np.array(found, kind)
        np.save(tmp_path / "dataset" / f"{name}.npy", ids)
        metadata["tokens_sha256"][name] = hashlib.sha256(ids.tobytes()).hexdigest()
    integrity.write_json(tmp_path / "dataset" / "dataset.json", metadata)
    after = data.load(tmp_path / "dataset").tokens
    assert data.windows(after["train"], starts, 32).tolist() == [tokens["train"][i : i + 32] for i in range(8)]
