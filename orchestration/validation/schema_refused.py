"""SchemaRefused: raised when a schema can't be used, with the reason as a typed field."""

from __future__ import annotations

from typing import Literal

from midwatch.orchestration.errors import ConfigError

Reason = Literal["object", "json", "schema", "draft", "reference", "pattern", "default", "size"]
"""Why a schema is refused. `docs/validation.md` explains each.

- `object`: its top level can't describe an object.
- `json`: it is not a dict of JSON values.
- `schema`: it breaks the rules of JSON Schema, such as an unknown type.
- `draft`: its `$schema` is not supported, or two are mixed.
- `reference`: a `$ref` leads outside of the schema, to no place, or back to itself.
- `pattern`: a regular expression that can't be used.
- `default`: a default that breaks its own schema.
- `size`: it is too large, too deep, or applies too many subschemas to one value.
"""


class SchemaRefused(ConfigError):
    """Raised when a JSON Schema can't be used. The message names the first problem and its place."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason

    def __reduce__(self) -> tuple[type[SchemaRefused], tuple[Reason, str]]:
        return type(self), (self.reason, str(self))
