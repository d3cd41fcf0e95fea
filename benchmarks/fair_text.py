"""Text by rules that are equal for all: one tokenizer, backbone and budget of examples, settings chosen on validation.

    python -m benchmarks.fair_text --data_dir FILE --seconds 300    # one GPU; two cores: --seconds 40000
    python -m benchmarks.fair_text --tiny                           # every part of it, in minutes, on Python's help
    python -m benchmarks.fair_text --show build/benchmarks/fair-text.json   # tables and picture of what is there

An autoregressive model, masked diffusion of all positions (MDLM), of blocks (BD3-LM), filling in the middle, and ours.
Each has three learning rates, of which the lowest loss on validation text after a short run (`--select` examples) is
taken, and then one training with each seed, the first seed of all first. Its weights are the best of ten looks at
validation text. What begins as an autoregressive model spends two fifths of its examples there. All is reported on
test text: bits per character (a bound, but for what reads from left to right) against evaluations a token; what two
judges say of samples beside their entropy; gaps between whole tokens, with the right side given.

`fair-text.json` is written again after each training, so a run that is cut off at `--seconds` still gives tables.
`--work` keeps the weights of trainings: one that was cut off while it was measured is not trained again.
Nothing is downloaded. Examples are windows: one costs diffusion in blocks about twice what it costs others (see the
seconds, which say something only with `--workers 1`).
"""

from __future__ import annotations

import statistics
from argparse import Namespace
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from benchmarks.comparison import Comparison, Key, Task, compare, spread
from benchmarks.fair_text_measures import Facts, Sizes
from benchmarks.fair_text_tasks import FIELD, Contender, full, judged, short, started
from benchmarks.results import parser, publish
from benchmarks.text import WARM_SHARE
from core.modality import run_here
from core.requests import PrepareDataRequest
from core.text import ratios

RATES = (0.01, 0.02, 0.04)  # Muon's
FIRST = FIELD[0].name  # what others are compared with
JUDGE_AND_COLD, STARTS, WARM = 0.25, 0.35, 0.45  # of the seconds, by when: judge and short runs, starts, the others
TINY = {"source": "pydoc", "examples": 80, "select": 40, "seeds": 2, "judge": 40, "vocabulary": 300}
TINY_SIZES = Sizes(64, 32, 1, 2, windows=4, draws=2, count=2, spans=(8,), span_count=3)


class Texts(Comparison[Contender]):
    """All of it, in an order in which a run that is cut off has one seed of everyone first."""

    file, settings, labels = "fair-text.json", ("learning rate",), ("contender", "seed")

    def __init__(self, chosen: Namespace, place: Path) -> None:
        super().__init__(chosen, place, FIELD, ("judge", "starts"))
        self.sizes = TINY_SIZES if chosen.tiny else Sizes(count=chosen.count)
        self.rates = RATES[1:2] if chosen.tiny else RATES

    def run(self) -> Facts:
        self.prepare()
        cold, warm = ([one for one in self.field if one.warm is warm] for warm in (False, True))
        self.do({("judge",): self._judge(), **self._short(cold)}, JUDGE_AND_COLD)
        if not self.found["judge"]:
            raise SystemExit(f"the judge was not trained in {JUDGE_AND_COLD:.0%} of --seconds")
        self.choose(cold)
        rate = self.found["chosen"].get(FIRST, {"learning rate": RATES[1]})["learning rate"]
        first, rest = self._budgets()
        starts: dict[Key, Task] = {
            ("starts", str(seed)): partial(started, self.place, first, rate, seed, self.sizes)
            for seed in (range(self.chosen.seeds) if warm else ())
        }
        self.do(starts, STARTS)
        self.do(self._short(warm), WARM)
        self.choose(warm)
        self.do({key: task for seed in range(self.chosen.seeds) for key, task in self._full(seed, rest)})
        self.workers.close()
        return self.found

    def prepare(self) -> None:
        place = {"source": self.chosen.source, "data_dir": None if self.chosen.tiny else self.chosen.data_dir}
        tokens = {"kind": "bpe", "vocabulary": self.chosen.vocabulary}
        for name, tokenizer in {"dataset": tokens, "characters": {"kind": "characters"}}.items():
            source = {**place, "tokenizer": tokenizer}
            run_here(PrepareDataRequest(modality="text", data=source, out=self.place / name))

    def middle(self, one: Contender) -> Facts:
        return {"learning rate": RATES[1]}

    def _budgets(self) -> tuple[int, int]:
        """Examples of a warm start, and of what comes after it."""
        first = round(WARM_SHARE * self.chosen.examples)
        return first, self.chosen.examples - first

    def _judge(self) -> Task:
        return partial(judged, self.place, self.chosen.judge, self.sizes)

    def _short(self, field: Sequence[Contender]) -> dict[Key, Task]:
        return {
            ("short", one.name, rate): partial(short, self.place, one.name, rate, self.chosen.select, self.sizes)
            for rate in (self.rates if len(self.rates) > 1 else ())
            for one in field
        }

    def _full(self, seed: int, rest: int) -> Iterator[tuple[Key, Task]]:
        for one in self.field:
            rate = self.found["chosen"][one.name]["learning rate"]
            examples = rest if one.warm else self.chosen.examples
            task = partial(full, self.place, one.name, rate, seed, examples, self.sizes)
            yield ("training", one.name, seed), task


