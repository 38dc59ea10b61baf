"""Writes JSON like vendors do: compact, with keys in their given order, and without escaping non-ASCII text."""

from __future__ import annotations

import json
from typing import Any

from midwatch.schemas.contract import JsonObject


def dump_json(value: Any) -> str:
    """Write a value as JSON text."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def encode_json(body: JsonObject) -> bytes:
    """Write a body as JSON bytes. Text with a lone surrogate can't be encoded, so it is escaped."""
    try:
        return dump_json(body).encode()
    except UnicodeEncodeError:
        return json.dumps(body).encode()
