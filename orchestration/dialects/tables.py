"""The constructs that each provider does not accept, or treats differently: one table, with the source of each row.

`docs/vendors.md` is generated from it. The sources are the vendors' documentation, their SDKs, and public issues that quote the
vendor's error.
"""

from __future__ import annotations

from midwatch.orchestration.dialects import finders
from midwatch.orchestration.dialects.rule import REFUSED, REPORTED, REWRITTEN, ROOT, Rule

_OPENAI_GUIDE = "https://developers.openai.com/api/docs/guides/structured-outputs"
_ANTHROPIC_GUIDE = "https://platform.claude.com/docs/en/build-with-claude/structured-outputs"
_ISSUE = "https://github.com/"

_SPLIT = "describe the alternatives in the description and check them in the tool, or put them into one property"
LEAVE = "leave strict mode off for this tool, or"

_GEMINI_TAKES = frozenset({
    "type", "description", "properties", "required", "items", "enum", "anyOf", "nullable", "pattern",
    "minimum", "maximum", "minItems", "maxItems", "minLength", "maxLength",
})  # fmt: skip
_GEMINI_REWRITES = frozenset({"$ref", "$defs", "definitions", "allOf", "oneOf", "const"})

_STRUCTURE = frozenset({
    "type", "properties", "required", "additionalProperties", "items", "anyOf", "enum", "const", "$ref", "$defs",
    "definitions", "title", "description", "default", "format",
})  # fmt: skip
_OPENAI_STRICT_TAKES = _STRUCTURE | {
    "pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minItems", "maxItems",
}  # fmt: skip
_ANTHROPIC_STRICT_TAKES = _STRUCTURE | {"allOf", "minItems", "pattern", "examples", "$schema", "$id", "$comment"}


def _root(provider: str, source: str) -> Rule:
    says = "sent as one object, the alternatives as text; the arguments are still validated against them"
    about = "alternatives at the top level"
    return Rule(ROOT, finders.composed_root(provider), REWRITTEN, says, _SPLIT, about, source)


_PLACES = Rule("places", finders.listed_items, REWRITTEN, "sent as `prefixItems`", "write it as `prefixItems`",
               "a list as `items` (draft 07)", _ISSUE + "anthropics/claude-code/issues/9605")  # fmt: skip
_NUMBERS = Rule("numbers", finders.big_integers, REWRITTEN, "sent as text in the description",
                "use a smaller number, or a string", "a whole number beyond 64 bits (bound, choice, default)",
                _ISSUE + "RevenueCat/ai-toolkit/issues/26")  # fmt: skip
_CHOICES = Rule("choices", finders.odd_choices, REWRITTEN, "sent without it", "remove it",
                "a choice twice, or one that the type excludes (null of a string)",
                _ISSUE + "can1357/oh-my-pi/issues/1835")  # fmt: skip
_NO_CHOICES = Rule("choices", finders.no_choices, REFUSED, "no value satisfies it; name the choices, or drop it", "",
                   "an `enum` without values", "https://json-schema.org/draft/2020-12/json-schema-validation")  # fmt: skip

