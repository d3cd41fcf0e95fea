"""image: the name of the image that steps run in."""

from __future__ import annotations

from typing import Annotated

import typer

from core.printable import say
from textdiffusion.cli.output import examples


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command("image", epilog=examples("image", "image --remote", "image --push"))(image)


def image(
    remote: Annotated[bool, typer.Option("--remote", help="Fail if it names no registry.")] = False,
    push: Annotated[bool, typer.Option("--push", help="Build it by Cloud Build, and push it.")] = False,
    beam: Annotated[bool, typer.Option("--beam", help="With --push: the image with Apache Beam too.")] = False,
    revision: Annotated[str, typer.Option(help="With --push: the commit that its labels name.")] = "unknown",
    source: Annotated[str, typer.Option(help="With --push: the repository that its labels name.")] = "unknown",
) -> None:
    """Print the image that compile puts into pipelines; its tag is the hash of what is inside it."""
    from core.errors import UserError
    from pipelines.compile import ROOT, image_name
    from pipelines.settings import load_settings

    settings = load_settings()
    name = image_name(settings.image)
    host = name.partition("/")[0]
    if (remote or push) and ("/" not in name or not ("." in host or ":" in host)):
        raise UserError(
            f"image: {name} names no registry; write `image: REGION-docker.pkg.dev/PROJECT/REPOSITORY/textdiffusion`"
            " into textdiffusion.yaml"
        )
    say(name)
    if push:
        from pipelines.vertex import build

        command = build.build_command(settings, name, revision=revision, source=source, beam=beam)
        raise typer.Exit(build.push(command, ROOT))
