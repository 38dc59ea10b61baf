"""The summarizer that lets a model write the prose. The facts ledger is made without it, and a bad answer is dropped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from midwatch.orchestration.context.decisions import MAX_SENTENCE_CHARS
from midwatch.orchestration.context.fact_ledger import absorb_facts
from midwatch.orchestration.context.facts import Kind, kind_of
from midwatch.orchestration.context.open_items import MAX_ITEMS
from midwatch.orchestration.context.prompt import ANSWER, SYSTEM, chunks
from midwatch.orchestration.context.render import UNTRUSTED
from midwatch.orchestration.context.scan import clean, pieces
from midwatch.orchestration.context.summary_extractive import ExtractiveSummarizer, advance_memory, limit_prose
from midwatch.orchestration.context.taint import mark_untrusted
from midwatch.orchestration.drift.leftovers.thinking import separate_thinking
from midwatch.orchestration.errors import MidwatchError, StoreUnavailable
from midwatch.schemas.memory import Memory
from midwatch.schemas.message import Message, UserMessage
from midwatch.schemas.model import ModelReply, ModelRequest, Stop, Usage

BYTES_PER_TOKEN = 2.5
"""Deliberately low, so that a chunk never has more tokens than allowed."""

MAX_CALLS = 16
"""Most calls of one compaction. Older chunks beyond it are in the facts ledger and the archive, but not in the prose."""

CHECKED = (Kind.ID, Kind.AMOUNT, Kind.DATE)
"""Kinds of values that must occur in the source. A sentence with an invented one is dropped."""


@dataclass(frozen=True)
class Summary:
    """The new memory, the tokens used, and why the model's summary was not used, if so."""

    memory: Memory
    usage: Usage = field(default_factory=Usage)
    fell_back: str = ""


@dataclass(frozen=True)
class _Sentence:
    text: str
    from_tool: bool


@dataclass(frozen=True)
class _Answer:
    happened: tuple[_Sentence, ...]
    open: tuple[_Sentence, ...]


class UnusableAnswer(MidwatchError):
    """Raised when the model's answer can't be used. The message says why, without the answer's text."""


