"""How many letters of one cause are replayed at once."""

from __future__ import annotations

from midwatch.orchestration.client.letters.replay_window import MOST_UNDER_WAY, PROBES, ReplayWindow
from midwatch.orchestration.client.letters.replays import Replayed, Verdict

PASSED, FAILED, UNDER_WAY = Verdict.PASSED, Verdict.FAILED, Verdict.UNDER_WAY


def fill(window: ReplayWindow) -> int:
    """Replay as many letters as the window allows."""
    free = window.count_free()
    window.add(Replayed(f"job-{n}", "s", "1") for n in range(free))
    return free


def test_first_batch_is_a_few_probes_and_waits_for_them():
    """While the probes are under way, no other letter is replayed, even if one or two are known."""
    window = ReplayWindow()
    assert fill(window) == PROBES
    assert fill(window) == 0
    window.learn([PASSED, FAILED, *[UNDER_WAY] * 3])
    assert fill(window) == 0
    assert not window.closed


def test_batches_double_while_letters_pass():
    """Up to a ceiling."""
    window, sizes = ReplayWindow(), []
    for _ in range(10):
        fill(window)
        sizes.append(len(window.under_way))
        window.learn([PASSED] * len(window.under_way))
    assert sizes == [5, 10, 20, 40, 80, 160, 320, 500, 500, 500]
    assert window.size == MOST_UNDER_WAY


def test_batch_that_mostly_fails_again_closes_the_window():
    """A cause that is still there costs one batch of probes."""
    window = ReplayWindow()
    fill(window)
    assert window.learn([FAILED, FAILED, FAILED, UNDER_WAY, UNDER_WAY]) == (0, 3)
    assert window.closed
    assert fill(window) == 0


def test_cause_that_comes_back_closes_a_large_window():
    """More than half of a batch failed again. What is under way goes on."""
    window = ReplayWindow()
    for _ in range(3):
        fill(window)
        window.learn([PASSED] * len(window.under_way))
    fill(window)
    window.learn([*[FAILED] * 21, *[UNDER_WAY] * 19])
    assert window.closed
    assert len(window.under_way) == 19


def test_few_letters_that_all_fail_close_the_window():
    """Three letters are fewer than a batch."""
    window = ReplayWindow()
    window.add(Replayed(f"job-{n}", "s", "1") for n in range(2))
    window.learn([FAILED, FAILED])
    assert not window.closed, "a rate may have held the other probes back"
    window.learn([], no_more=True)
    assert window.closed


def test_single_failures_do_not_close_the_window():
    """One letter in three may have another cause."""
    window = ReplayWindow()
    for _ in range(6):
        fill(window)
        n = len(window.under_way)
        window.learn([FAILED] * (n // 3) + [PASSED] * (n - n // 3))
    assert not window.closed
    assert window.size == 160 * 2
