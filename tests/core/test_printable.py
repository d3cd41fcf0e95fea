"""Text from models and files commands no terminal, and stays readable."""

from __future__ import annotations

import io
import json

import pytest

from core.errors import UserError
from core.printable import printable, printable_json, say

HOSTILE = "\x1b[2J\x1b]0;owned\x07\x9b31m\r\x08\x7f\u202egnp\u2066\u2028\ud800"


def test_controls_are_shown_and_not_sent() -> None:
    shown = printable(HOSTILE)
    assert shown.startswith("\\x1b[2J\\x1b]0;owned\\x07\\x9b31m\\r\\x08\\x7f\\u202egnp")
    assert all(character.isprintable() for character in shown)
    assert printable("Größe: 日本 👩‍🔬\n\tx") == "Größe: 日本 👩‍🔬\n\tx"
    assert printable("a\nerror: b", one_line=True) == "a\\nerror: b"


def test_json_keeps_its_value() -> None:
    text = printable_json(json.dumps({"x": HOSTILE}, ensure_ascii=False, indent=1))
    assert json.loads(text) == {"x": HOSTILE}
    assert printable(text) == text


def test_errors_and_lines_are_harmless() -> None:
    assert str(UserError(f"job {HOSTILE}: none")).isprintable()
    stream = io.StringIO()
    say(f"run {HOSTILE}\n", to=stream)
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().rstrip("\n").isprintable()


@pytest.mark.parametrize("error", ["gate: \x1b[31mred"])
def test_a_step_says_its_error_harmlessly(error: str, capsys: pytest.CaptureFixture[str]) -> None:
    from components.step import step

    with pytest.raises(SystemExit), step():
        raise UserError(error)
    assert capsys.readouterr().err == "error: gate: \\x1b[31mred\n"
