"""The token estimate: the last report, plus a learned rate for the text since then."""

from __future__ import annotations

import threading

import pytest

from midwatch.orchestration.protocol.anchor import Anchor
from midwatch.orchestration.tokens.estimate import BOUNDS, MARGIN, PRIOR, Estimator


def test_an_anchor_survives_the_store():
    """It is stored as text. Any other stored value, also of an earlier version, gives no anchor and no error."""
    anchor = Anchor(12_345, 4_000, "openai-compatible:qwen:7b|q4")
    assert Anchor.read(str(anchor)) == anchor
    for text in ("", "w12|", "|", "wa|b|m", "w12|x|m", "w-1|5|m", "12345|4000|m"):
        assert Anchor.read(text) is None, text


def test_before_any_report_the_estimate_is_high():
    """The first estimate assumes the tokenizer that makes the most tokens."""
    assert Estimator().estimate("m", 10_000, None) == 10_000 * PRIOR


def test_only_the_text_since_the_last_call_is_estimated():
    """The provider counted the rest, so an error of the rate affects only the new text."""
    anchor = Anchor(25_000, 23_456, "m")
    assert Estimator().estimate("m", 25_000, anchor) == 23_456
    assert 23_456 < Estimator().estimate("m", 26_000, anchor) < 23_456 + 1_000 * PRIOR


def test_another_models_report_is_no_anchor():
    """Tokenizers differ by half, so a session that changes its model starts again."""
    estimator, anchor = Estimator(), Anchor(25_000, 23_456, "old")
    assert estimator.estimate("new", 1_000, anchor) == estimator.estimate("new", 1_000, None)
    assert estimator.at_most("new", 1_000, anchor) == estimator.at_most("new", 1_000, None)


def test_after_a_compaction_the_last_reports_rate_is_used():
    """The conversation is lighter than its anchor, but of similar text. `at_most` adds a margin."""
    anchor = Anchor(20_000, 25_000, "m")
    assert Estimator().estimate("m", 8_000, anchor) == 10_000
    assert Estimator().at_most("m", 8_000, anchor) == pytest.approx(10_000 * MARGIN, abs=1)


def test_at_most_adds_a_margin_to_the_new_text():
    """It assumes the tokenizer that makes the most tokens, or the learned rate with a margin if that is higher."""
    assert Estimator().at_most("m", 30_000, Anchor(20_000, 20_000, "m")) == 20_000 + 10_000 * PRIOR
    assert Estimator().at_most("m", 30_000, Anchor(20_000, 40_000, "m")) == 40_000 + 20_000 * MARGIN


def test_the_rate_is_learned_from_additions():
    """The newest report counts for three tenths. An addition that is too light changes nothing."""
    estimator = Estimator()
    estimator.learn("m", 10_000, 12_000, None)
    anchor = Anchor(10_000, 12_000, "m")
    estimator.learn("m", 20_000, 20_000, anchor)
    assert estimator.estimate("m", 1_000, None) == pytest.approx(1_000 * (0.7 * 1.2 + 0.3 * 0.8), abs=1)
    assert estimator.estimate("other", 1_000, None) == 1_000 * PRIOR


@pytest.mark.parametrize(("weight", "tokens"), [(0, 10), (1_000, 0), (1_000, 5_000), (1_000_000, 3)])
def test_an_impossible_report_is_ignored(weight: int, tokens: int):
    """A proxy that miscounts must not change the size of every later window."""
    estimator = Estimator()
    estimator.learn("m", weight, tokens, None)
    assert estimator.estimate("m", 1_000, None) == 1_000 * PRIOR


def test_an_overflow_raises_the_rate_up_to_its_bound():
    """It rises by a quarter each time, or to the provider's number."""
    estimator = Estimator()
    estimator.correct("m", 10_000, None)
    assert estimator.estimate("m", 1_000, None) == 1_000 * PRIOR * 1.25
    estimator.correct("m", 10_000, 35_000)
    assert estimator.estimate("m", 1_000, None) == 3_500
    for _ in range(10):
        estimator.correct("m", 10_000, None)
    assert estimator.estimate("m", 1_000, None) == 1_000 * BOUNDS[1]


def test_threads_can_learn_concurrently():
    """All threads of a process share one estimator."""
    estimator = Estimator()

    def work() -> None:
        for number in range(1, 300):
            estimator.learn("m", 3_000 * number, 1_000 * number, None)
            estimator.estimate("m", 3_000, None)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert estimator.estimate("m", 3_000, None) == pytest.approx(1_000, abs=2)
