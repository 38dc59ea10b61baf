"""A fleet against a model server by another author: `midwatch bench judged`, shortened to seconds."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from midwatch.orchestration.errors import ConfigError
from midwatch.workers.bench.judged.llmock_run import Judge, Judgement
from midwatch.workers.bench.judged.run import find_shortfalls, run
from midwatch.workers.bench.judged.trial import PROCESSES, THREADS, Contestant, Trial
from midwatch.workers.local.fleet import Fleet

RPM, SECONDS, LATENCY_MS = 240, 5, 50


def judged(contestant: Contestant):
    """Return the judge's report on a fleet that must not lose a job."""
    trial = Trial(contestant, RPM, SECONDS, LATENCY_MS)
    said, lost = trial.run()
    assert lost == 0
    assert said.answered == 2 * trial.jobs
    return said


def test_with_known_limits_only_the_first_burst_is_refused():
    """Other clients have used up the key's current minute. The fleet gets at most as many 429s as the limit has calls a second.

    The run of five seconds is mostly slow start. The benchmark measures the share of 429s and the goodput over two minutes.
    """
    said = judged(Contestant("limits set", {}, spent=True))
    assert said.requests - said.answered <= 2 * RPM // 60
    assert said.verdict == "passed"
    assert said.most_attempts <= 4
    assert said.of_limit > 0.3


def test_unknown_limits_are_learned_from_the_first_answers():
    """Only calls in flight at the first answer may be refused. Then the headers set the rate."""
    said = judged(Contestant("nothing set", spent=True))
    assert said.requests - said.answered <= PROCESSES * THREADS + 2 * RPM // 60
    assert said.verdict == "passed"
    assert said.most_attempts <= 4
    assert said.of_limit > 0.3


def test_a_missed_target_is_reported_with_its_figure():
    """A fleet that may use the saved-up minute is measured with it. The figures of naive retries miss every target."""
    good = Judgement(720, 720, 0.0, 180.0, 1.0, 0.75, 1, "passed")
    assert find_shortfalls(Contestant("limits set", {}), good, 0) == []
    assert find_shortfalls(Contestant("burst too", {"burst_s": 60}), good, 0) == ["goodput 75.0%, expected 95%"]
    bad = Judgement(365, 3_666, 0.846, 83.0, 0.9, 0.9, 12, "175 retry_storm")
    assert find_shortfalls(Contestant("limits set", {}), bad, 155) == [
        "155 jobs lost",
        "goodput 90.0%, expected 95%",
        "84.6% of requests throttled",
        "12 attempts at a call",
        "verdict: 175 retry_storm",
    ]


@pytest.mark.slow
def test_the_judge_detects_a_storm():
    """With the same work, Celery's autoretry on top of the SDK's retries gets more refusals than answers."""
    said, _ = Trial(Contestant("naive", task="naive.autoretry", spent=True), RPM, 20, LATENCY_MS).run()
    assert said.throttled_share > 0.5


def test_an_unknown_contestant_is_refused_with_the_known_names():
    """A contestant with an unknown name is refused before anything starts."""
    with pytest.raises(ConfigError, match=r"no contestant 'nobody'; there are: limits set, .*naive: Celery autoretry"):
        run(only=["nobody"])


def test_without_llmock_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """LLMock is a dependency for developers only."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with Fleet({}, tmp_path) as fleet, pytest.raises(ConfigError, match=r"not installed here: pip install .*\[dev\]"):
        Judge(fleet, 120, 0)
