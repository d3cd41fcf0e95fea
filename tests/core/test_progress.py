import io
import sys

import pytest

from core.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_progress_is_one_line_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("train", 20, "examples") as progress:
        progress.update(10, loss=0.123456)
        progress.update(20)
    said = terminal.getvalue()
    assert said.count("\n") == 1
    assert said.endswith("\n")
    first, second = said.strip("\r\n").split("\r")
    assert first.startswith("train: 10/20 examples")
    assert "loss 0.1235" in first
    assert len(second) >= len(first)  # nothing of the longer line is left


def test_in_a_log_the_end_is_always_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("train", 20, "examples") as progress:
        progress.update(20)
    assert capsys.readouterr().err.startswith("train: 20/20 examples")
