"""The wires by path. A new one is a file here and a line in each table."""

from __future__ import annotations

from midwatch.workers.simulator.vendor_formats.anthropic_messages import AnthropicMessages
from midwatch.workers.simulator.vendor_formats.openai_chat import OpenAIChat
from midwatch.workers.simulator.vendor_formats.openai_responses import OpenAIResponses
from midwatch.workers.simulator.vendor_formats.vendor_format import Wire

ANSWERS: dict[str, Wire] = {
    "/v1/messages": AnthropicMessages(),
    "/v1/responses": OpenAIResponses(),
    "/v1/chat/completions": OpenAIChat(),
}
"""Where a model call goes."""

COUNTERS: dict[str, Wire] = {
    "/v1/messages/count_tokens": ANSWERS["/v1/messages"],
    "/v1/responses/input_tokens": ANSWERS["/v1/responses"],
}
"""Where a client asks how many tokens a request would be."""