def bits_table(found: Facts) -> list[Facts]:
    """Bits per character of each contender by evaluations a token, and how many more than the autoregressive model's.

    Differences are of the same windows and seed; their standard error is that over windows.
    """
    rows: list[Facts] = []
    for name, runs in _trainings(found).items():
        for place, one in enumerate(runs[0]["bits"]):
            values = [_per_character(run["bits"][place]["windows"], found)[0] for run in runs]
            rows.append(
                {
                    "": name,
                    "evaluations a token": one["evaluations"],
                    "bits/char": spread(values) + ("" if one["exact"] else " at most"),
                    "more than autoregressive": _more(runs, place, found) if name != FIRST else None,
                    "trainings": len(runs),
                    "learning rate": found["chosen"][name]["learning rate"],
                    "best at": ", ".join(f"{run['best at'] / run['examples']:.0%}" for run in runs),
                    "training, s": round(statistics.mean(run["training, s"] for run in runs), 1),
                }
            )
    return rows


def _more(runs: Sequence[Facts], place: int, found: Facts) -> str | None:
    """Bits per character above the autoregressive model of the same seed, with the standard error over windows."""
    twins = {run["seed"]: run["bits"][0]["windows"] for run in found["trainings"] if run["contender"] == FIRST}
    pairs = [(run["bits"][place]["windows"], twins[run["seed"]]) for run in runs if run["seed"] in twins]
    if not pairs:
        return None
    each = torch.tensor([[a - b for a, b in zip(*pair, strict=True)] for pair in pairs], dtype=torch.float64)
    value, error = _per_character(each.mean(0).tolist(), found)
    return f"{value:+.3f} ± {error or 0:.3f}"


def _per_character(windows: Sequence[float], found: Facts) -> ratios.Ratio:
    sums, characters = (torch.tensor(one, dtype=torch.float64) for one in (windows, found["judge"]["windows"]))
    return ratios.per_character(sums, characters)


def sample_table(found: Facts) -> list[Facts]:
    """What judges say of samples, beside the autoregressive model at the temperature of as much entropy.

    That is read off the line through its own temperatures; outside of them nothing is said.
    """
    rows: list[Facts] = [{"": "test text", **{key: None for key in ("temperature", "evaluations a token")}}]
    columns = ("entropy", "n-gram judge", "second judge", "words")
    rows[0] |= {column: found["judge"]["test text"][column] for column in columns} | {"autoregressive there": None}
    twins = {run["seed"]: run["samples"] for run in found["trainings"] if run["contender"] == FIRST}
    for name, runs in _trainings(found).items():
        for place, one in enumerate(runs[0]["samples"]):
            made = [(run["seed"], run["samples"][place]) for run in runs]
            row = {"": name, "temperature": one["temperature"], "evaluations a token": one["evaluations"]}
            row |= {column: spread([sample[column] for _, sample in made]) for column in columns}
            there = [at_entropy(twins.get(seed, ()), sample["entropy"]) for seed, sample in made]
            known = [value for value in there if value is not None]
            rows.append(row | {"autoregressive there": spread(known) if known and name != FIRST else None})
    return rows


