"""The command line. `textdiffusion --help` lists the commands; none imports its room before it is called."""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module, metadata
from pkgutil import iter_modules
from typing import Annotated, Any

import typer
from typer.main import get_command

from core.errors import UserError
from core.printable import say
from textdiffusion import cli as commands
from textdiffusion.cli.output import warnings_in_a_line

_EXTRA = ("kfp", "google", "google_cloud_pipeline_components", "gcsfs", "croniter")  # of `pipelines`
_ORDER = {"jobs": 0, "runs": 1, "models": 2}  # in --help


def make_app() -> typer.Typer:
    """The application with all commands."""
    app = typer.Typer(
        name="textdiffusion",
        help="Train, sample and judge small diffusion models: here, on Kubeflow and on Vertex AI Pipelines.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(options)
    for module in sorted(iter_modules(commands.__path__), key=lambda module: (_ORDER.get(module.name, 9), module.name)):
        add = getattr(import_module(f"textdiffusion.cli.{module.name}"), "register", None)
        if add is not None:  # every module there that has commands adds them by `register(app)`
            add(app)
    return app


@cache
def command() -> Any:
    """The same as it is called; built once, for a process that calls many."""
    return get_command(make_app())


def options(
    version: Annotated[
        bool, typer.Option("--version", callback=lambda asked: _say_version(asked), is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Train, sample and judge small diffusion models: here, on Kubeflow and on Vertex AI Pipelines."""


def _say_version(asked: bool) -> None:
    if asked:
        say(f"textdiffusion {metadata.version('textdiffusion')}")
        raise typer.Exit


def main(arguments: list[str] | None = None) -> None:
    """Runs a command; what a user is to mend becomes one line on stderr and exit code 2."""
    try:
        with warnings_in_a_line():
            code = command()(arguments, prog_name="textdiffusion", standalone_mode=False)
    except UserError as error:
        say(f"error: {error}", to=sys.stderr)
        code = error.EXIT_CODE
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        say(f"error: {error.name} is not installed: pip install 'textdiffusion[pipelines]'", to=sys.stderr)
        code = UserError.EXIT_CODE
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # `textdiffusion runs | head`
        sys.stderr.close()
        code = 0
    except OSError as error:  # whichever file or drive a command met
        from core.storage.faults import refusal

        say(f"error: {UserError(refusal(error))}", to=sys.stderr)
        code = UserError.EXIT_CODE
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            say(error, lines=True)
            code = 2
        elif type(error).__name__ == "Abort":
            code = 130
        elif hasattr(error, "format_message"):  # click's, or typer's own copy of them
            message = " ".join(error.format_message().split()).replace("Value error, ", "", 1)
            say(f"error: {message}", to=sys.stderr)
            code = 2
        else:
            raise
    raise SystemExit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
