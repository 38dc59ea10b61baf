"""A brain that replays recorded conversations of a real model, turn by turn, in any vendor's format.

A conversation is identified by its exact first user message. If several records have the same first message, the record
with the same system prompt is chosen, and then the one with the most equal turns. In a tie, the first record in the
file answers, and its answer decides the later turns.

Model turn n gets the record's n-th assistant message. Assistant messages before the first user message, such as a
greeting, are not counted in the record or in the request.

A record is a list of messages in OpenAI's Chat format. In a file, each line is a JSON object with `messages`. If a
compaction has removed the first user message, the conversation can't be identified; use a rule set for such tests.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from midwatch.orchestration.errors import ConfigError
from midwatch.schemas.contract import JsonObject
from midwatch.workers.simulator.brains.brain import (
    SPOILED_ID,
    Answer,
    Brain,
    Conversation,
    ConversationTurn,
    Say,
    SimulatedCall,
    UnexpectedCall,
    Use,
)
from midwatch.workers.simulator.vendor_formats.compact_json import dump_json
from midwatch.workers.simulator.vendor_formats.request_parsing import extract_text

TurnSummary = tuple[str, str, tuple[str, ...]]
"""Role, text and names of the called tools. Histories are compared by these, not by ids, because clients may rename ids."""


@dataclass(frozen=True, slots=True)
class Record:
    """One recorded conversation, from its first user message on."""

    system: str
    summaries: tuple[TurnSummary, ...]
    answers: tuple[Answer, ...]
    """The model's answers, in order."""


class TranscriptBrain:
    """Answers from the records. `fallback` answers conversations that match no record, such as summaries."""

    positional = True

    def __init__(self, records: Iterable[Sequence[JsonObject]], *, fallback: Brain | None = None) -> None:
        self.name = "transcript"
        self._fallback = fallback
        self._records: dict[str, list[Record]] = {}
        for number, messages in enumerate(records, 1):
            try:
                record = _make_record(messages)
            except (KeyError, TypeError, IndexError, AttributeError) as error:
                problem = f"{type(error).__name__}: {error}"
                raise ConfigError(
                    f"transcript, record {number}: expected OpenAI Chat messages, got {problem}"
                ) from error
            self._records.setdefault(record.summaries[0][1], []).append(record)

    @classmethod
    def read(cls, path: Path, *, fallback: Brain | None = None) -> TranscriptBrain:
        """Read the records of a JSON Lines file, `.gz` or not. Raises a ConfigError that names an invalid line."""
        opened = gzip.open if path.suffix == ".gz" else open
        try:
            with opened(path, "rt", encoding="utf-8") as lines:
                records = [_parse_line(line, f"transcript {path}, line {n}") for n, line in enumerate(lines, 1)]
        except OSError as error:
            raise ConfigError(f"transcript {path}: can't be read ({error.strerror or error})") from error
        return cls(records, fallback=fallback)

    def answer(self, conversation: Conversation) -> Answer:
        """Return the next answer of the record. Raises UnexpectedCall if no record matches or the record has ended."""
        records = self._records.get(conversation.first_user)
        if records is None:
            if self._fallback is not None:
                return self._fallback.answer(conversation)
            raise UnexpectedCall(f"transcript: no record begins like conversation {conversation.key}")
        history = _since_opening([_summarize_turn(turn) for turn in conversation.turns if _can_be_recorded(turn)])
        turn = 1 + sum(role == "assistant" for role, _, _ in history)
        record = max(records, key=lambda record: _score_match(record, conversation.system, history))
        if turn > len(record.answers):
            raise UnexpectedCall(
                f"transcript: the record has {len(record.answers)} model turns, this asks for turn {turn}"
            )
        return record.answers[turn - 1]


def _score_match(record: Record, system: str, history: Sequence[TurnSummary]) -> tuple[bool, int]:
    """Score how well a record matches: the same system prompt counts first, then the number of equal turns."""
    same = sum(mine == theirs for mine, theirs in zip(record.summaries, history, strict=False))
    return record.system == system, same


def _parse_line(line: str, where: str) -> list[JsonObject]:
    try:
        return list(json.loads(line)["messages"])
    except (ValueError, KeyError, TypeError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{where}: expected a JSON object with `messages`, got {problem}") from error


def _make_record(messages: Sequence[JsonObject]) -> Record:
    system = "\n\n".join(extract_text(each.get("content"), "content") for each in messages if each["role"] == "system")
    messages_without_system = [message for message in messages if message["role"] != "system"]
    if not any(message["role"] == "user" for message in messages_without_system):
        raise KeyError("no user message")
    summaries = _since_opening([_summarize_message(message) for message in messages_without_system])
    opened = messages_without_system[len(messages_without_system) - len(summaries) :]
    return Record(system, tuple(summaries), tuple(_make_answer(each) for each in opened if each["role"] == "assistant"))


def _since_opening(summaries: list[TurnSummary]) -> list[TurnSummary]:
    first = next((number for number, (role, _, _) in enumerate(summaries) if role == "user"), 0)
    return summaries[first:]


def _can_be_recorded(turn: ConversationTurn) -> bool:
    """Return True if a turn can be in a record. Notes, spoiled calls and the results of spoiled calls can't."""
    calls = (turn.call,) if turn.call else turn.calls
    return turn.role != "note" and not any(call.id.endswith(SPOILED_ID) for call in calls)


def _summarize_turn(turn: ConversationTurn) -> TurnSummary:
    return turn.role, turn.text, _names(turn.calls)


def _summarize_message(message: JsonObject) -> TurnSummary:
    return message["role"], extract_text(message.get("content"), "content"), _names(_read_calls(message))


def _names(calls: Iterable[SimulatedCall]) -> tuple[str, ...]:
    return tuple(call.name for call in calls)


def _read_calls(message: JsonObject) -> tuple[SimulatedCall, ...]:
    return tuple(_read_call(call) for call in message.get("tool_calls") or [])


def _read_call(call: JsonObject) -> SimulatedCall:
    """Read one recorded call. Some records have no `function` around name and arguments, or have parsed arguments."""
    function = call.get("function", call)
    arguments = function["arguments"]
    return SimulatedCall(
        call.get("id") or "", function["name"], arguments if isinstance(arguments, str) else dump_json(arguments)
    )


def _make_answer(message: JsonObject) -> Answer:
    """Make the answer of a recorded turn, with its original ids and arguments."""
    text, calls = extract_text(message.get("content"), "content"), _read_calls(message)
    if not calls:
        return Say(text)
    return Use([(call.name, call.arguments) for call in calls], text, [call.id for call in calls])
