"""How text is judged: each measure takes plain strings, so that real text gives its floor by the same call."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from core.text.copies import copies
from core.text.long_text import BLOCK, LongText, between_words, stretches

COUNTED = 8 << 20  # characters of the training text, at most, that the n-gram judge is counted on
WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")


def words(text: str) -> list[str]:
    """Words of letters and inner apostrophes, case-folded."""
    return [word.casefold() for word in WORD.findall(text)]


def word_validity(texts: Iterable[str], vocabulary: set[str], letters: int = 1) -> float:
    """Share of words with at least so many letters that are in the vocabulary. Cut words at both ends do not count."""
    long_words = [word for text in texts for word in words(_whole_words(text)) if len(word) >= letters]
    return sum(word in vocabulary for word in long_words) / max(1, len(long_words))


def _whole_words(text: str) -> str:
    """`text` without its first and last piece, which a window may have cut."""
    return " ".join(text.split()[1:-1])


def entropy(text: str) -> float:
    """Entropy of single characters in nats."""
    counts = Counter(text)
    return -sum(count / len(text) * math.log(count / len(text)) for count in counts.values())


def ngrams(texts: Iterable[str], order: int) -> Counter[str]:
    """How often each string of `order` characters occurs; none crosses from one text to the next."""
    return Counter(text[i : i + order] for text in texts for i in range(len(text) - order + 1))


def js_divergence(first: Sequence[str], second: Sequence[str], order: int) -> float:
    """Jensen-Shannon divergence in bits of two texts' character n-grams: 0 if alike, 1 if disjoint."""
    p, q = ngrams(first, order), ngrams(second, order)
    total_p, total_q = max(1, p.total()), max(1, q.total())
    divergence = 0.0
    for gram in sorted(p.keys() | q.keys()):  # a set of strings has another order in every process
        a, b = p[gram] / total_p, q[gram] / total_q
        middle = (a + b) / 2
        divergence += (a * math.log2(a / middle) if a else 0) / 2 + (b * math.log2(b / middle) if b else 0) / 2
    return divergence


def distinct(texts: Iterable[str], order: int) -> float:
    """Different word n-grams over all word n-grams: low where text repeats itself."""
    grams = [gram for text in texts for gram in zip(*(words(text)[i:] for i in range(order)), strict=False)]
    return len(set(grams)) / max(1, len(grams))


def known_words(text: str | LongText, wanted: Iterable[str]) -> set[str]:
    """Those of the `wanted` words that `text` has: one pass, and no vocabulary of all of it in memory."""
    left, known = set(wanted), set[str]()
    for block in between_words(text, BLOCK):
        known |= (seen := left.intersection(words(block)))
        left -= seen
    return known


def judge_sha256(text: str, order: int) -> str:
    """What identifies the n-gram judge of what it is counted on."""
    return hashlib.sha256(f"{order}\0{text}".encode()).hexdigest()


class NGramJudge:
    """A character n-gram model with Witten-Bell smoothing: a judge that no trained model can please by accident.

    Args:
        text: what it is counted on: the training split, or `COUNTED` characters spread over a longer one.
        order: characters of an n-gram; 5 has the lowest surprise at held-out Tiny Shakespeare.
    """

    def __init__(self, text: str | LongText, order: int) -> None:
        text = "".join(stretches(text, COUNTED))
        self.order, self.sha256, self.counted = order, judge_sha256(text, order), len(text)
        self._uniform = 1 / (len(set(text)) + 1)
        self._counts: list[dict[str, Counter[str]]] = []
        for length in range(order):
            table: dict[str, Counter[str]] = defaultdict(Counter)
            for gram, count in Counter(text[i : i + length + 1] for i in range(len(text) - length)).items():
                table[gram[:-1]][gram[-1]] = count
            self._counts.append(dict(table))
        self._totals = [
            {context: (followers.total(), len(followers)) for context, followers in table.items()}
            for table in self._counts
        ]

    def probability(self, context: str, character: str) -> float:
        """p(character | context), interpolated from the shortest context to the longest that was seen."""
        p = self._uniform
        for length in range(min(self.order - 1, len(context)) + 1):
            past = context[len(context) - length :]
            seen = self._totals[length].get(past)
            if seen is None:
                break
            total, kinds = seen
            p = (self._counts[length][past][character] + kinds * p) / (total + kinds)
        return p

    def nats_per_character(self, texts: Iterable[str]) -> float:
        """Mean surprise at texts, each begun without context."""
        total, count = 0.0, 0
        for text in texts:
            for index, character in enumerate(text):
                context = text[max(0, index - self.order + 1) : index]
                total -= math.log(self.probability(context, character))
            count += len(text)
        return total / max(1, count)


def measure(
    texts: Sequence[str], reference: Sequence[str], train: str | LongText, vocabulary: set[str], judge: NGramJudge
) -> dict[str, float]:
    """All measures of texts that need no model.

    Args:
        texts: what is measured.
        reference: real text that the n-grams are compared with.
        train: the training text, which may be longer than memory.
        vocabulary: its words, or those of them that `texts` have (`known_words`).
        judge: counted on it.
    """
    copied = copies(texts, train)
    return {
        "word_validity": word_validity(texts, vocabulary),
        "word_validity_4": word_validity(texts, vocabulary, 4),
        **{f"js_{order}": js_divergence(texts, reference, order) for order in (1, 2, 3, 4)},
        "judge_nll": judge.nats_per_character(texts),
        "entropy": entropy("".join(texts)) if any(texts) else 0.0,
        "distinct_2": distinct(texts, 2),
        "longest_copy": float(copied.longest),
        "copies_over_50": copied.many / max(1, len(texts)),
    }
