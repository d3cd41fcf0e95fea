"""The one error a user is meant to read."""

from core.printable import printable
from core.secrets import redact

LONGEST = 2_000  # characters of an error's line: more than any of ours, whatever input it repeats
_MARGIN = 1_000  # a token that begins before a cut is not longer


class UserError(Exception):
    """Input that cannot be used: one line naming the file or key, what was found and what is allowed.

    Steps and commands turn it into that line on stderr and exit code 2, without a traceback.
    """

    EXIT_CODE: int = 2

    def __init__(self, message: str) -> None:
        text = str(message)
        if len(text) > LONGEST + _MARGIN:  # the reason is often behind what it repeats
            text = f"{redact(text[: LONGEST + _MARGIN], LONGEST)} {redact(text[-2 * _MARGIN :])[-_MARGIN:]}"
        super().__init__(printable(redact(" ".join(text.split()))))  # one line, whatever a library put into it


class IncomparableError(UserError):
    """A model cannot be measured on another one's data: the line says why."""
