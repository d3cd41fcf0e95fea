"""Sections of a text run: samples of every mode, text out of noise, likelihood, frontier, fusion, context learned."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby

from core.evaluation import ChainBits, FrontierPoint, FusionCurve, FusionExample, Likelihood
from core.text.glossary import ENTROPY, JUDGE_NLL
from report.artifacts import Artifacts, Json, number
from report.charts import Axis, Chart, Series, line_chart
from report.sections import Section, absent, mapping
from report.words import compact, count, figure

MODES = {
    "diffusion": ("Diffusion", "All positions at once, out of noise."),
    "autoregressive": ("Autoregressive", "The control of equal size, one token after the other."),
    "guided": ("Guided", "Diffusion and the autoregressive model together."),
    "infill": ("Infill", "The marked part is new; both sides were given."),
}
PER_MODE, PATH_TEXTS, PATH_FRAMES, TEXT_LENGTH = 8, 6, 80, 1200
SIDE = 90  # characters of context shown on each side of a held-out middle
GAP = "___"


def samples(artifacts: Artifacts) -> Section:
    """Samples side by side, a column for each mode."""
    rows = [row for row in artifacts.samples.lines("samples.jsonl") if isinstance(row.get("text"), str)]
    if not rows:
        return absent("samples", "Samples", "This run made no samples.")
    order = {mode: index for index, mode in enumerate(MODES)}
    rows.sort(key=lambda row: (order.get(str(row.get("mode")), 99), str(row.get("mode"))))
    modes = []
    for mode, group in groupby(rows, key=lambda row: str(row.get("mode") or "text")):
        texts = list(group)
        title, note = MODES.get(mode, (mode.capitalize(), ""))
        modes.append(
            {
                "id": mode,
                "title": title,
                "note": note,
                "total": count(len(texts)),
                "texts": [
                    {
                        "parts": parts(str(row["text"])[:TEXT_LENGTH], str(row.get("prompt") or "")),
                        "seed": row.get("seed"),
                    }
                    for row in texts[:PER_MODE]
                ],
            }
        )
    return Section(
        "samples",
        "Samples",
        "samples_text.html",
        {"modes": modes},
        lead="Drawn in order, none picked. Given text is grey, generated text is dark.",
    )


def parts(text: str, prompt: str) -> list[tuple[str, bool]]:
    """`text` split into pieces, each with whether it was given (prompt or surroundings of an infill)."""
    if GAP in prompt:
        before, _, after = prompt.partition(GAP)
        end = len(text) - len(after)
        if text.startswith(before) and text.endswith(after) and end >= len(before):
            return [one for one in ((before, True), (text[len(before) : end], False), (after, True)) if one[0]]
    elif prompt and text.startswith(prompt):
        return [one for one in ((prompt, True), (text[len(prompt) :], False)) if one[0]]
    return [(text, False)]


def path(artifacts: Artifacts) -> Json | None:
    """Texts at each noise level, as the pieces that their tokens stand for."""
    frames = []
    for row in artifacts.samples.lines("trajectory.jsonl"):
        tokens = row.get("tokens")
        if isinstance(tokens, list) and tokens and all(isinstance(one, list) for one in tokens):
            frames.append((number(row.get("gamma")), [[str(piece) for piece in one] for one in tokens[:PATH_TEXTS]]))
    if len(frames) < 2:
        return None
    steps = list(range(len(frames)))
    if len(frames) > PATH_FRAMES:
        step = (len(frames) - 1) / (PATH_FRAMES - 1)
        steps = [round(index * step) for index in range(PATH_FRAMES)]
        frames = [frames[index] for index in steps]
    number_of = min(len(texts) for _, texts in frames)
    return {
        "texts": [[one[:TEXT_LENGTH] for one in texts[:number_of]] for _, texts in frames],
        "sigmas": [value for value, _ in frames],
        "labels": ["" if value is None else figure(value) for value, _ in frames],
        "steps": steps,
        "symbol": "γ",
    }


def likelihood(artifacts: Artifacts) -> Section:
    """Bits per character of held-out text against evaluations a token, with the autoregressive model's."""
    measured = artifacts.measured.likelihood or Likelihood()
    points = sorted(measured.chains, key=lambda point: point.evaluations)
    series = [
        Series(
            "Diffusion",
            [(point.evaluations, point.bits) for point in points],
            "accent",
            dots=True,
            labels=[_bits(point, measured) for point in points],
        )
    ]
    if points and measured.autoregressive is not None:
        series.append(Series("Autoregressive", [(1.0, measured.autoregressive)], "target", dots=True))
    levels = (("autoregressive", measured.autoregressive), ("bound of many evaluations", measured.bound))
    chart = line_chart(
        "Bits per character by evaluations",
        series,
        Axis("evaluations a token", log=True, room=0.05),
        Axis("bits per character"),
        rules=[(value, f"{name} {figure(value)}") for name, value in levels if value is not None],
        note=f"{count(measured.windows)} windows, {count(measured.characters)} characters of unseen text, the same for "
        f"all models; blocks of {measured.block} tokens, tilt {compact(measured.tilt)}. Lower is better.",
    )
    if chart is None:
        return absent("likelihood", "Likelihood", "Bits per character against evaluations were not measured.")
    return Section(
        "likelihood",
        "Likelihood",
        "charts.html",
        {"charts": [[("", chart)]]},
        lead="What a character of unseen text costs when diffusion may use so many evaluations of its network for a "
        "token. The autoregressive model uses one.",
    )


