"""The error of the token estimate against an exact tokenizer, on recorded sessions and on unusual texts."""

from __future__ import annotations

import itertools
import json
import random
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean

import pytest

from midwatch.orchestration.protocol.anchor import Anchor
from midwatch.orchestration.tokens.estimate import Estimator
from midwatch.orchestration.tokens.weight import weigh, weigh_message
from midwatch.schemas.message import AssistantMessage
from midwatch.workers.bench.context.counting import TokenCounter, token_counter
from midwatch.workers.bench.context.transcripts import Transcript, load

FITTED = ("toolathlon_sessions.jsonl.gz", "tau_retail/trajectories.jsonl.gz")
"""The weights were fitted on half of each of these. The other sessions were not used for the fit."""

UNSEEN = (
    "tau_airline/trajectories.jsonl.gz",
    "tau2_airline_repeated_ids.jsonl.gz",
    "sweagent_function_calling.jsonl.gz",
)


@pytest.fixture(scope="module")
def counter() -> TokenCounter:
    """An exact tokenizer. Without it the test is skipped."""
    counter = token_counter()
    if not counter.exact:
        pytest.skip("no exact tokenizer is installed: pip install 'midwatch[bench]'")
    return counter


def requests(record: Transcript, counter: TokenCounter) -> Iterator[tuple[int, int]]:
    """Weight and tokens of each call that a fleet would make in a recorded session."""
    weight = weigh(record.system) + sum(weigh(tool.model_dump_json()) for tool in record.tools)
    tokens = counter.fixed(record.system, record.tools)
    for message in record.messages:
        if isinstance(message, AssistantMessage) and weight:  # some records begin with an answer
            yield weight, tokens
        weight += weigh_message(message)
        tokens += counter.message(message)


@pytest.mark.parametrize("name", FITTED + UNSEEN)
def test_the_estimate_is_right_on_recorded_sessions(data_dir: Path, counter: TokenCounter, name: str):
    """The mean error is at most 2 %, and after five calls never more than 10 % too low. `at_most` is never too low."""
    estimator = Estimator()
    off: list[float] = []
    for record in load(data_dir / name):
        anchor: Anchor | None = None
        for number, (weight, tokens) in zip(itertools.count(1), requests(record, counter), strict=False):
            if anchor is not None:
                error = (estimator.estimate("m", weight, anchor) - tokens) / tokens
                off.append(abs(error))
                assert number <= 5 or error > -0.1, (record.name, number, error)
                assert estimator.at_most("m", weight, anchor) >= tokens, (record.name, number)
            estimator.learn("m", weight, tokens, anchor)
            anchor = Anchor(weight, tokens, "m")
    assert mean(off) <= 0.02, mean(off)


def numbers(chance: random.Random) -> str:
    """A table of ids."""
    return json.dumps([[round(chance.gauss(0, 100), 3) for _ in range(8)] for _ in range(100)])


def ids(chance: random.Random) -> str:
    """One number a line."""
    return "\n".join(chance.randbytes(16).hex() for _ in range(200))


def encoded(chance: random.Random) -> str:
    """A base64 attachment."""
    return b64encode(chance.randbytes(6_000)).decode()


def chinese(chance: random.Random) -> str:
    """Sentences of common words."""
    words = ("订单", "已经", "发货", "客户", "要求", "退款", "我们", "明天", "会", "处理", "请", "稍等")
    return "。".join("".join(chance.choices(words, k=9)) for _ in range(100))


def logged(chance: random.Random) -> str:
    """Log lines of a server."""
    return "\n".join(
        f"2026-03-0{chance.randint(1, 9)}T10:{chance.randint(10, 59)}:07.{chance.randint(0, 999_999):06}Z worker-"
        f"{chance.randint(1, 99)} INFO order {chance.randint(1, 10**8)} took {chance.randint(1, 9_999)} ms"
        for _ in range(100)
    )


@pytest.mark.parametrize("made", [numbers, ids, encoded, chinese, logged])
def test_a_dense_text_has_the_right_weight(counter: TokenCounter, made: Callable[[random.Random], str]):
    """Its tokens per unit of weight are within 25 % of those of prose. By bytes, the estimate would be wrong threefold."""
    prose = "The customer asked on Monday whether her order could be sent to the new address, and we said that it can. "
    text = made(random.Random(5))
    rate = counter.text(text) / weigh(text)
    assert rate / (counter.text(40 * prose) / weigh(40 * prose)) == pytest.approx(1.0, abs=0.3)
    assert rate < 1.3
