"""Texts by fewer evaluations a token: words, surprise and variety of one model's samples beside its bits per character.

    python -m benchmarks.text_steps --model RUN/steps/train-diffusion --dataset RUN/steps/prepare-data \
        [--steps 8,16,32] [--tilts 4] [--samplers mixture,ddpm] [--temperature 1] [--count 48]

The first rows are real text and the autoregressive model inside, drawn at the same temperature with one evaluation a
token. Bits are those of a chain with so many steps for a block (core/text/bound.py), whatever the temperature.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.results import parser, publish
from benchmarks.text import judged
from core.metrics import Metric
from core.processes.world import SINGLE_PROCESS, own_device
from core.text import data, held_out
from core.text.config import TextEvaluate, TextSample
from core.text.denoiser import Diffusion
from core.text.glossary import INSIDE_BITS
from core.text.metrics import NGramJudge
from core.text.model import load_model
from core.text.sampling import Writer

COLUMNS = ("word_validity", "word_validity_4", "js_4", "judge_nll", "entropy", "distinct_2")


def row(name: str, values: dict[str, Metric], key: str, **more: float | str | None) -> dict[str, Any]:
    shown = {column: round(getattr(values[column], key), 3) for column in COLUMNS}
    return {"": name, "tilt": None, "sampler": None, "evaluations a token": None, **more, **shown}


def main() -> None:
    options = parser(__doc__)
    for name, what in (("model", "train-diffusion"), ("dataset", "prepare-data")):
        options.add_argument(f"--{name}", type=Path, required=True, help=f"folder that {what} wrote")
    options.add_argument("--steps", default="8,16,32", help="for each block")
    options.add_argument("--tilts", help="of the blocks, separated by commas; default: the largest that was trained")
    options.add_argument("--samplers", default="mixture", help="separated by commas")
    options.add_argument("--temperature", type=float, default=1.0)
    options.add_argument("--count", type=int, default=48, help="texts of each row, as long as the context")
    options.add_argument("--windows", type=int, default=32, help="of held-out text whose bits are measured; 0: none")
    chosen = options.parse_args()
    trained, texts = load_model(chosen.model, own_device()), data.load(chosen.dataset)
    if not isinstance(trained.network, Diffusion):
        raise SystemExit(f"{chosen.model}: objective is {trained.objective}; a diffusion model is needed")
    judge = NGramJudge(texts.long("train"), 5)

    def drawn(mode: str, **changes: Any) -> tuple[Writer, dict[str, Metric]]:
        settings = TextSample.model_validate({"temperature": chosen.temperature, **changes})
        writer = Writer(trained, None, settings, own_device())
        return writer, judged(writer.texts(mode, chosen.count), texts, judge)

    def bits(writer: Writer, evaluations: tuple[float, ...]) -> dict[str, Metric]:
        settings = TextEvaluate(bound_windows=chosen.windows, evaluations_per_token=evaluations)
        return held_out.measure(writer, texts, settings, SINGLE_PROCESS)[0]

    writer, values = drawn("autoregressive")
    rows = [row("real text", values, "floor")]
    rows.append(row("autoregressive inside", values, "value", **{"evaluations a token": 1}))
    if chosen.windows:
        rows[0] |= {"bits/char": None}
        rows[1] |= {"bits/char": bits(writer, ())[INSIDE_BITS.name].value}
    largest = str(trained.config.process.tilt[1])
    wanted = (chosen.tilts or largest).split(","), chosen.samplers.split(","), map(int, chosen.steps.split(","))
    for tilt, sampler, steps in product(*wanted):
        block = trained.config.block(None)  # said, so that bits are of the very chain that draws
        writer, values = drawn("diffusion", block=block, steps=steps, tilt=float(tilt), sampler=sampler)
        evaluations = steps / writer.block
        more = {"tilt": float(tilt), "sampler": sampler, "evaluations a token": evaluations}
        rows.append(row(f"diffusion, {steps} steps", values, "value", **more))
        if chosen.windows:
            rows[-1] |= {"bits/char": bits(writer, (evaluations,))[held_out.chain_name(evaluations)].value}
        print(rows[-1], flush=True)
    characters = values["word_validity"].n
    publish("text-steps", f"{chosen.count} texts, {characters} characters a row, temperature {chosen.temperature:g}",
            rows, chosen.out)  # fmt: skip


if __name__ == "__main__":
    main()
