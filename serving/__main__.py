"""`python -m serving [MODEL] ...`: the service where only what the image holds is installed."""

from __future__ import annotations

import sys

import typer

from core.errors import UserError
from core.printable import say
from core.storage.faults import every_refusal
from serving.command import serve


def main() -> None:
    """Serves; bad input is one line and exit code 2."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(serve)
    try:
        with every_refusal():
            app(prog_name="serve")
    except UserError as error:
        say(f"error: {error}", to=sys.stderr)
        raise SystemExit(UserError.EXIT_CODE) from None


if __name__ == "__main__":
    main()
