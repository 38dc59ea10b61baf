"""The form of every policy: its fields by place or by name, with errors for unknown fields and for fields not built yet."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import model_validator

from midwatch.schemas.contract import Contract


class Policy(Contract):
    """Base of the policies that users write. Fields may be passed by position. An error suggests the name for a misspelt one.

    A value that would have no effect is refused. So is a field that is planned but not built yet (`NOT_BUILT`), unless it has
    its default.
    """

    NOT_BUILT: ClassVar[dict[str, str]] = {}
    """Fields without an effect so far, and what to do instead."""

    if not TYPE_CHECKING:  # type checkers see the fields as keywords

        def __init__(self, *values: object, **fields: object) -> None:
            known = list(type(self).model_fields)
            if len(values) > len(known):
                raise ValueError(f"{type(self).__name__} takes at most {len(known)} values, got {len(values)}")
            for name, value in zip(known, values, strict=False):
                if name in fields:
                    raise ValueError(f"{type(self).__name__} got {name} twice: by place and by name")
                fields[name] = value
            for name in fields:
                if name not in known:
                    close = get_close_matches(name, known, 1)
                    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
                    raise ValueError(f"{type(self).__name__} got an unknown keyword {name!r}; {hint}")
            super().__init__(**fields)

    @model_validator(mode="after")
    def _built(self) -> Self:
        for name, instead in self.NOT_BUILT.items():
            if (value := getattr(self, name)) != type(self).model_fields[name].default:
                raise ValueError(f"{name}={value!r}: not built yet, so it would have no effect; {instead}")
        return self

    def _set(self, *names: str) -> list[str]:
        """Return those of the fields that were set by hand."""
        return [name for name in names if name in self.model_fields_set]