def at_entropy(twin: Sequence[Facts], entropy: float) -> float | None:
    """The second judge's nats of the autoregressive model's samples where they have this entropy, between two of its
    temperatures."""
    points = sorted((row["entropy"], row["second judge"]) for row in twin)
    for (low, below), (high, above) in pairwise(points):
        if low <= entropy <= high:
            return float(below + (above - below) * (entropy - low) / max(high - low, 1e-9))
    return None


def infill_table(found: Facts) -> list[Facts]:
    """Nats per character of the middle of gaps by each way, and how many more than reranked drafts; by length."""
    spans = {span: one for run in found["trainings"] for span, one in run["infill"].items()}
    marks = {run["seed"]: run["infill"] for run in found["trainings"] if run["contender"] == FIRST}
    rows: list[Facts] = []
    for name, runs in _trainings(found).items():
        for way in dict.fromkeys(way for run in runs for one in run["infill"].values() for way in one["ways"]):
            row: Facts = {"": f"{name}: {way}", "trainings": len(runs)}
            for span, gaps in spans.items():
                characters = torch.tensor(gaps["characters"], dtype=torch.float64)
                each = [(run["seed"], run["infill"][span]["ways"][way]) for run in runs]
                sums = [torch.tensor(nats, dtype=torch.float64) for _, nats in each]
                row[f"{span} characters"] = spread([ratios.per_character(one, characters)[0] for one in sums])
                pairs = [
                    one - torch.tensor(marks[seed][span]["ways"]["drafts reranked"], dtype=torch.float64)
                    for (seed, _), one in zip(each, sums, strict=True)
                    if seed in marks
                ]
                value, error = ratios.per_character(torch.stack(pairs).mean(0), characters) if pairs else (0.0, 0.0)
                row[f"{span}: more than reranked"] = f"{value:+.3f} ± {error or 0:.3f}" if pairs else None
            rows.append(row)
    return rows


def _trainings(found: Facts) -> dict[str, list[Facts]]:
    """Trainings by contender, of those that have one."""
    by = {name: [run for run in found["trainings"] if run["contender"] == name] for name in found["chosen"]}
    return {name: sorted(runs, key=lambda run: run["seed"]) for name, runs in by.items() if runs}


def show(found: Facts, out: Path) -> None:
    """Prints and writes the tables, and a picture where matplotlib is installed."""
    if not found["trainings"]:
        print(f"no training ended: {found['errors'] or 'more --seconds are needed'}")
        return
    arguments = found["arguments"]
    about = f"{arguments['source']}, {arguments['examples']} windows of each training, on {found['measured on']}"
    publish("fair-text", f"Bits per character: {about}", bits_table(found), out, partial(_draw, found))
    publish("fair-text-samples", f"Samples, nats per character: {about}", sample_table(found), out)
    if rows := infill_table(found):
        publish("fair-text-infill", f"Gaps, nats per character of the middle: {about}", rows, out)
    for key, error in found["errors"].items():
        print(f"{key}: {error}")


def _draw(found: Facts, axes: Any) -> None:
    for name, runs in _trainings(found).items():
        for run in runs:
            x = [one["evaluations"] for one in run["bits"]]
            y = [_per_character(one["windows"], found)[0] for one in run["bits"]]
            style = {"color": f"C{list(found['chosen']).index(name)}", "marker": "o", "markersize": 3}
            axes.plot(x, y, label=name if run is runs[0] else None, **style)
            if len(x) == 1:  # what others are compared with
                axes.axhline(y[0], color=style["color"], linewidth=0.5, linestyle="dashed")
    axes.set(xscale="log", xlabel="evaluations a token (log)", ylabel="bits per character, a line a training")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    seen = [one["evaluations"] for run in found["trainings"] for one in run["bits"]]
    axes.set_xticks([2.0**power for power in range(-4, 9) if min(seen) <= 2.0**power <= max(seen)])
    axes.legend(frameon=False, fontsize=7)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--source", default="shakespeare", choices=["shakespeare", "pydoc", "file"])
    options.add_argument("--vocabulary", type=int, default=1024, help="tokens of BPE")
    options.add_argument("--examples", type=int, default=30_000, help="windows of each training, its start counted")
    options.add_argument("--select", type=int, default=4000, help="windows of each short run")
    options.add_argument("--judge", type=int, default=12_000, help="windows of the second judge's training")
    options.add_argument("--count", type=int, default=48, help="texts of each way to sample")
    compare(options, TINY, lambda chosen, place: Texts(chosen, place).run(), show)


if __name__ == "__main__":
    main()
