"""Check `format`, which JSON Schema by default only treats as an annotation.

The library itself checks `date`, `ipv4`, `ipv6`, `regex` and `idn-email`. It needs packages that are not installed for
`date-time`, `time` and `uri`, and checks `email` and `uuid` only loosely. Those five are checked here. An unknown format is
not checked.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from jsonschema import Draft202012Validator, FormatChecker

FORMATS = FormatChecker()
FORMATS.checkers = dict(Draft202012Validator.FORMAT_CHECKER.checkers)

_TIME = r"(?:[01]\d|2[0-3]):[0-5]\d:(?:[0-5]\d|60)(?:\.\d+)?(?:[Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)"
_TIME_TEXT = re.compile(_TIME, re.ASCII)
_DATE_TIME_TEXT = re.compile(r"\d{4}-\d\d-\d\d[Tt]" + _TIME, re.ASCII)
_URI_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?:[A-Za-z0-9._~:/?#@!$&'()*+,;=\[\]-]|%[0-9A-Fa-f]{2})+")
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_EMAIL_TEXT = re.compile(rf"""(?:{_ATOM}(?:\.{_ATOM})*|"[^"\n]+")@(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.IPv]+\])""")
_UUID_TEXT = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


@FORMATS.checks("time", raises=(ValueError, OverflowError))
def _is_time(value: object) -> bool:
    return not isinstance(value, str) or (_TIME_TEXT.fullmatch(value) is not None and _is_moment(f"2000-01-02T{value}"))


@FORMATS.checks("date-time", raises=(ValueError, OverflowError))
def _is_date_time(value: object) -> bool:
    """RFC 3339: with a time zone."""
    return not isinstance(value, str) or (_DATE_TIME_TEXT.fullmatch(value) is not None and _is_moment(value))


def _is_moment(text: str) -> bool:
    """Does this date and time exist? A leap second must be the last second of a UTC day."""
    moment = datetime.fromisoformat(text.upper().replace(":60", ":59"))
    if ":60" not in text:
        return True
    utc = moment.astimezone(UTC)
    return (utc.hour, utc.minute) == (23, 59)


@FORMATS.checks("uri")
def _is_uri(value: object) -> bool:
    """RFC 3986, absolute: with a scheme."""
    if not isinstance(value, str):
        return True
    authority = re.split("[/?#]", value.partition("://")[2], maxsplit=1)[0]
    port = authority.rpartition("@")[2].rpartition("]")[2].partition(":")[2]
    return _URI_TEXT.fullmatch(value) is not None and (not port or port.isdecimal())


@FORMATS.checks("email")
def _is_email(value: object) -> bool:
    """RFC 5321, in ASCII."""
    return not isinstance(value, str) or _EMAIL_TEXT.fullmatch(value) is not None


@FORMATS.checks("uuid")
def _is_uuid(value: object) -> bool:
    return not isinstance(value, str) or _UUID_TEXT.fullmatch(value) is not None
