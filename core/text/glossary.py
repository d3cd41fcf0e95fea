"""The metrics of text: what each is called and says. `core/text/evaluation.py` measures them."""

from __future__ import annotations

from core.metrics import SHARE, Definition, table

NATS, BITS = "nats per character", "bits per character"
MODES = "autoregressive|guided|infill"  # of sampling; metrics of diffusion have no mode in their names
CHARACTERS = "[0-9]+"  # of a span of held-out text
EVALUATIONS = r"[0-9]+(\.[0-9]+)?"  # of the network, for a token

WORD_VALIDITY = Definition(
    "word_validity",
    "Real words",
    "Share of words in the samples that exist in the training text.",
    "higher",
    SHARE,
    MODES,
)
WORD_VALIDITY_4 = Definition(
    "word_validity_4",
    "Real words, 4+ letters",
    "Share of longer words that exist in the training text.",
    "higher",
    SHARE,
    MODES,
)
CHAIN = Definition(
    "bits_per_character",
    "Bits per character",
    "Upper bound on the bits per character of unseen text when a token costs so many evaluations of the network, along "
    "the noise levels that sampling takes. The floor is the autoregressive model's.",
    unit=BITS,
    variants=EVALUATIONS,
    counts="evaluations a token",
)
BOUND = Definition(
    "bound_bits_per_character",
    "Bits per character, bound",
    "Upper bound on the bits per character of unseen text with as many evaluations as one likes: the variational bound "
    "along the noise levels that sampling takes. The floor is the autoregressive model's.",
    unit=BITS,
)
DIFFERENCE = Definition(
    "bits_over_autoregressive",
    "Bits above autoregressive",
    "How many bits per character more than the autoregressive model's, on the same windows; below 0 it is better. "
    "Without a number of evaluations, of the bound.",
    unit=BITS,
    variants=EVALUATIONS,
    counts="evaluations a token",
)
JUDGE_NLL = Definition(
    "judge_nll",
    "Judge nats per character",
    "How surprised a separate language model is by the samples. Read it together with entropy.",
    unit=NATS,
    variants=MODES,
)
ENTROPY = Definition(
    "entropy",
    "Character entropy",
    "Variety of characters. Much lower than real text means repetition, higher means noise.",
    "floor",
    NATS,
    MODES,
)
INFILL_ALPHA, INFILL_W = (
    Definition(
        f"infill_{symbol}",
        f"Infill nats per character, {how}",
        f"Surprise at the true middle of held-out text, given both sides, at the weight of {how} "
        "that is best on the other half of the spans.",
        unit=NATS,
        variants=CHARACTERS,
        counts="characters",
    )
    for symbol, how in (("alpha", "mixing α"), ("w", "Bayes w"))
)
INFILL_RERANKED = Definition(
    "infill_reranked",
    "Infill nats per character, drafts reranked",
    "Upper bound on the surprise at the true middle of held-out text when the autoregressive model drafts it and one "
    "draft is drawn by how well the text after it follows: what a right side is worth to that model without diffusion.",
    unit=NATS,
    variants=CHARACTERS,
    counts="characters",
)
COPIES_OVER_50 = Definition(
    "copies_over_50",
    "Samples that recite, 50+ characters",
    "Share of samples with more than 50 characters in a row from the training text.",
    "lower",
    SHARE,
    MODES,
)
LONGEST_COPY = Definition(
    "longest_copy",
    "Longest copy",
    "Longest run of characters shared with the training text. Long runs are recitation.",
    unit="characters",
    variants=MODES,
)
AUTOREGRESSIVE_BITS = Definition(
    "autoregressive_bits_per_character",
    "Bits per character, autoregressive",
    "What the autoregressive model of the same size needs.",
    unit=BITS,
)
INSIDE_BITS = Definition(
    "inside_bits_per_character",
    "Bits per character, autoregressive inside",
    "What the diffusion model needs when its clean stream predicts token after token.",
    unit=BITS,
)
RUNS = ("characters", "pairs of characters", "three characters in a row", "four characters in a row")
N_GRAMS = [
    Definition(
        f"js_{order}",
        f"{order}-gram divergence",
        f"Jensen–Shannon divergence between the counts of {what} in samples and in text.",
        unit="bits",
        variants=MODES,
    )
    for order, what in enumerate(RUNS, 1)
]
DISTINCT_2 = Definition(
    "distinct_2", "Distinct 2-grams", "Share of word pairs that are different: variety.", "higher", SHARE, MODES
)

GLOSSARY = table(
    [
        WORD_VALIDITY,
        WORD_VALIDITY_4,
        CHAIN,
        BOUND,
        DIFFERENCE,
        JUDGE_NLL,
        ENTROPY,
        INFILL_ALPHA,
        INFILL_W,
        INFILL_RERANKED,
        COPIES_OVER_50,
        LONGEST_COPY,
        AUTOREGRESSIVE_BITS,
        INSIDE_BITS,
        *N_GRAMS,
        DISTINCT_2,
    ]
)
