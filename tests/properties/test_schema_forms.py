"""Any schema is refused with a reason, or validates in bounded time and has a form for each vendor."""

from __future__ import annotations

import time
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from midwatch.errors import ConfigError
from midwatch.orchestration.dialects.answer import answer_form
from midwatch.orchestration.dialects.rules import check
from midwatch.orchestration.dialects.strict import strict_form
from midwatch.orchestration.dialects.vendor_form import to_vendor_output, to_vendor_tool
from midwatch.orchestration.validation.root_object import KEYWORDS
from midwatch.schemas.tools import ToolSpec
from midwatch.validators import JSONSchemaValidator, SchemaRefused
from midwatch.workers.providers.chat_completions.gemini_schema import convert_to_gemini

PROVIDERS = ("anthropic", "openai", "gemini", "openai-compatible")
KINDS = ["object", "string", "array", "integer", "number", "null", "boolean"]
NAMES = st.sampled_from(["a", "b", "c d", "enum", "type", "properties", "$ref"])
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([2**70, 1.5, 2.0, *KINDS, "#", "#/$defs/a", "#/properties/a", "^a+$", "(?=a)b", "date", "a", ""]),
)


def schemas_of(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, min_size=1, max_size=2)
    known: dict[str, st.SearchStrategy[Any]] = {
        "type": st.sampled_from(KINDS) | st.lists(st.sampled_from(KINDS), min_size=1, max_size=3, unique=True),
        "properties": st.dictionaries(NAMES, inner, max_size=3),
        "required": st.lists(st.sampled_from("abc"), unique=True, max_size=2),
        **dict.fromkeys(("items", "if", "then", "else", "not", "propertyNames", "contains"), inner),
        **dict.fromkeys(("anyOf", "oneOf", "allOf", "prefixItems"), several),
        **dict.fromkeys(("additionalProperties", "unevaluatedProperties"), st.booleans() | inner),
        "enum": st.lists(LEAVES, max_size=4),
        "const": LEAVES,
        "default": LEAVES,
        "patternProperties": st.dictionaries(st.sampled_from(["^a", "(?!b)", r"\p{L}"]), inner, max_size=2),
        "$ref": st.sampled_from(["#", "#/$defs/a", "#/properties/a"]),
        "$defs": st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
        "dependentSchemas": st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
        "minLength": st.sampled_from([0, 1, 2.0]),
        "maximum": st.sampled_from([1, 2**70, 1.5]),
        "format": st.sampled_from(["date", "regex", "uri", "x"]),
        "pattern": st.sampled_from(["^a$", "(?=b)", r"\p{L}"]),
    }
    words = st.sampled_from([*sorted(KEYWORDS), "x-y", "nullable", "other"])
    return st.one_of(
        st.fixed_dictionaries({}, optional=known),
        st.dictionaries(words, inner, max_size=5),
        st.lists(inner, max_size=3),
    )


SCHEMAS = st.recursive(LEAVES, schemas_of, max_leaves=12).filter(lambda schema: isinstance(schema, dict))
ARGUMENTS = st.dictionaries(
    NAMES, st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3), max_leaves=5), max_size=3
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(schema=SCHEMAS, calls=st.lists(ARGUMENTS, max_size=3))
def test_any_schema_is_refused_or_has_a_form_for_each_vendor(schema: dict[str, Any], calls: list[Any]) -> None:
    """A schema raises nothing but ConfigError, and the sent form breaks none of the rules that rewrite schemas."""
    try:
        validator = JSONSchemaValidator(schema)
    except SchemaRefused as refused:
        assert len(str(refused)) < 2_000  # noqa: PT017 - only some schemas are refused
        return
    for arguments in calls:
        began = time.thread_time()
        validator.problems(arguments)
        assert time.thread_time() - began < 1
    for provider in PROVIDERS:
        for strict in (False, True):
            tool = ToolSpec(name="probe", description="A probe.", input_schema=validator.schema, strict=strict)
            try:
                check(provider, [tool], validator.schema)
            except ConfigError:
                continue
            check_forms(provider, tool)


def check_forms(provider: str, tool: ToolSpec) -> None:
    sent = to_vendor_tool(provider, tool)
    if provider == "gemini":
        convert_to_gemini(sent.input_schema)
    elif not tool.strict:
        assert not any(difference.rewritten for difference in check(provider, [sent]))
    form = strict_form(provider, tool.input_schema)
    if form is not None:
        check(provider, [ToolSpec(name="probe", description="A probe.", input_schema=form, strict=True)])
        JSONSchemaValidator(form)
    answer_form(provider, to_vendor_output(provider, tool.input_schema))
