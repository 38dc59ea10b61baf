"""Read stored records: a record that this release can't read raises `UnreadableRecord`, which quotes nothing of it."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TypeVar

import structlog
from pydantic import BaseModel, ValidationError
from redis.exceptions import ResponseError

from midwatch.orchestration.errors import UnreadableRecord
from midwatch.schemas.contract import WIRE_VERSION

log = structlog.get_logger("midwatch.store")

R = TypeVar("R", bound=BaseModel)
T = TypeVar("T")
S = TypeVar("S")

_PLACE = re.compile(r" script: (?:[0-9a-f]+, )?on @user_script.*$", re.DOTALL)
"""Where in a script a command failed, which Redis adds to its error."""

NEWER = f"of a newer version; this release reads up to version {WIRE_VERSION}"

MISREAD = (ValueError, KeyError, TypeError, AttributeError, zlib.error)
"""What reading raises on a record that is not what it should be. `ValidationError` and bad JSON are `ValueError`s."""


class NewerVersion(ValueError):
    """Raised when decoded JSON is of a newer version."""


class Listing(list[T]):
    """The records that could be read, and the errors of those that could not: one unreadable record hides no other."""

    def __init__(self, readable: Iterable[T] = (), unreadable: Iterable[UnreadableRecord] = ()) -> None:
        super().__init__(readable)
        self.unreadable = list(unreadable)


def read_record(kind: type[R], raw: bytes | str, what: str) -> R:
    """The record in a stored JSON text.

    Raises:
        UnreadableRecord: it is of a newer version, or damaged.

    """
    return guard(what, partial(kind.model_validate_json, raw))


def read_listing(stored: Iterable[tuple[str, S]], read: Callable[[S], T]) -> Listing[T]:
    """Read many records, each by itself. `stored` are pairs: what it is, and what `read` takes."""
    found: Listing[T] = Listing()
    for what, raw in stored:
        try:
            found.append(guard(what, partial(read, raw)))
        except UnreadableRecord as error:
            found.unreadable.append(error)
    if found.unreadable:
        first = found.unreadable[0]
        log.warning("record.unreadable", records=len(found.unreadable), what=first.what, why=first.why)
    return found


def guard(what: str, read: Callable[[], T]) -> T:
    """The result of `read`. An error that a wrong record causes becomes `UnreadableRecord`.

    The new error has no cause on purpose: the text of the first one quotes the record.
    """
    try:
        return read()
    except UnreadableRecord:
        raise
    except (*MISREAD, ResponseError) as error:
        why = explain(error)
    raise UnreadableRecord(what, why)


def explain(error: Exception) -> str:
    """Why a record can't be read: places, rules and Redis's own words, without a value of the record."""
    match error:
        case UnreadableRecord():
            return error.why
        case NewerVersion():
            return NEWER
        case ResponseError():  # WRONGTYPE, NOPERM, a script that compares a field that is no number
            return f"{type(error).__name__}: {_PLACE.sub('', str(error))}"[:200]
        case ValidationError():
            return _explain_validation(error)
        case _:
            return f"damaged ({type(error).__name__})"


def _explain_validation(error: ValidationError) -> str:
    problems = error.errors(include_input=False, include_context=False, include_url=False)
    if any(problem["loc"][-1:] == ("v",) and problem["type"] == "less_than_equal" for problem in problems):
        return NEWER
    places = (f"{'.'.join(map(str, problem['loc'])) or 'record'}: {problem['type']}" for problem in problems[:3])
    return f"damaged ({'; '.join(places)})"[:200]


def check_version(fields: Mapping[str, object]) -> None:
    """Refuse decoded JSON of a newer version. Raises NewerVersion."""
    version = fields.get("v", 1)
    if not isinstance(version, int) or version > WIRE_VERSION:
        raise NewerVersion
