"""Finds the error in a reply with status 2xx, wherever in the body the server has put it."""

from __future__ import annotations

from midwatch.schemas.contract import JsonObject
from midwatch.schemas.failure import FailureKind
from midwatch.workers.providers.read_json import BadReply, ErrorReply, raise_wrong_type
from midwatch.workers.providers.replies.json_body import NotJson, read_value


def read_answer(content: bytes, content_type: str) -> JsonObject:
    """Read the JSON object of a reply.

    Raises:
        ErrorReply: the reply reports an error.
        BadReply: the body can't be used.

    """
    try:
        value = read_value(content, content_type)
    except NotJson:
        what = f"{content_type or 'no content type'}, {len(content)} bytes"
        raise BadReply(FailureKind.PROVIDER_ERROR, f"expected a JSON object, got something else ({what})") from None
    if isinstance(value, list) and value and isinstance(value[0], dict) and "error" in value[0]:
        raise ErrorReply(value)
    if not isinstance(value, dict):
        raise_wrong_type("the body", "an object", value)
    return value
