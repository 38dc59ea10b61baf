"""The vendor formats by path. To add one, write its file here and add a line to each table."""

from __future__ import annotations

from midwatch.workers.simulator.vendor_formats.anthropic_messages import AnthropicMessages
from midwatch.workers.simulator.vendor_formats.openai_chat import OpenAIChat
from midwatch.workers.simulator.vendor_formats.openai_responses import OpenAIResponses
from midwatch.workers.simulator.vendor_formats.vendor_format import SimulatedFormat

FORMATS_BY_PATH: dict[str, SimulatedFormat] = {
    "/v1/messages": AnthropicMessages(),
    "/v1/responses": OpenAIResponses(),
    "/v1/chat/completions": OpenAIChat(),
}
"""Path of model calls -> format."""

FORMATS_BY_COUNT_PATH: dict[str, SimulatedFormat] = {
    "/v1/messages/count_tokens": FORMATS_BY_PATH["/v1/messages"],
    "/v1/responses/input_tokens": FORMATS_BY_PATH["/v1/responses"],
}
"""Path of token counts -> format."""
