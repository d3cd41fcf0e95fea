"""Measures of text against counts by hand, scipy, and brute force."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from core.text import long_text, metrics
from core.text.metrics import NGramJudge

SMALL = st.text(alphabet="ab c", max_size=40)


def test_words_are_folded_and_keep_inner_apostrophes() -> None:
    assert metrics.words("'Tis I'll THE cat_2 -- o'er; don''t") == ["tis", "i'll", "the", "cat", "o'er", "don", "t"]


def test_validity_leaves_out_words_that_a_window_has_cut() -> None:
    vocabulary = {"the", "cat", "sat"}
    assert metrics.word_validity(["ecut the cat xyz on ma"], vocabulary) == pytest.approx(2 / 4)
    assert metrics.word_validity(["x the catt sat y"], vocabulary | {"catt"}, letters=4) == 1
    assert metrics.word_validity([""], vocabulary) == 0


@given(SMALL.filter(bool))
def test_entropy_is_scipys(text: str) -> None:
    _, counts = np.unique(list(text), return_counts=True)
    p = counts / counts.sum()
    assert metrics.entropy(text) == pytest.approx(float(-(p * np.log(p)).sum()), abs=1e-9)


@given(SMALL.filter(bool), SMALL.filter(bool))
def test_js_divergence_of_characters_is_scipys(first: str, second: str) -> None:
    letters = sorted(set(first + second))
    p, q = ([text.count(letter) for letter in letters] for text in (first, second))
    expected = jensenshannon(p, q, base=2) ** 2
    assert metrics.js_divergence([first], [second], 1) == pytest.approx(float(np.nan_to_num(expected)), abs=1e-9)


def test_js_divergence_runs_from_alike_to_disjoint_and_texts_do_not_run_together() -> None:
    assert metrics.js_divergence(["abab"], ["abab"], 3) == 0
    assert metrics.js_divergence(["aaaa"], ["bbbb"], 2) == 1
    assert metrics.ngrams(["ab", "cd"], 2) == {"ab": 1, "cd": 1}


@given(SMALL, st.integers(1, 9))
def test_words_of_a_text_that_is_read_in_blocks_are_its_words(text: str, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "BLOCK", size)
        known = metrics.known_words(text, ["a", "ab", "ba", "nowhere"])
    if all(len(run) < size for run in text.split(" ")) and "  " not in text:  # else a word is cut where a block ends
        assert known == {"a", "ab", "ba"} & set(metrics.words(text))


def test_distinct_falls_with_repetition() -> None:
    assert metrics.distinct(["a b c d"], 2) == 1
    assert metrics.distinct(["a b a b a b"], 2) == pytest.approx(2 / 5)


def test_witten_bell_by_hand() -> None:
    judge = NGramJudge("abac", 2)
    uniform = 1 / 4  # three characters and one for all unseen
    single = (2 + 3 * uniform) / (4 + 3)  # a: twice of four, three kinds
    after_b = (1 + 1 * single) / (1 + 1)  # after b came a, once, one kind
    assert judge.probability("", "a") == pytest.approx(single)
    assert judge.probability("b", "a") == pytest.approx(after_b)
    assert judge.nats_per_character(["ba"]) == pytest.approx(-(math.log((1 + 3 / 4) / 7) + math.log(after_b)) / 2)


@settings(deadline=None, max_examples=30)
@given(st.text(alphabet="abcd", min_size=5, max_size=60), st.text(alphabet="abcde", max_size=6), st.integers(1, 5))
def test_the_judge_is_a_probability_law_in_every_context(text: str, context: str, order: int) -> None:
    judge = NGramJudge(text, order)
    letters = sorted(set(text))
    unseen = judge.probability(context, "\0")
    assert sum(judge.probability(context, letter) for letter in letters) + unseen == pytest.approx(1)


def test_the_judge_of_a_text_larger_than_memory_counts_stretches_of_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "COUNTED", 30)
    monkeypatch.setattr(long_text, "BLOCK", 10)
    judge = NGramJudge("a" * 45 + "b" * 10 + "c" * 45, 1)
    assert judge.counted == 30
    assert judge.sha256 == NGramJudge("a" * 10 + "b" * 10 + "c" * 10, 1).sha256
    assert judge.probability("", "b") == pytest.approx((10 + 3 / 4) / (30 + 3))


def test_more_context_is_less_surprise_and_noise_is_more() -> None:
    text = "the cat sat on the mat and the dog sat on the log. " * 40
    judges = [NGramJudge(text, order) for order in (1, 2, 3)]
    surprises = [judge.nats_per_character(["the dog sat on the mat."]) for judge in judges]
    assert surprises == sorted(surprises, reverse=True)
    assert judges[2].nats_per_character(["tgo aem.hd s"]) > 2 * surprises[2]


def test_real_text_has_the_floor_and_noise_is_far_from_it() -> None:
    text = "the cat sat on the mat and the dog lay on the log. " * 40
    judge = NGramJudge(text, 5)
    real = metrics.measure([text[:400]], [text[500:900]], text, {"the", "cat", *metrics.words(text)}, judge)
    noise = metrics.measure(["xq zzv kkw " * 30], [text[500:900]], text, {"the", "cat", *metrics.words(text)}, judge)
    assert real["word_validity"] == 1
    assert noise["word_validity"] == 0
    assert all(real[f"js_{order}"] < noise[f"js_{order}"] for order in (1, 2, 3, 4))
    assert real["judge_nll"] < noise["judge_nll"]
    assert real["longest_copy"] == 400
    assert real["copies_over_50"] == 1
