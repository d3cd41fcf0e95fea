"""The one error a user is meant to read."""

from core.printable import printable
from core.secrets import redact

LONGEST = 2_000  # characters of an error's line: more than any of ours, whatever input it repeats


class UserError(Exception):
    """Input that cannot be used: one line naming the file or key, what was found and what is allowed.

    Steps and commands turn it into that line on stderr and exit code 2, without a traceback.
    """

    EXIT_CODE: int = 2

    def __init__(self, message: str) -> None:
        line = " ".join(str(message)[: 2 * LONGEST].split())  # one line, whatever a library put into it
        super().__init__(printable(redact(line, LONGEST)))


class IncomparableError(UserError):
    """A model cannot be measured on another one's data: the line says why."""
