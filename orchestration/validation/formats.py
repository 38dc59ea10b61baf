"""Check `format`, which JSON Schema by default only treats as an annotation.

The engine of `jsonschema-rs` checks each format in time that grows with the text's length, and passes every test of formats in
the standard's suite (decision 26). An unknown format is not checked.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

from jsonschema import FormatChecker

NAMES = (
    "date", "date-time", "duration", "email", "hostname", "idn-email", "idn-hostname", "ipv4", "ipv6", "iri",
    "iri-reference", "json-pointer", "regex", "relative-json-pointer", "time", "uri", "uri-reference", "uri-template",
    "uuid",
)  # fmt: skip
"""Formats that are checked: all of both drafts."""


def prepare(name: object) -> None:
    """Load what the check of this format needs, now and not during the first call."""
    if name in NAMES:
        _checker(str(name))


@cache
def _checker(name: str) -> Any:
    import jsonschema_rs  # 35 ms and 9 MB, which only a schema with a pattern or a format needs

    return jsonschema_rs.Draft202012Validator({"format": name}, validate_formats=True)


def _has_format(name: str, value: object) -> bool:
    return not isinstance(value, str) or bool(_checker(name).is_valid(value))


FORMATS = FormatChecker(())
FORMATS.checkers = {name: (partial(_has_format, name), (UnicodeEncodeError,)) for name in NAMES}
