"""Opaque parts of earlier turns: which of them the model that is asked now may get back.

A vendor's own part (thinking, an encrypted reasoning item, a signature) is valid only at the model and server that made it.
OpenAI refuses a reasoning item that it can't decrypt. Cerebras refuses the field `reasoning_content`. Gemini refuses the
signature of another model. So only a model's own parts are sent, and none to a server that has refused them.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from midwatch.schemas.message import AssistantMessage, Message, Opaque, ToolCall
from midwatch.schemas.model import ModelRequest


def name_server(base_url: str) -> str:
    """Return host, port and path of a base URL. A user name, a password and a query are left out."""
    parts = urlsplit(base_url)
    return parts.netloc.rpartition("@")[2].lower() + parts.path.rstrip("/")


def leave_out_foreign_parts(request: ModelRequest, provider: str, server: str) -> ModelRequest:
    """Return the request with only those opaque parts that this model made at this server, or with none if it refused them."""
    refused = server in request.opaque_refused_by
    messages: list[Message] = []
    for message in request.messages:
        if isinstance(message, AssistantMessage) and (refused or not is_own(message, request.model, provider, server)):
            message = _strip(message, server)
        messages.append(message)
    return request.model_copy(update={"messages": tuple(messages)})


def is_own(message: AssistantMessage, model: str, provider: str, server: str) -> bool:
    """Did this model write the message, at this server?"""
    if message.provider != provider or message.server not in (None, server):
        return False
    # A message of an earlier release has only the name that the response gave, often with a date after the requested name.
    return _is_same_name(message.model, model) if message.requested is None else message.requested == model


def _is_same_name(answered: str, requested: str) -> bool:
    shorter, longer = sorted((answered, requested), key=len)
    return longer.startswith(shorter) or longer.endswith(f"/{shorter}")


def _strip(message: AssistantMessage, server: str) -> AssistantMessage:
    """Remove the opaque parts. What another server wrote counts as another provider's, so its call ids are foreign, too."""
    changes: dict[str, object] = {}
    if message.server not in (None, server):
        changes["provider"] = ""
    if any(isinstance(part, Opaque) or (isinstance(part, ToolCall) and part.vendor_extra) for part in message.parts):
        changes["parts"] = tuple(
            part.model_copy(update={"vendor_extra": None}) if isinstance(part, ToolCall) else part
            for part in message.parts
            if not isinstance(part, Opaque)
        )
    return message.model_copy(update=changes) if changes else message
