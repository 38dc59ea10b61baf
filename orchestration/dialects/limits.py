"""The limits that each provider publishes on tools and schemas: one table, with the source of each row.

`docs/vendors.md` is generated from it. Some limits hold for a whole request, some for one tool, and some for one strict
schema.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from midwatch.orchestration.dialects.rule import REFUSED, REPORTED
from midwatch.orchestration.validation.subschemas import every_part, members, parts_below, types
from midwatch.schemas.contract import JsonObject
from midwatch.schemas.tools import ToolSpec

OUTPUT = "output_schema"

MAX_ENUM_BEFORE_CHARS_COUNT = 250
"""OpenAI limits the characters of an `enum` only if it has more strings than this."""

Counted = Iterator[tuple[str, int]]
"""Places, each with a count."""

Strict = Sequence[tuple[str, JsonObject]]
"""The schemas that are sent in strict mode, each with its name."""


@dataclass(frozen=True)
class Limit:
    """One published limit."""

    name: str
    most: int
    counts: Callable[[Sequence[ToolSpec], Strict], Counted]
    what: str
    """What is counted, such as `tools`."""
    effect: str
    advice: str
    source: str


@dataclass(frozen=True)
class Exceeded:
    """A limit that the tools or schemas of an agent exceed."""

    limit: Limit
    where: str
    count: int
    more: int = 0
    """What the runtime may add to the count."""

    @property
    def is_refused(self) -> bool:
        """Does the provider refuse every request?

        If the limit is exceeded only together with the runtime's own tools, the provider refuses only some requests.
        """
        return self.limit.effect == REFUSED and self.count > self.limit.most

    def __str__(self) -> str:
        added = f" and {self.more} of the runtime" if self.more else ""
        return f"{self.count:,} {self.limit.what}{added}, at most {self.limit.most:,}: {self.limit.advice}"


def find_exceeded(
    provider: str, tools: Sequence[ToolSpec], output: JsonObject | None = None, *, more_tools: int = 0
) -> Iterator[Exceeded]:
    """Find the limits of this provider that the tools exceed.

    Args:
        provider: the provider.
        tools: the tools of a request.
        output: the schema of the answer, if it is strict.
        more_tools: how many tools a request may have in addition.

    """
    strict = [(tool.name, tool.input_schema) for tool in tools if tool.strict]
    strict += [] if output is None else [(OUTPUT, output)]
    for limit in LIMITS.get(provider, ()):
        more = more_tools if limit.counts is _tools else 0
        over = [(where, count) for where, count in limit.counts(tools, strict) if count + more > limit.most]
        if over:
            yield Exceeded(limit, *max(over, key=lambda one: one[1]), more)


def fits_strict_limits(provider: str, tools: Sequence[ToolSpec], output: JsonObject | None = None) -> bool:
    """May these strict tools be sent in one request, with this strict schema of the answer?"""
    strict = [tool for tool in tools if tool.strict]
    return all(found.limit.effect != REFUSED for found in find_exceeded(provider, strict, output))


def _tools(tools: Sequence[ToolSpec], _strict: Strict) -> Counted:
    yield "", len(tools)


def _description(tools: Sequence[ToolSpec], _strict: Strict) -> Counted:
    yield from ((tool.name, len(tool.description)) for tool in tools)


def _name(tools: Sequence[ToolSpec], _strict: Strict) -> Counted:
    yield from ((tool.name, len(tool.name)) for tool in tools)


def _strict_tools(tools: Sequence[ToolSpec], _strict: Strict) -> Counted:
    yield "", sum(tool.strict for tool in tools)


def _count_each(count: Callable[[JsonObject], int]) -> Callable[[Sequence[ToolSpec], Strict], Counted]:
    """Make a counter that counts each strict schema separately."""
    return lambda _tools, strict: ((name, count(schema)) for name, schema in strict)


def _count_together(count: Callable[[JsonObject], int]) -> Callable[[Sequence[ToolSpec], Strict], Counted]:
    """Make a counter that adds up all strict schemas of a request."""

    def counts(_tools: Sequence[ToolSpec], strict: Strict) -> Counted:
        where = strict[0][0] if len(strict) == 1 else ""
        yield where, sum(count(schema) for _, schema in strict)

    return counts


def object_depth(schema: JsonObject) -> int:
    """The most objects and lists that are inside each other. A definition counts by itself."""
    deepest, todo = 0, [(schema, 0)]
    while todo:
        part, around = todo.pop()
        depth = around + bool({"object", "array"} & set(types(part)) or "properties" in part)
        deepest = max(deepest, depth)
        todo += [(one, 0 if step[0] in ("$defs", "definitions") else depth) for step, one in parts_below(part)]
    return deepest


def count_properties(schema: JsonObject) -> int:
    """Count the properties of all objects."""
    return sum(len(part["properties"]) for _, part in every_part(schema) if isinstance(part.get("properties"), dict))


def count_optional(schema: JsonObject) -> int:
    """Count the properties that are not required."""
    return sum(
        name not in part.get("required", ())
        for _, part in every_part(schema)
        for name, _ in members(part.get("properties"))
    )


def count_unions(schema: JsonObject) -> int:
    """Count the schemas with alternatives or several types."""
    return sum(
        "anyOf" in part or "oneOf" in part or isinstance(part.get("type"), list) for _, part in every_part(schema)
    )


def count_choices(schema: JsonObject) -> int:
    """Count the values of all enums."""
    return sum(len(part["enum"]) for _, part in every_part(schema) if isinstance(part.get("enum"), list))


def count_text(schema: JsonObject) -> int:
    """Count the characters of all names of properties and definitions, and of all choices and constants."""
    total = 0
    for _, part in every_part(schema):
        for keyword in ("properties", "$defs", "definitions"):
            total += sum(len(name) for name, _ in members(part.get(keyword)))
        total += sum(len(one) for one in (*part.get("enum", ()), part.get("const")) if isinstance(one, str))
    return total


def count_long_enum(schema: JsonObject) -> int:
    """Count the characters of the longest enum with more than 250 strings."""
    enums = [[one for one in part.get("enum", ()) if isinstance(one, str)] for _, part in every_part(schema)]
    return max((sum(map(len, one)) for one in enums if len(one) > MAX_ENUM_BEFORE_CHARS_COUNT), default=0)


_OPENAI_GUIDE = "https://developers.openai.com/api/docs/guides/structured-outputs"
_ANTHROPIC_GUIDE = "https://platform.claude.com/docs/en/build-with-claude/structured-outputs"
_ISSUE = "https://github.com/"
_FEWER = "offer fewer, or split the agent"
_SMALLER = "write it smaller, or leave strict mode off"

LIMITS: dict[str, tuple[Limit, ...]] = {
    "openai": (
        Limit("tools", 128, _tools, "tools", REFUSED, _FEWER, f"{_ISSUE}zed-industries/zed/issues/32946"),
        Limit("name", 64, _name, "characters in the tool's name", REFUSED, "shorten it",
              "https://platform.openai.com/docs/api-reference/chat/create"),
        Limit("description", 1_024, _description, "characters in the tool's description", REPORTED,
              "older models refuse more; shorten it, or say it in the system prompt",
              f"{_ISSUE}OpenHands/OpenHands/issues/7167, {_ISSUE}run-llama/llama_index/pull/18784"),
        Limit("depth", 10, _count_each(object_depth), "levels in a strict schema", REFUSED, _SMALLER, _OPENAI_GUIDE),
        Limit("size", 5_000, _count_each(count_properties), "properties in a strict schema", REFUSED, _SMALLER, _OPENAI_GUIDE),
        Limit("enum", 1_000, _count_each(count_choices), "choices in a strict schema", REFUSED, _SMALLER, _OPENAI_GUIDE),
        Limit("enum text", 15_000, _count_each(count_long_enum), "characters in an `enum` of more than 250 strings, in a strict "
              "schema", REFUSED, _SMALLER, _OPENAI_GUIDE),
        Limit("text", 120_000, _count_each(count_text), "characters of names and choices in a strict schema", REFUSED, _SMALLER,
              _OPENAI_GUIDE),
    ),
    "anthropic": (
        Limit("name", 64, _name, "characters in the tool's name", REFUSED, "shorten it",
              "https://platform.claude.com/docs/en/agents-and-tools/tool-use/define-tools"),
        Limit("strict tools", 20, _strict_tools, "strict tools", REFUSED, _SMALLER, _ANTHROPIC_GUIDE),
        Limit("optional", 24, _count_together(count_optional), "optional properties in the strict schemas of a request", REFUSED,
              "require them and allow null, or leave strict mode off",
              f"{_ANTHROPIC_GUIDE}, {_ISSUE}elie222/inbox-zero/issues/2323"),
        Limit("unions", 16, _count_together(count_unions), "alternatives in the strict schemas of a request", REFUSED, _SMALLER,
              f"{_ANTHROPIC_GUIDE}, {_ISSUE}mozilla/bugbug/pull/6129"),
    ),
    "gemini": (
        Limit("tools", 128, _tools, "tools", REFUSED, _FEWER,
              "https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/function-calling"),
        Limit("name", 64, _name, "characters in the tool's name", REFUSED, "shorten it",
              f"{_ISSUE}kaitranntt/ccs/issues/25"),
    ),
    "openai-compatible": (
        Limit("tools", 128, _tools, "tools", REPORTED, "OpenAI's own server and some others refuse more",
              f"{_ISSUE}musistudio/claude-code-router/issues/686"),
        Limit("description", 1_024, _description, "characters in the tool's description", REPORTED,
              "some servers and models refuse more; shorten it, or say it in the system prompt",
              f"{_ISSUE}rusiaaman/wcgw/issues/51"),
    ),
}  # fmt: skip
"""Published limits by provider."""