def _bits(point: ChainBits, measured: Likelihood) -> str:
    """A point of the curve in words, with its difference to the autoregressive model and the standard errors."""
    said = f"{figure(point.bits)}{_error(point.se)} bits per character"
    if point.lanes > 1 or point.block not in (None, measured.block):
        lanes = f" in {point.lanes} lanes" if point.lanes > 1 else ""
        said = f"{said}, {point.steps} steps for {point.block} tokens{lanes}"
    if measured.autoregressive is None or point.difference is None:
        return said
    relation = "above" if point.difference >= 0 else "below"
    return f"{said}, {abs(point.difference):.3f}{_error(point.difference_se)} {relation} autoregressive"


def _error(value: float | None) -> str:
    return "" if value is None else f" ± {value:.3f}"


def frontier(artifacts: Artifacts) -> Section:
    """Judge NLL against entropy while the temperature changes, one curve a mode."""
    by_mode: dict[str, list[FrontierPoint]] = {}
    for point in artifacts.measured.frontier:
        by_mode.setdefault(point.mode, []).append(point)
    styles = ["accent", "ink", "dashed", "faint"]
    order = sorted(by_mode, key=lambda mode: list(MODES).index(mode) if mode in MODES else 99)
    series = []
    for index, mode in enumerate(order):
        points = sorted(by_mode[mode], key=lambda point: point.temperature)
        labels = [f"{figure(one.judge_nll)} nats, temperature {compact(one.temperature)}" for one in points]
        pairs = [(one.entropy, one.judge_nll) for one in points]
        title = MODES.get(mode, (mode.replace("_", " ").capitalize(), ""))[0]
        series.append(Series(title, pairs, styles[min(index, 3)], dots=True, labels=labels))
    real_x, real_y = (
        artifacts.metrics[name].floor if name in artifacts.metrics else None for name in (ENTROPY.name, JUDGE_NLL.name)
    )
    if real_x is not None and real_y is not None and series:
        series.append(Series("Real text", [(real_x, real_y)], "target", dots=True))
    chart = line_chart(
        "Frontier over temperature",
        series,
        Axis("entropy, nats per character", room=0.05),
        Axis("judge nats per character"),
        note="Nearer to real text is better. A low judge value at low entropy is only repetition.",
    )
    if chart is None:
        return absent("frontier", "Frontier", "The frontier over temperature was not measured.")
    return Section("frontier", "Frontier", "charts.html", {"charts": [[("", chart)]]})


def fusion(artifacts: Artifacts) -> Section:
    """Nats per character of the true middle against alpha and against w, for every span length, with a slider."""
    spans = [_explorer(curve) for curve in artifacts.measured.fusion]
    kept = [span for span in spans if span is not None]
    if not kept:
        return absent("fusion", "Fusion", "Fusion of the two models was not measured.")
    return Section(
        "fusion",
        "Fusion",
        "fusion.html",
        {"spans": kept},
        lead="Surprise at held-out text when both sides are given, as the diffusion model is given more weight. An "
        "optimum inside means that the two models know different things. The line of reranked drafts is what the "
        "autoregressive model makes of the right side by itself.",
    )


def _explorer(curve: FusionCurve) -> Json | None:
    """The curves of one span length, the weights that the slider steps through, and the held-out middles."""
    title = f"Fusion, {count(curve.span)} characters"
    variants: list[tuple[str, Chart]] = []
    measured: dict[str, list[str]] = {}
    starts: list[int] = []
    for name, key, label, weights, nats, ends in (
        ("Mixing α", "nats_alpha", "α", curve.alpha, curve.nats_alpha, ("autoregressive", "diffusion")),
        ("Bayes w", "nats_w", "w", curve.w, curve.nats_w, ("autoregressive", "")),
    ):
        points = sorted(zip(weights, nats, strict=False))
        chart = _fusion_chart(title, points, label, ends, curve.reranked)
        if chart is not None:
            variants.append((name, chart))
            measured[key] = [
                f"{label} = {compact(x)}: {figure(y)} nats per character, {_gain(points, y)}" for x, y in points
            ]
            starts.append(min(range(len(points)), key=[y for _, y in points].__getitem__))
    if not variants:
        return None
    examples = [_example(one, measured) for one in curve.examples if one.tokens]
    data = {"methods": list(measured.items()), "shades": [example["shades"] for example in examples]}
    last = len(next(iter(measured.values()))) - 1
    return {"variants": variants, "last": last, "start": starts[0], "examples": examples, "facts": data}


