"""What all servers of the tests share: `with` gives the server and closes it."""

from __future__ import annotations

from typing import Self


class Closing:
    """Closed at the end of a `with`."""

    def close(self) -> None:
        """Ends it."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()
