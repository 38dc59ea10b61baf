"""The brain that replays recorded conversations: what a real model said, turn by turn, over either vendor's wire.

A conversation is recognised by its first user message, to the letter. When several records share it, the rest of the
request decides: first the system prompt, then how many turns are the same in the same place. Where that is a tie, the
first record in the file answers, and what it says decides the later turns.

Model turn n gets the record's n-th assistant message. Assistant messages before the first user message (a harness's
greeting) are not counted, in the record or in the request.

A record is a list of messages in OpenAI Chat form; in a file, a JSON object with `messages` per line. A conversation
whose first user message was compacted away can't be recognised: give such tests a rule set.
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
    Call,
    Conversation,
    Say,
    Turn,
    UnexpectedCall,
    Use,
)
from midwatch.workers.simulator.vendor_formats.jsontext import dump
from midwatch.workers.simulator.vendor_formats.reading import text_of

Spoken = tuple[str, str, tuple[str, ...]]
"""What two histories are compared by: role, text, names of the tools called. Not ids: clients may rename them."""


@dataclass(frozen=True, slots=True)
class Record:
    """One recorded conversation, from its first user message on."""

    system: str
    spoken: tuple[Spoken, ...]
    answers: tuple[Answer, ...]
    """What the model said, in order."""


class TranscriptBrain:
    """Answers as the records did. `fallback` answers what no record begins like: summaries, judgements."""

    positional = True

    def __init__(self, records: Iterable[Sequence[JsonObject]], *, fallback: Brain | None = None) -> None:
        self.name = "transcript"
        self._fallback = fallback
        self._records: dict[str, list[Record]] = {}
        for number, messages in enumerate(records, 1):
            try:
                record = _record(messages)
            except (KeyError, TypeError, IndexError, AttributeError) as error:
                problem = f"{type(error).__name__}: {error}"
                raise ConfigError(
                    f"transcript, record {number}: expected OpenAI Chat messages, got {problem}"
                ) from error
            self._records.setdefault(record.spoken[0][1], []).append(record)

    @classmethod
    def read(cls, path: Path, *, fallback: Brain | None = None) -> TranscriptBrain:
        """The records of a JSON Lines file, `.gz` or not; raises ConfigError that names what is no record."""
        opened = gzip.open if path.suffix == ".gz" else open
        try:
            with opened(path, "rt", encoding="utf-8") as lines:
                records = [_messages(line, f"transcript {path}, line {n}") for n, line in enumerate(lines, 1)]
        except OSError as error:
            raise ConfigError(f"transcript {path}: can't be read ({error.strerror or error})") from error
        return cls(records, fallback=fallback)

    def answer(self, conversation: Conversation) -> Answer:
        """What the record says next; raises UnexpectedCall when no record begins so, or it is at its end."""
        records = self._records.get(conversation.first_user)
        if records is None:
            if self._fallback is not None:
                return self._fallback.answer(conversation)
            raise UnexpectedCall(f"transcript: no record begins like conversation {conversation.key}")
        history = _since_opening([_heard(turn) for turn in conversation.turns if _counts(turn)])
        turn = 1 + sum(role == "assistant" for role, _, _ in history)
        record = max(records, key=lambda record: _agreement(record, conversation.system, history))
        if turn > len(record.answers):
            raise UnexpectedCall(
                f"transcript: the record has {len(record.answers)} model turns, this asks for turn {turn}"
            )
        return record.answers[turn - 1]


def _agreement(record: Record, system: str, history: Sequence[Spoken]) -> tuple[bool, int]:
    """How well a record fits: same system prompt, then how many turns are the same in the same place."""
    same = sum(mine == theirs for mine, theirs in zip(record.spoken, history, strict=False))
    return record.system == system, same


def _messages(line: str, where: str) -> list[JsonObject]:
    try:
        return list(json.loads(line)["messages"])
    except (ValueError, KeyError, TypeError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{where}: expected a JSON object with `messages`, got {problem}") from error


def _record(messages: Sequence[JsonObject]) -> Record:
    system = "\n\n".join(text_of(each.get("content"), "content") for each in messages if each["role"] == "system")
    heard = [message for message in messages if message["role"] != "system"]
    if not any(message["role"] == "user" for message in heard):
        raise KeyError("no message of a user")
    spoken = _since_opening([_spoken(message) for message in heard])
    opened = heard[len(heard) - len(spoken) :]
    return Record(system, tuple(spoken), tuple(_answer(each) for each in opened if each["role"] == "assistant"))


def _since_opening(spoken: list[Spoken]) -> list[Spoken]:
    first = next((number for number, (role, _, _) in enumerate(spoken) if role == "user"), 0)
    return spoken[first:]


def _counts(turn: Turn) -> bool:
    """Whether a turn of the request can be in a record: not a note, a call spoiled on purpose, or that one's result."""
    calls = (turn.call,) if turn.call else turn.calls
    return turn.role != "note" and not any(call.id.endswith(SPOILED_ID) for call in calls)


def _heard(turn: Turn) -> Spoken:
    return turn.role, turn.text, _names(turn.calls)


def _spoken(message: JsonObject) -> Spoken:
    return message["role"], text_of(message.get("content"), "content"), _names(_calls(message))


def _names(calls: Iterable[Call]) -> tuple[str, ...]:
    return tuple(call.name for call in calls)


def _calls(message: JsonObject) -> tuple[Call, ...]:
    return tuple(_call(call) for call in message.get("tool_calls") or [])


def _call(call: JsonObject) -> Call:
    """One recorded call; some records leave out the `function` around name and arguments, and decode the arguments."""
    function = call.get("function", call)
    arguments = function["arguments"]
    return Call(call.get("id") or "", function["name"], arguments if isinstance(arguments, str) else dump(arguments))


def _answer(message: JsonObject) -> Answer:
    """The recorded turn, ids and raw arguments as they were."""
    text, calls = text_of(message.get("content"), "content"), _calls(message)
    if not calls:
        return Say(text)
    return Use([(call.name, call.arguments) for call in calls], text, [call.id for call in calls])
