"""JSON as vendors send it: compact, keys in the order given, text unescaped."""

from __future__ import annotations

import json
from typing import Any

from midwatch.schemas.contract import JsonObject


def dump(value: Any) -> str:
    """JSON text of a value."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def encoded(body: JsonObject) -> bytes:
    """JSON bytes; text that is no Unicode (half a surrogate pair) travels escaped."""
    try:
        return dump(body).encode()
    except UnicodeEncodeError:
        return json.dumps(body).encode()
