"""Refusals in the places where vendors put them. A refusal is never an answer, and never a reply in a wrong format.

Sources: OpenAI's SDK (`refusal` of a message, parts of type `refusal` in a list), Azure's content filter (`filtered` in
`content_filter_results` and `prompt_filter_results`, `blocked` in `content_filters`), Google's SDK (`blockReason` of the prompt
feedback). With some of them there is no choice, or a choice without a message.
"""

from __future__ import annotations

from collections.abc import Iterator

from midwatch.schemas.contract import JsonObject
from midwatch.workers.providers.read_json import as_any_text

FILTERS = ("content_filter_results", "content_filter_result", "content_filters", "prompt_filter_results")
"""Fields of a reply, a choice or a filter with the verdicts of a content filter."""

FEEDBACK = ("promptFeedback", "prompt_feedback")
REASONS = ("blockReason", "block_reason")

MAX_NESTED = 3
"""Verdicts are searched to this depth: a filter, its categories, and their verdicts."""


def read_refusal(piece: object) -> str | None:
    """Return the text of a part that is a refusal (it may be empty), or None if it is none."""
    if not isinstance(piece, dict):
        return None
    refusal = piece.get("refusal")
    if piece.get("type") == "refusal":
        return as_any_text(refusal or piece.get("text"))
    if refusal is True:
        return ""
    return as_any_text(refusal) if isinstance(refusal, (str, dict)) and refusal else None


def was_filtered(value: JsonObject) -> bool:
    """Did a content filter block this reply or choice, or its prompt? A filter that only reports a severity did not."""
    if any(feedback.get(reason) for feedback in _list_objects(value, FEEDBACK) for reason in REASONS):
        return True
    return any(_is_blocked(verdict, MAX_NESTED) for verdict in _list_objects(value, FILTERS))


def _is_blocked(verdict: JsonObject, depth: int) -> bool:
    if verdict.get("filtered") is True or verdict.get("blocked") is True:
        return True
    return depth > 0 and any(_is_blocked(inner, depth - 1) for inner in _list_objects(verdict, tuple(verdict)))


def _list_objects(value: JsonObject, names: tuple[str, ...]) -> Iterator[JsonObject]:
    """Yield the objects in these fields, also those in a list."""
    for name in names:
        found = value.get(name)
        for one in found if isinstance(found, list) else [found]:
            if isinstance(one, dict):
                yield one
