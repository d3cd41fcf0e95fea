"""The one error a user is meant to read."""

from core.printable import printable
from core.secrets import redact


class UserError(Exception):
    """Input that cannot be used: one line naming the file or key, what was found and what is allowed.

    Steps and commands turn it into that line on stderr and exit code 2, without a traceback.
    """

    EXIT_CODE: int = 2

    def __init__(self, message: str) -> None:
        super().__init__(printable(redact(" ".join(str(message).split()))))  # one line, whatever a library put into it


class IncomparableError(UserError):
    """A model cannot be measured on another one's data: the line says why."""
