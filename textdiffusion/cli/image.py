"""image: the name of the image that steps run in."""

from __future__ import annotations

from typing import Annotated

import typer

from core.printable import say
from textdiffusion.cli.output import examples


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command("image", epilog=examples("image", "image --remote"))(image)


def image(
    remote: Annotated[bool, typer.Option("--remote", help="Fail if it names no registry.")] = False,
) -> None:
    """Print the image that compile puts into pipelines; its tag is the hash of what is inside it."""
    from core.errors import UserError
    from pipelines.compile import image_name
    from pipelines.settings import load_settings

    name = image_name(load_settings().image)
    host = name.partition("/")[0]
    if remote and ("/" not in name or not ("." in host or ":" in host)):
        raise UserError(
            f"image: {name} names no registry; write `image: REGION-docker.pkg.dev/PROJECT/REPOSITORY/textdiffusion`"
            " into textdiffusion.yaml"
        )
    say(name)
