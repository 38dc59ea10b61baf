"""Thinking in the text of a reply, from a server that does not parse its model's thinking.

`<think>…</think>` at the beginning is separated from the answer. Thinking that does not end is no answer.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from midwatch.schemas.message import Opaque, Part, Text

MAX_KEPT_CHARS = 8_000
"""Most characters of thinking that the session keeps."""

MARKS = (
    ("<think>", "</think>"),  # DeepSeek, Qwen, GLM, and most others
    ("[THINK]", "[/THINK]"),  # Magistral
    ("◁think▷", "◁/think▷"),  # Kimi-VL
    ("<seed:think>", "</seed:think>"),  # Seed-OSS
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel>thought", "<channel|>"),  # Gemma 4
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Cohere
    ("<unused94>thought", "<unused95>"),  # MedGemma
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),  # gpt-oss
)
"""Marks of models' chat templates. They are separated from the answer."""

WORDS = (("<thinking>", "</thinking>"), ("<thought>", "</thought>"), ("<reasoning>", "</reasoning>"))
"""Marks that prompts ask for, too. The user may want such a part, so it stays in the answer. Alone it is no answer."""

_ENDS = {begin.lower(): end for begin, end in MARKS}

_BEGIN = re.compile(
    rf"\s*+(?:<\|start\|>assistant)?({'|'.join(re.escape(begin) for begin, _ in MARKS)})", re.IGNORECASE
)
"""A mark where thinking begins."""

_LONE_END = re.compile(r"(?:(?:^|\n)[ \t]*|(?<=[.!?…]))(?:</think>|\[/THINK\])[ \t]*(?:\n|$)")
"""The end of thinking whose beginning was in the prompt, as in DeepSeek R1's chat template: in a line without other text, or
at the end of a sentence and of a line."""

_WITHOUT_TOKENS = re.compile(r"analysis\S.*?assistantfinal", re.DOTALL)
"""gpt-oss's thinking, if the server drops special tokens and keeps the names of the channels."""

_AROUND = re.compile(r"<\|start\|>(?:assistant)?|<\|(?:end|return)\|>\s*$")


class Separated(NamedTuple):
    """A text, separated into thinking and answer."""

    thinking: str
    answer: str


def separate_thinking(text: str) -> Separated:
    """Separate thinking at the beginning of a text. A text without thinking is returned unchanged."""
    found: list[str] = []
    place = 0  # the text is not copied for each pair: servers have sent tens of thousands of them
    while mark := _BEGIN.match(text, place):
        end = _ENDS[mark[1].lower()]
        closed = text.find(end, mark.end())
        found.append(text[mark.end() : None if closed < 0 else closed].strip())
        if closed < 0:
            return Separated("\n".join(found), "")  # it does not end, so there is no answer
        place = closed + len(end)
    rest = text[place:]
    if not found and (bare := _WITHOUT_TOKENS.match(text)):
        thinking = bare[0].removeprefix("analysis").removesuffix("assistantfinal")
        return Separated(thinking.strip(), text[bare.end() :].strip())
    if not found and (lone := _LONE_END.search(text)) and text[: lone.start()].count("```") % 2 == 0:
        return Separated(text[: lone.start()].strip(), text[lone.end() :].strip())
    return Separated("\n".join(found), _AROUND.sub("", rest).strip()) if found else Separated("", text)


def move_thinking(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """Move thinking at the beginning of a reply's text into an opaque part, which no vendor gets."""
    place = next((place for place, part in enumerate(parts) if isinstance(part, Text)), None)
    if place is None or not isinstance(text := parts[place], Text):
        return parts
    thinking, answer = separate_thinking(text.text)
    if answer == text.text:
        return parts
    kept = Opaque(provider="", raw={"type": "thinking_in_text", "thinking": thinking[:MAX_KEPT_CHARS]})
    return (*parts[:place], kept, *((Text(text=answer),) if answer else ()), *parts[place + 1 :])


def is_only_thinking(answer: str) -> bool:
    """Does the text begin with thinking in words that prompts use, and hold nothing else?"""
    if mark := _find_mark(answer, WORDS):
        _, _, after = answer.partition(mark[1])
        return not after.strip()
    return False


def _find_mark(text: str, marks: tuple[tuple[str, str], ...]) -> tuple[str, str] | None:
    begin = text.lstrip()[:60].removeprefix("<|start|>assistant").lower()
    return next((mark for mark in marks if begin.startswith(mark[0].lower())), None)
