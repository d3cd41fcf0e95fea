"""The folder of a playground: index.html, and beside it model.js and runtime.js, which hold files as base64.

A page from file:// may load scripts and nothing else, so model and runtime are scripts. The same folder works from any
static server or bucket.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from core import storage
from core.names import inside
from core.text.config import GAP
from serving.export import folder as plain
from serving.export.source import ImageSource, TextSource
from serving.playground.runtime import LICENCE, MODULE, WASM

WEB = Path(__file__).parent / "web"
SCRIPTS = ("noise.js", "tokens.js", "sampling.js", "page.js")
PAGE, MODEL, RUNTIME = "index.html", "model.js", "runtime.js"
STEPS = (4, 6, 8, 12, 16, 24, 32, 48, 64)


def write(folder: Path, source: ImageSource | TextSource, graph: bytes, runtime: Mapping[str, bytes], name: str,
          prompt: str) -> None:  # fmt: skip
    """Writes the page of a model.

    Args:
        folder: where to.
        source: the model, and how it is sampled.
        graph: denoiser.onnx of images, step.onnx of text.
        runtime: the files of ONNX Runtime Web.
        name: of the model, for the title.
        prompt: of a text model, to begin with.
    """
    config, view = _images(source) if isinstance(source, ImageSource) else _text(source, prompt)
    packed = gzip.compress(runtime[WASM], 9, mtime=0)
    sources = {"module": _base64(runtime[MODULE]), "wasm": _base64(packed)}
    storage.write_bytes(folder / RUNTIME, f"/* {LICENCE} */\nconst RUNTIME = {json.dumps(sources)};\n".encode())
    model = {"config": config, "onnx": _base64(graph)}
    storage.write_bytes(folder / MODEL, f"const MODEL = {json.dumps(model)};\n".encode())
    script = "\n".join(inside(WEB, one).read_text(encoding="utf-8") for one in SCRIPTS)
    loader = FileSystemLoader(WEB)
    page = Environment(
        loader=loader, autoescape=select_autoescape(["html"]), undefined=StrictUndefined, trim_blocks=True
    )
    html = page.get_template("page.html").render(
        title=name, style=Markup((WEB / "page.css").read_text(encoding="utf-8")), script=Markup(script),
        footer=LICENCE, steps=steps_of(source), default_steps=source.settings.steps, **view,
    )  # fmt: skip
    storage.write_bytes(folder / PAGE, html.encode())


def steps_of(source: ImageSource | TextSource) -> list[int]:
    """The numbers of steps that can be chosen, that of the measured samples among them."""
    return sorted({*STEPS, source.settings.steps})


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _images(source: ImageSource) -> tuple[dict[str, Any], dict[str, Any]]:
    facts = plain.image_facts(source)
    config = {key: facts[key] for key in ("modality", "shape", "classes", "no_class")}
    config["autoguidance"] = source.settings.autoguidance
    config["tables"] = {str(steps): source.table_for(steps).json() for steps in steps_of(source)}
    classes, (_, height, width) = facts["classes"], facts["shape"]
    view = {
        "modality": "images", "classes": classes, "first": min(7, len(classes) - 1), "width": width, "height": height,
        "guidance": source.settings.guidance, "most_guidance": max(4.0, source.settings.guidance), "verb": "Draw",
        "lead": "Watch noise become an image.",
    }  # fmt: skip
    return config, view


def _text(source: TextSource, prompt: str) -> tuple[dict[str, Any], dict[str, Any]]:
    config = plain.text_facts(source)
    saved = source.trained.tokenizer.to_json()
    if saved["kind"] == "bpe":
        config["merges"] = merges(saved["tokenizer"])
    block, context = source.block, config["context"]
    view = {
        "modality": "text", "prompt": prompt, "temperature": source.settings.temperature, "verb": "Write",
        "gap": min(source.settings.gap, config["largest_block"] - 1), "most_gap": config["largest_block"] - 1,
        "block": block, "length": min(4 * block, context), "most_length": context,
        "lead": f"Watch words settle: after what you type, or where {GAP} stands.",
    }  # fmt: skip
    return config, view


def merges(saved: Mapping[str, Any]) -> list[list[str]]:
    """The pairs that byte-level BPE joins, in order; a character of Latin-1 for each byte."""
    from core.text.bpe import byte_letters

    of = {letter: chr(byte) for byte, letter in enumerate(byte_letters())}
    pairs = [one.split(" ") if isinstance(one, str) else one for one in saved["model"]["merges"]]
    return [["".join(of[letter] for letter in part) for part in pair] for pair in pairs]