RULES: dict[str, tuple[Rule, ...]] = {
    "anthropic": (
        _root("anthropic", _ISSUE + "goruck/home-generative-agent/issues/585"),
        _PLACES, _NUMBERS, _CHOICES,
        Rule("names", finders.property_names(r"[a-zA-Z0-9_.-]{1,64}", at_top=True), REFUSED,
             "at most 64 letters, digits, `_`, `.`, `-`; rename it", "", "a property name beyond `[a-zA-Z0-9_.-]{1,64}`",
             _ISSUE + "beautyfree/appstore-connect-mcp/issues/2"),
    ),
    "openai": (
        _root("openai", _OPENAI_GUIDE),
        _PLACES, _NUMBERS, _CHOICES, _NO_CHOICES,
        Rule("items", finders.untyped_arrays, REWRITTEN, 'sent with `"items": {}`',
             'say what is in it, e.g. "items": {"type": "string"}', "an array without `items`",
             _ISSUE + "streamnative/streamnative-mcp-server/issues/26"),
        Rule("properties", finders.without_properties, REWRITTEN, 'sent with `"properties": {}`',
             'write "properties": {}', "a top level without `properties`",
             _ISSUE + "spring-projects/spring-ai/issues/4776"),
    ),
    "gemini": (
        _root("gemini", _ISSUE + "livekit/agents/pull/2689"),
        _NUMBERS, _CHOICES, _NO_CHOICES,
        Rule("reference", finders.keywords(_GEMINI_REWRITES.__contains__), REWRITTEN,
             "sent written out, with `anyOf` and `enum`", "", "`$ref`, `allOf`, `oneOf`, `const`",
             _ISSUE + "zed-extensions/mcp-server-brave-search/issues/12"),
        Rule("null", finders.nullable, REWRITTEN, "sent as `nullable`", "", "null beside another type",
             _ISSUE + "zereight/gitlab-mcp/issues/166"),
        Rule("values", finders.other_choices, REWRITTEN, "sent as text in the description", "",
             'choices that are not strings; the choice ""',
             f"{_ISSUE}microsoft/azure-devops-mcp/issues/145, {_ISSUE}sbroenne/mcp-server-excel/issues/607"),
        Rule("places", finders.listed_items, REWRITTEN, "sent as an array of any of them", "", "a list as `items`",
             "https://ai.google.dev/api/caching#Schema"),
        Rule("items", finders.untyped_arrays, REWRITTEN, "sent as an array of strings", "", "an array without `items`",
             "https://ai.google.dev/api/caching#Schema"),
        Rule("parameters", finders.no_parameters, REWRITTEN, "sent without a schema", "", "a tool without parameters",
             f"{_ISSUE}vercel/ai/issues/3371, {_ISSUE}agno-agi/agno/issues/2112"),
        Rule("misplaced", finders.misplaced, REWRITTEN, "not sent; it has no effect on this type", "",
             "a keyword that has no effect on the type", _ISSUE + "musistudio/claude-code-router/issues/475"),
        Rule("keyword", finders.keywords(lambda word: word not in _GEMINI_TAKES | _GEMINI_REWRITES), REWRITTEN,
             "not sent; the arguments are still validated against it", "", "`format`, `default` and other keywords",
             _ISSUE + "nanbingxyz/5ire/issues/42"),
        Rule("names", finders.property_names(r"[a-zA-Z_][a-zA-Z0-9_]{0,63}", at_top=False), REPORTED,
             "documented are letters, digits and `_`, at most 64, with no digit at the beginning", "",
             "a property name beyond `[a-zA-Z_][a-zA-Z0-9_]{0,63}`",
             "https://cloud.google.com/vertex-ai/generative-ai/docs/reference/java/latest/com.google.cloud.vertexai.api"
             ".FunctionDeclarationOrBuilder"),
        Rule("optional", finders.optional, REPORTED,
             "optional without a default: this model tends to fill it in; give it a default", "",
             "an optional property without a default", "observed with recorded calls"),
    ),
    "openai-compatible": (
        Rule("choices", finders.odd_choices, REPORTED, "some servers refuse it; remove it", "",
             "a choice twice, or one that the type excludes", _ISSUE + "tailcallhq/forgecode/issues/3767"),
        Rule("numbers", finders.big_integers, REPORTED, "some servers can't read it", "",
             "a whole number beyond 64 bits", _NUMBERS.source),
        Rule("types", finders.listed_types, REPORTED, "some servers take one type only; write `anyOf`", "",
             "a list of types", _ISSUE + "ollama/ollama/issues/10328"),
        Rule("items", finders.untyped_arrays, REPORTED, "OpenAI's own server refuses it; say what is in it", "",
             "an array without `items`", _ISSUE + "PrefectHQ/fastmcp/issues/2464"),
        Rule("properties", finders.without_properties, REPORTED,
             'OpenAI\'s own server refuses it; write "properties": {}', "", "a top level without `properties`",
             _ISSUE + "tailcallhq/forgecode/issues/1359"),
    ),
}  # fmt: skip
"""Rules by provider. Other servers (`openai-compatible`) get every schema as written."""

STRICT: dict[str, tuple[Rule, ...]] = {
    "openai": (
        Rule("closed", finders.open_objects, REFUSED, f"in strict mode every object is closed; {LEAVE} close it", "",
             "an open object", _OPENAI_GUIDE),
        Rule("required", finders.not_required, REFUSED,
             f"in strict mode all are required; {LEAVE} make it required and nullable", "", "an optional property",
             _OPENAI_GUIDE),
        Rule("keyword", finders.keywords(lambda word: word not in _OPENAI_STRICT_TAKES), REFUSED,
             f"strict mode has no such keyword; {LEAVE} drop it", "", "`allOf`, `minLength` and other keywords",
             _OPENAI_GUIDE),
        Rule("misplaced", finders.misplaced, REFUSED, f"it has no effect on this type; {LEAVE} drop it", "",
             "a keyword that has no effect on the type", _OPENAI_GUIDE),
        Rule("format", finders.formats("openai"), REFUSED, f"strict mode has no such format; {LEAVE} drop it", "",
             "a `format` such as `uri`", f"{_ISSUE}can1357/oh-my-pi/issues/206"),
        Rule("default", finders.keywords(lambda word: word == "default"), REPORTED,
             "strict mode requires every value, so the default is never used", "", "a default", _OPENAI_GUIDE),
    ),
    "anthropic": (
        Rule("closed", finders.open_objects, REFUSED, f"in strict mode every object is closed; {LEAVE} close it", "",
             "an open object", _ANTHROPIC_GUIDE),
        Rule("keyword", finders.keywords(lambda word: word not in _ANTHROPIC_STRICT_TAKES), REFUSED,
             f"strict mode has no such keyword; {LEAVE} drop it", "", "`minimum`, `maxLength` and other keywords",
             f"{_ANTHROPIC_GUIDE}, {_ISSUE}earendil-works/pi/issues/9953"),
        Rule("misplaced", finders.misplaced, REFUSED, f"it has no effect on this type; {LEAVE} drop it", "",
             "a keyword that has no effect on the type", _ANTHROPIC_GUIDE),
        Rule("format", finders.formats("anthropic"), REFUSED, f"strict mode has no such format; {LEAVE} drop it", "",
             "an unknown `format`", _ANTHROPIC_GUIDE),
        Rule("array", finders.long_arrays, REFUSED, f"strict mode takes 0 and 1; {LEAVE} drop it", "",
             "a `minItems` above 1", _ANTHROPIC_GUIDE),
        Rule("values", finders.nested_choices, REFUSED, f"strict mode has simple choices only; {LEAVE} drop it", "",
             "a list or an object as a choice", _ANTHROPIC_GUIDE),
    ),
}  # fmt: skip
"""Rules of the strict modes, in addition. In strict mode nothing is rewritten, because the model is bound to the sent schema."""