class ModelSummarizer:
    """Summarizes chunk by chunk. Each call gets the answer of the one before, so its input has a limit for any archive."""

    def __init__(
        self,
        complete: Callable[[ModelRequest], ModelReply],
        model: str,
        *,
        input_tokens: int = 24_000,
        output_tokens: int = 1_500,
        timeout_s: float = 60.0,
    ) -> None:
        self._complete = complete
        self._model = model
        self._chunk_bytes = int(input_tokens * BYTES_PER_TOKEN) - len(SYSTEM)
        self._output_tokens = output_tokens
        self._timeout_s = timeout_s
        if self._chunk_bytes < 1_000:
            raise ValueError(f"input_tokens={input_tokens} leaves no room for a transcript; give it 2,000 or more")

    def summarize(
        self,
        memory: Memory,
        groups: Sequence[Message],
        room_bytes: int,
        *,
        live: Sequence[Message] = (),
        pinned: str = "",
    ) -> Summary:
        """Like `ExtractiveSummarizer.summarize`, with prose. Falls back to that on any failure, and returns the reason."""
        plain = ExtractiveSummarizer().summarize(memory, groups, room_bytes, live=live, pinned=pinned)
        spent: list[Usage] = []
        try:
            answer = self._ask_model(memory, groups, spent)
            happened, still_open = _check_answer(answer, memory, groups, pinned)
            if not happened:
                raise UnusableAnswer("no sentence of the answer could be kept")
            if len("\n".join(happened).encode()) >= sum(_text_bytes(message) for message in groups):
                raise UnusableAnswer("the summary is not shorter than the messages that it replaces")
        except StoreUnavailable:
            raise
        except Exception as error:
            return Summary(plain, _total(spent), _why(error))
        written = advance_memory(memory, groups, summary="\n".join(happened), items=still_open[-MAX_ITEMS:])
        written = limit_prose(written, room_bytes)
        return Summary(absorb_facts(written, groups, room_bytes, live=live, pinned=pinned), _total(spent))

    def _ask_model(self, memory: Memory, groups: Sequence[Message], spent: list[Usage]) -> _Answer:
        """Call the model with the newest chunks, in order. The notes so far take at most a quarter of each request."""
        answer = _Answer(_read_marked(memory.summary.splitlines()), _read_marked(memory.open_items))
        for chunk in list(chunks(groups, self._chunk_bytes * 3 // 4))[-MAX_CALLS:]:
            known = json.dumps(
                {"happened": _to_dicts(answer.happened), "open": _to_dicts(answer.open)}, ensure_ascii=False
            )
            known = known.encode()[: self._chunk_bytes // 4].decode(errors="ignore")
            reply = self._complete(self._request(known, chunk))
            spent.append(reply.usage)
            if reply.stop is not Stop.END or reply.tool_calls:
                raise UnusableAnswer(f"the model stopped with {reply.stop.value}, expected one whole answer")
            answer = _parse_answer(separate_thinking(reply.text).answer)
        return answer

    def _request(self, known: str, chunk: str) -> ModelRequest:
        text = (
            "Your notes so far, made by you from earlier parts (keep in the answer what still holds):\n"
            f"{known}\n\nThe next part of the conversation:\n{chunk}"
        )
        return ModelRequest(
            model=self._model,
            system=SYSTEM,
            messages=(UserMessage(group=1, text=text),),
            max_output_tokens=self._output_tokens,
            timeout_s=self._timeout_s,
            output_schema=ANSWER,
        )


def _parse_answer(text: str) -> _Answer:
    """Decode the answer's JSON object, even if it is in a code fence."""
    start, end = text.find("{"), text.rfind("}")
    try:
        value = json.loads(text[start : end + 1]) if start >= 0 else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise UnusableAnswer("the answer is not a JSON object")
    return _Answer(tuple(_sentences(value.get("happened"))), tuple(_sentences(value.get("open"))))


def _sentences(value: object) -> Iterator[_Sentence]:
    if not isinstance(value, list):
        raise UnusableAnswer("the answer does not match the schema: `happened` and `open` must be lists")
    for one in value:
        if not isinstance(one, dict) or not isinstance(one.get("text"), str):
            raise UnusableAnswer("the answer does not match the schema: a sentence must be an object with a text")
        text = clean(one["text"][: 2 * MAX_SENTENCE_CHARS])
        if text:
            yield _Sentence(text, one.get("from_tool") is not False)


def _check_answer(
    answer: _Answer, memory: Memory, groups: Sequence[Message], pinned: str
) -> tuple[list[str], list[str]]:
    """Drop sentences with invented identifiers, and mark those that repeat a tool's words."""
    read = "\n".join([pinned, memory.summary, *memory.open_items, *(_text_of(message) for message in groups)])
    read += "\n".join(item for facts in memory.facts for item in facts.items)
    kept = [
        [sentence for sentence in sentences if not any(value not in read for value in _identifiers(sentence.text))]
        for sentences in (answer.happened, answer.open)
    ]
    happened, still_open = (
        mark_untrusted((_mark_sentence(sentence) for sentence in dict.fromkeys(sentences)), groups)
        for sentences in kept
    )
    return happened, still_open


def _identifiers(text: str) -> Iterator[str]:
    for _, value, _whole in pieces(text):
        if kind_of(value, whole=False) in CHECKED:
            yield value


def _mark_sentence(sentence: _Sentence) -> str:
    text = sentence.text.replace(UNTRUSTED, "").strip()
    return f"{UNTRUSTED} {text}" if sentence.from_tool else text


def _read_marked(texts: Iterable[str]) -> tuple[_Sentence, ...]:
    return tuple(_Sentence(text.replace(UNTRUSTED, "").strip(), text.startswith(UNTRUSTED)) for text in texts)


def _to_dicts(sentences: Iterable[_Sentence]) -> list[dict[str, object]]:
    return [{"text": one.text, "from_tool": one.from_tool} for one in sentences]


def _text_of(message: Message) -> str:
    if message.role == "tool":
        return message.content
    if message.role == "assistant":
        return "\n".join([message.text, *(call.raw_arguments for call in message.tool_calls)])
    return message.text


def _text_bytes(message: Message) -> int:
    return len(_text_of(message).encode(errors="backslashreplace"))


def _total(spent: Iterable[Usage]) -> Usage:
    return sum(spent, Usage())


def _why(error: Exception) -> str:
    """The reason as text: our own message, or only the type of another error, whose message may contain the transcript."""
    return str(error)[:200] if isinstance(error, MidwatchError) else type(error).__name__
