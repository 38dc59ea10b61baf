"""Read stored records. A record that this release can't read raises `UnreadableRecord`, which quotes no data of the record."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from redis.exceptions import ClusterDownError, OutOfMemoryError, ReadOnlyError, ResponseError

from midwatch.orchestration.errors import MidwatchError, UnreadableRecord
from midwatch.schemas.contract import WIRE_VERSION

R = TypeVar("R", bound=BaseModel)
T = TypeVar("T")
S = TypeVar("S")

_PLACE = re.compile(r" script: (?:[0-9a-f]+, )?on @user_script.*$", re.DOTALL)
"""The position in a script, which Redis appends to the error of a command."""

NEWER = f"of a newer version; this release reads up to version {WIRE_VERSION}"

MISREAD = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError, zlib.error)
"""The errors that reading a damaged record raises. `ValidationError` and the error for bad JSON are `ValueError`s. JSON that is
nested too deep raises a `RecursionError`."""

REFUSED_BY_SERVER = (OutOfMemoryError, ReadOnlyError, ClusterDownError)
"""Response errors that say nothing about a record: the server takes no writes now."""


class NewerVersion(ValueError):
    """Raised when decoded JSON is of a newer version."""


class Listing(list[T]):
    """The records that could be read. `unreadable` has the errors of the others: one bad record does not hide the rest."""

    def __init__(self, readable: Iterable[T] = (), unreadable: Iterable[UnreadableRecord] = ()) -> None:
        super().__init__(readable)
        self.unreadable = list(unreadable)


def read_record(kind: type[R], raw: bytes | str, what: str) -> R:
    """Read the record in a stored JSON text.

    Raises:
        UnreadableRecord: the record is of a newer version, or damaged.

    """
    return guard(what, partial(kind.model_validate_json, raw))


def read_listing(stored: Iterable[tuple[str, S]], read: Callable[[S], T]) -> Listing[T]:
    """Read many records, each separately. `stored` holds pairs: a name for error messages, and the argument of `read`."""
    found: Listing[T] = Listing()
    for what, raw in stored:
        try:
            found.append(guard(what, partial(read, raw)))
        except UnreadableRecord as error:
            found.unreadable.append(error)
    return found


def read_list(reply: Sequence[bytes] | Exception, what: str, one: str, read: Callable[[bytes], T]) -> Listing[T]:
    """The records of a Redis list. `reply` may be the error of a damaged key: then the listing names `what`."""
    if isinstance(reply, Exception):
        return Listing((), [UnreadableRecord(what, explain(reply))])
    return read_listing(((one, raw) for raw in reply), read)


def guard(what: str, read: Callable[[], T]) -> T:
    """Return the result of `read`. An error that a damaged record causes becomes `UnreadableRecord`.

    The new error deliberately has no cause, because the text of the original error quotes the record.
    """
    try:
        return read()
    except (MidwatchError, *REFUSED_BY_SERVER):
        raise
    except (*MISREAD, ResponseError) as error:
        why = explain(error)
    raise UnreadableRecord(what, why)


def explain(error: Exception) -> str:
    """Say why a record can't be read: fields, rules and Redis's error text, but no value of the record."""
    match error:
        case UnreadableRecord():
            return error.why
        case NewerVersion():
            return NEWER
        case ResponseError():  # WRONGTYPE, NOPERM, or a script compares a field that is not a number
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


def read_field(reply: object, what: str) -> bytes | None:
    """One field or key as Redis returned it.

    Raises:
        UnreadableRecord: the command failed, for example because the key is of a wrong type.

    """
    if isinstance(reply, Exception):
        raise UnreadableRecord(what, explain(reply))
    return reply if isinstance(reply, bytes) else None


def split_errors(replies: Iterable[tuple[str, S | Exception]]) -> tuple[list[S], list[UnreadableRecord]]:
    """Separate the replies of commands from the errors of those that failed. A damaged key does not hide the others."""
    found: list[S] = []
    errors: list[UnreadableRecord] = []
    for what, reply in replies:
        if isinstance(reply, Exception):
            errors.append(UnreadableRecord(what, explain(reply)))
        else:
            found.append(reply)
    return found, errors


def check_version(fields: Mapping[str, object]) -> None:
    """Refuse decoded JSON of a newer version. Raises NewerVersion."""
    version = fields.get("v", 1)
    if not isinstance(version, int) or version > WIRE_VERSION:
        raise NewerVersion
