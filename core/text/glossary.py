"""The metrics of text: what each is called and says. `core/text/evaluation.py` measures them."""

from __future__ import annotations

from core.metrics import SHARE, Definition, table

NATS, BITS = "nats per character", "bits per character"
MODES = "autoregressive|guided|infill"  # of sampling; metrics of diffusion have no mode in their names
CHARACTERS = "[0-9]+"  # of a span of held-out text

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
BOUND = Definition(
    "bound_bits_per_character",
    "Bits per character",
    "Upper bound on the bits the model needs for one character of unseen text. The floor is the autoregressive "
    "model's.",
    unit=BITS,
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
        f"Surprise at the true middle of held-out text, given both sides, at the best weight of {how}.",
        unit=NATS,
        variants=CHARACTERS,
    )
    for symbol, how in (("alpha", "mixing α"), ("w", "Bayes w"))
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
N_GRAMS = [
    Definition(
        f"js_{order}",
        f"{order}-gram divergence",
        "Jensen–Shannon divergence between n-gram counts of samples and text.",
        unit="bits",
        variants=MODES,
    )
    for order in (1, 2, 3, 4)
]
DISTINCT_2 = Definition(
    "distinct_2", "Distinct 2-grams", "Share of word pairs that are different: variety.", "higher", SHARE, MODES
)

GLOSSARY = table(
    [
        WORD_VALIDITY,
        WORD_VALIDITY_4,
        BOUND,
        JUDGE_NLL,
        ENTROPY,
        INFILL_ALPHA,
        INFILL_W,
        COPIES_OVER_50,
        LONGEST_COPY,
        AUTOREGRESSIVE_BITS,
        *N_GRAMS,
        DISTINCT_2,
    ]
)
