"""A text that may be longer than memory: in a file, read where it is asked for."""

from __future__ import annotations

import codecs
import os
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from core.errors import UserError

BLOCK = 1 << 20  # characters in memory at once
BETWEEN_WORDS = re.compile(r"(?<=\S)[ \n](?=\S)")


class LongText:
    """Characters [start, stop) of a UTF-8 file. A slice is one too; `str` reads it.

    Args:
        marks: (characters, bytes) before each place that reading can begin at; rising, the last is the file's end.
    """

    def __init__(self, path: Path, marks: Sequence[tuple[int, int]], start: int, stop: int) -> None:
        self._path, self._marks, self._start, self._stop = path, marks, start, stop

    @classmethod
    def written(cls, pieces: Iterable[str], path: Path, limit: int | None = None) -> LongText:
        """The text that `pieces` make, in a new file; all of them are taken, at most `limit` characters kept."""
        marks, count, size = [(0, 0)], 0, 0
        with path.open("wb") as sink:
            for piece in pieces:
                kept = piece if limit is None else piece[: limit - count]
                for start in range(0, len(kept), BLOCK):
                    part = kept[start : start + BLOCK]
                    if count + len(part) - marks[-1][0] > BLOCK:
                        marks.append((count, size))
                    count, size = count + len(part), size + sink.write(part.encode())
        return cls(path, [*marks, (count, size)], 0, count)

    @classmethod
    def opened(cls, path: Path) -> LongText:
        """The text of a file that is there already.

        Raises:
            UserError: it is not UTF-8.
        """
        decoder, marks, count, size = codecs.getincrementaldecoder("utf-8")(), [(0, 0)], 0, 0
        with path.open("rb") as source:
            while data := source.read(BLOCK):
                try:
                    count, size = count + len(decoder.decode(data)), size + len(data)
                except UnicodeDecodeError as error:
                    raise UserError(f"{path}: not UTF-8: {error.reason}") from None
                marks.append((count, size - len(decoder.getstate()[0])))
        return cls(path, marks, 0, count)

    def __len__(self) -> int:
        return self._stop - self._start

    def __getitem__(self, places: slice) -> LongText:
        start, stop, _ = places.indices(len(self))
        return LongText(self._path, self._marks, self._start + start, self._start + max(start, stop))

    def __str__(self) -> str:
        first = bisect_right(self._marks, (self._start + 1,)) - 1
        last = min(bisect_right(self._marks, (self._stop,)), len(self._marks) - 1)
        (before, begin), (_, end) = self._marks[first], self._marks[last]
        with self._path.open("rb") as source:
            source.seek(begin)
            return source.read(end - begin).decode()[self._start - before : self._stop - before]

    def end_file(self) -> None:
        """Ends the file where this text ends; no text of what followed can be read any more."""
        first = bisect_right(self._marks, (self._stop + 1,)) - 1
        before, begin = self._marks[first]
        last = LongText(self._path, self._marks, before, self._stop)
        os.truncate(self._path, begin + len(str(last).encode()))

    def blocks(self) -> Iterator[str]:
        """All of it, at most `BLOCK` characters at a time."""
        for start in range(0, len(self), BLOCK):
            yield str(self[start : start + BLOCK])


def between_words(text: str | LongText, size: int) -> Iterator[str]:
    """`text` in parts of `size` characters or somewhat more, cut where neither a word nor a token crosses.

    That is before a single space or end of line; where there is none in `size` more characters, anywhere.
    """
    held, read = "", 0
    while True:
        while len(held) <= 2 * size and read < len(text):
            held += str(text[read : read + size])
            read += size
        if not held:
            return
        match = BETWEEN_WORDS.search(held, size, 2 * size)
        stop = match.start() if match else 2 * size
        yield held[:stop]
        held = held[stop:]


def stretches(text: str | LongText, most: int) -> Iterator[str]:
    """All of `text`, a block at a time; of one longer than `most` characters, so many in blocks from begin to end."""
    count, places = most // BLOCK, len(text) - BLOCK
    if len(text) <= most:
        yield from (str(text[start : start + BLOCK]) for start in range(0, len(text), BLOCK))
        return
    for index in range(count):
        start = index * places // (count - 1)
        yield str(text[start : start + BLOCK])


class NotUTF8Error(Exception):
    """The first byte that is no UTF-8, and how many are before it."""

    def __init__(self, byte: int, offset: int) -> None:
        super().__init__(f"byte 0x{byte:02x} at offset {offset}")


class Decoding:
    """Bytes of UTF-8 that come in parts become text: without a byte order mark, its line ends LF."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._bytes, self._held, self._begun = 0, "", False
        self.byte_order_mark = self.crlf = False

    def __call__(self, data: bytes, *, end: bool = False) -> str:
        """The text of the next bytes.

        Raises:
            NotUTF8Error: they are no UTF-8.
        """
        waiting = self._decoder.getstate()[0]
        try:
            text = self._held + self._decoder.decode(data, end)
        except UnicodeDecodeError as error:
            raise NotUTF8Error(error.object[error.start], self._bytes - len(waiting) + error.start) from None
        self._bytes += len(data)
        if text and not self._begun:
            self._begun, self.byte_order_mark = True, text.startswith("\ufeff")
            text = text.removeprefix("\ufeff")
        self._held = "\r" if text.endswith("\r") and not end else ""  # of which the next part may begin with LF
        text = text[: len(text) - len(self._held)]
        self.crlf |= "\r\n" in text
        return text.replace("\r\n", "\n")