def _example(one: FusionExample, measured: Mapping[str, Sequence[str]]) -> Json:
    """A held-out middle between the nearest words of its sides, and the shades of its tokens at each weight."""
    left, right = one.left, one.right
    if len(left) > SIDE:
        left = "… " + left[-SIDE:].partition(" ")[2]
    if len(right) > SIDE:
        right = right[:SIDE].rpartition(" ")[0] + " …"
    nats = {"nats_alpha": one.nats_alpha, "nats_w": one.nats_w}
    shades = {key: _shades(nats[key], len(readings), len(one.tokens)) for key, readings in measured.items()}
    return {"left": left, "right": right, "tokens": one.tokens, "shades": shades}


def _gain(points: list[tuple[float, float]], value: float) -> str:
    """How `value` compares with the first point, where the autoregressive model is alone."""
    change = value - points[0][1]
    if abs(change) < 5e-4:
        return "as the autoregressive model alone"
    return f"{figure(abs(change))} {'less' if change < 0 else 'more'} than the autoregressive model alone"


def _shades(rows: list[list[float]], steps: int, tokens: int) -> list[list[float]]:
    """The probability of each true token at each weight, 0 to 1; empty when it was not recorded."""
    if len(rows) != steps or any(len(row) != tokens for row in rows):
        return []
    return [[round(math.exp(-max(0.0, nats)), 3) for nats in row] for row in rows]


def _fusion_chart(
    title: str, points: list[tuple[float, float]], label: str, ends: tuple[str, str], reranked: float | None
) -> Chart | None:
    if len(points) < 2:
        return None
    best = min(points, key=lambda point: point[1])
    rules = [(points[0][1], f"{ends[0]} {figure(points[0][1])}")]
    if ends[1]:
        rules.append((points[-1][1], f"{ends[1]} {figure(points[-1][1])}"))
    if reranked is not None:
        rules.append((reranked, f"drafts reranked {figure(reranked)}"))
    inside = points[0][0] < best[0] < points[-1][0]
    gain = min(points[0][1], points[-1][1]) - best[1]
    sentence = f"Best at {label} = {compact(best[0])}: {figure(best[1])} nats"
    note = f"{sentence}, {figure(gain)} below the better end." if inside and gain > 0 else f"{sentence}, at an end."
    series = [
        Series("nats per character", points, "accent", dots=True),
        Series("best", [best], "target", dots=True, legend=False),
    ]
    return line_chart(title, series, Axis(label), Axis("nats per character"), rules=rules, note=note)


def context(artifacts: Artifacts) -> Section:
    """Loss per gamma against the posterior that knows no context: the gap is what was learned."""
    rows = sorted(artifacts.measured.gamma_bins, key=lambda row: row.gamma)
    chart = line_chart(
        "Loss by noise level",
        [
            Series("no context (exact posterior)", [(row.gamma, row.no_context) for row in rows], "dashed"),
            Series("this model", [(row.gamma, row.loss) for row in rows], "accent", dots=True),
        ],
        Axis("γ = log σ²/α²"),
        Axis("nats per token", include=(0.0,)),
        note="The gap between the curves is what the model reads from the neighbouring tokens.",
    )
    if chart is None:
        return absent("context", "Context learned", "The loss per noise level was not measured.")
    return Section("context", "Context learned", "charts.html", {"charts": [[("", chart)]]})


def data(artifacts: Artifacts) -> Section:
    """What the model was trained on."""
    facts = artifacts.data_facts
    if not facts:
        return absent("data", "Data", "The data set's description was not given.")
    rows = [(f"{name} characters", count(value)) for name, value in mapping(facts.get("counts")).items()]
    for key in (
        "source",
        "tokenizer",
        "vocabulary",
        "vocabulary_size",
        "characters_per_token",
        "split_seed",
        "content_sha256",
    ):
        if facts.get(key) is not None and not isinstance(facts[key], (dict, list)):
            rows.append((key.replace("_", " "), str(facts[key])))
    return Section("data", "Data", "data.html", {"rows": rows, "grid": [], "picture": None, "balance": []})
