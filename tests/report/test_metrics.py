"""A metric is shown by its definition, exactly; of one that nobody defined nothing is guessed."""

from __future__ import annotations

from core.images.glossary import GLOSSARY as IMAGES
from core.metrics import Metric
from core.text.glossary import GLOSSARY as TEXT
from report.metrics import GLOSSARY, label, row


def test_no_name_means_two_metrics_and_each_has_its_words() -> None:
    assert not IMAGES.keys() & TEXT.keys()
    assert len({one.label for one in GLOSSARY.values()}) == len(GLOSSARY)
    assert all(one.label and one.explanation.endswith(".") for one in GLOSSARY.values())


def test_variants_of_a_metric_are_named_after_it() -> None:
    assert label("judge_nll_guided") == "Judge nats per character (guided)"
    assert label("infill_w_32") == "Infill nats per character, Bayes w, 32 characters"
    assert label("bits_per_character_0.5") == "Bits per character, 0.5 evaluations a token"
    assert label("word_validity_4") == "Real words, 4+ letters"


def test_of_an_unknown_metric_only_what_it_states_is_shown() -> None:
    assert label("my_precision") == "My precision"
    shown = row("my_precision", Metric(value=0.5))
    assert (shown["text"], shown["better"], shown["direction"], shown["value"]) == ("", "", "", "0.500")
    assert row("my_precision", Metric(value=0.5, better="lower"))["direction"] == "lower is better"


def test_shares_are_printed_in_per_cent_unless_they_are_none() -> None:
    assert row("precision", Metric(value=0.912, floor=0.958))["value"] == "91.2 %"
    assert row("precision", Metric(value=3.0))["value"] == "3"


def test_every_metric_is_described_and_no_two_alike() -> None:
    said = [one.explanation for one in GLOSSARY.values()]
    assert all(said)
    assert len(set(said)) == len(said)
