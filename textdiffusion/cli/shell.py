"""completion: what a shell needs to complete commands, options, jobs, runs and models."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from core.printable import say
from textdiffusion.cli.output import examples


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command(
        "completion",
        epilog=examples(
            "completion bash >> ~/.bashrc",
            "completion zsh >> ~/.zshrc",
            "completion fish > ~/.config/fish/completions/textdiffusion.fish",
        ),
    )(completion)


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="The shell that will read it.")],
) -> None:
    """Print the script that lets a shell complete commands, options, jobs, runs and models."""
    from typer._completion_shared import get_completion_script

    say(
        get_completion_script(prog_name="textdiffusion", complete_var="_TEXTDIFFUSION_COMPLETE", shell=shell),
        lines=True,
    )
