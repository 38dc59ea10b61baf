"""Why a model stopped, in the words of every vendor and server.

A reply that came to its end is an answer, also if its stop word is unknown. It was paid, and the same request would get the
same word again. So a word that is not listed here, or no word, is judged by what the reply contains.

Sources of the words: the SDKs of OpenAI, Anthropic and Google; Mistral (`model_length`), Together and TGI (`eos`,
`eos_token`), Bedrock (`guardrail_intervened`), Cohere (`COMPLETE`, `ERROR_TOXIC`), DeepSeek
(`insufficient_system_resource`), Z.ai (`sensitive`, `network_error`), xAI (`end_turn`), watsonx, SGLang and vLLM
(`abort`); public issue threads vibrantlabsai/ragas 1548, vespa-engine/vespa 33327 and genkit-ai/genkit 6259.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from midwatch.schemas.failure import FailureKind
from midwatch.schemas.message import Part, Text, ToolCall
from midwatch.schemas.model import ModelRequest, Stop, Usage
from midwatch.workers.providers.read_json import BadReply
from midwatch.workers.providers.token_usage import classify_length_stop

STOPS: dict[str, Stop] = {
    **dict.fromkeys(("stop", "stopped", "stop_sequence", "stop_token", "stop_str", "matched_stop"), Stop.END),
    **dict.fromkeys(("eos", "eos_token", "eot", "eot_id", "end", "end_turn", "end_of_turn"), Stop.END),
    **dict.fromkeys(("complete", "completed", "done", "finish", "finished", "success", "normal"), Stop.END),
    **dict.fromkeys(("tool_calls", "tool_call", "tool_use", "tools", "function_call", "function_calls"), Stop.TOOLS),
    **dict.fromkeys(("length", "max_length", "max_tokens", "max_new_tokens", "max_output_tokens"), Stop.LENGTH),
    **dict.fromkeys(("max_completion_tokens", "token_limit", "output_limit", "incomplete"), Stop.LENGTH),
    **dict.fromkeys(("model_context_window_exceeded", "context_window_exceeded"), Stop.CONTEXT_FULL),
    **dict.fromkeys(("context_length_exceeded", "model_length", "context_length"), Stop.CONTEXT_FULL),
    **dict.fromkeys(("content_filter", "content_filtered", "refusal", "safety", "recitation"), Stop.REFUSAL),
    **dict.fromkeys(("blocklist", "prohibited_content", "spii", "sensitive", "moderation"), Stop.REFUSAL),
    **dict.fromkeys(("guardrail_intervened", "error_toxic", "image_safety", "policy_violation"), Stop.REFUSAL),
    **dict.fromkeys(("image_prohibited_content", "image_recitation", "language", "model_armor"), Stop.REFUSAL),
    **dict.fromkeys(("pause_turn", "compaction"), Stop.PAUSE),
}
"""Word in lower case -> Stop."""

FAILED: dict[str, FailureKind] = {
    **dict.fromkeys(("error", "engine_error", "internal_error", "server_error"), FailureKind.PROVIDER_ERROR),
    **dict.fromkeys(("network_error", "abort", "aborted", "cancelled", "canceled"), FailureKind.PROVIDER_ERROR),
    **dict.fromkeys(("unexpected_tool_call", "error_limit"), FailureKind.PROVIDER_ERROR),
    "insufficient_system_resource": FailureKind.OVERLOADED,
    "timeout": FailureKind.TIMEOUT,
}
"""Words for a generation that failed on the server. Its text is not an answer."""

TELLING_PARTS: tuple[tuple[str, Stop], ...] = (
    (r"context", Stop.CONTEXT_FULL),
    (r"length|truncat|(?:max|limit).*token|token.*(?:max|limit)|max_(?:output|completion)", Stop.LENGTH),
    (r"filter|safety|block|refus|moderat|guardrail|sensitive|prohibit|polic", Stop.REFUSAL),
    (r"tool|function", Stop.TOOLS),
)
"""Part of an unlisted word -> its meaning. A call in a reply that was cut off must not run, so a word that hints
at a limit is believed."""

_FAILED_PARTS = re.compile(r"malformed|error|fail|abort|cancel|timeout|timed_out|exception")
"""Parts of unlisted words for a generation that failed. Gemini sends MALFORMED_FUNCTION_CALL, for example."""

_SPECIAL_TOKEN = re.compile(r"<[^<>\s]{1,60}>")
"""The model's own end token, in the place of a word (`<|eot_id|>`, `</s>`). Together and llama.cpp send it."""


def find_stop(word: object, parts: Sequence[Part], usage: Usage, request: ModelRequest) -> Stop:
    """Say why the model stopped, by its stop word and by what the reply contains.

    Raises:
        BadReply: the server says that the generation failed.

    """
    name = normalize(word)
    if name not in STOPS and (name in FAILED or _FAILED_PARTS.search(name)):
        kind = FAILED.get(name, FailureKind.PROVIDER_ERROR)
        raise BadReply(kind, f"the provider rejected its model's output ({name[:60]})")
    stop = Stop.END if _SPECIAL_TOKEN.fullmatch(name) else look_up(name)
    if stop is Stop.LENGTH:
        return classify_length_stop(usage, request.max_output_tokens)
    called = any(isinstance(part, ToolCall) for part in parts)
    if stop is Stop.END and called:
        # With OpenAI, a forced call ends with 'stop'; with some servers, every call does. The calls are complete.
        return Stop.TOOLS
    if stop is Stop.TOOLS and not called:
        stop = Stop.UNKNOWN
    return _judge_by_content(name, parts, usage, request) if stop is Stop.UNKNOWN else stop


def look_up(word: object) -> Stop:
    """Return the Stop of a word. Gemini puts two words into one: `content_filter: RECITATION`."""
    name = normalize(word)
    listed = next((STOPS[one] for one in (name, *re.split(r":_?", name)) if one in STOPS), None)
    if listed is not None or _FAILED_PARTS.search(name):
        return listed or Stop.UNKNOWN
    return next((stop for part, stop in TELLING_PARTS if re.search(part, name)), Stop.UNKNOWN)


def normalize(word: object) -> str:
    """Write a stop word in one spelling. Google's enum names and hyphens are other spellings of the same word."""
    if not isinstance(word, str):
        return ""
    name = re.sub(r"[\s-]+", "_", word.strip().lower())
    return re.sub(r"^(?:finish_?reason|stop_?reason)[._]", "", name)


def show_stop(word: object) -> str:
    """Return the word as it came, for people. Empty if there was none."""
    return word if isinstance(word, str) else "" if word is None else str(word)[:60]


def _judge_by_content(name: str, parts: Sequence[Part], usage: Usage, request: ModelRequest) -> Stop:
    """Judge a complete reply whose word says nothing. One that used up the output limit was stopped by it."""
    if usage.reported and usage.output_tokens >= request.max_output_tokens:
        return Stop.LENGTH
    if any(isinstance(part, ToolCall) for part in parts):
        return Stop.TOOLS
    return Stop.END if any(isinstance(part, Text) and part.text.strip() for part in parts) else Stop.UNKNOWN
