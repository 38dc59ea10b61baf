"""Differences in the providers' JSON Schema support, checked when an agent is constructed, not at its first call.

If a vendor does not accept the schema of one tool, it refuses every request of the agent. There are three cases:
- The provider's adapter can rewrite the schema (`vendor_form`, `workers.providers.chat_completions.gemini_schema`): the
  difference is reported as rewritten.
- The model can only guess what is meant: the difference is reported.
- The vendor answers with 400 and nothing can rewrite the schema: it is refused here.

The author's schema is never changed, and always validates the arguments. Sources: the vendors' own error texts, as quoted in
public issues in 2025 and 2026.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from midwatch.orchestration.dialects.answer import answer_form
from midwatch.orchestration.dialects.limits import OUTPUT, find_exceeded
from midwatch.orchestration.dialects.root import NotOneObject, to_one_object
from midwatch.orchestration.dialects.rule import REFUSED, REWRITTEN, ROOT, Rule
from midwatch.orchestration.dialects.tables import LEAVE, RULES, STRICT
from midwatch.orchestration.dialects.vendor_form import STRICT_MODES, to_vendor_output
from midwatch.orchestration.errors import ConfigError
from midwatch.orchestration.validation.problems import pointer
from midwatch.orchestration.validation.subschemas import every_part
from midwatch.schemas.contract import JsonObject
from midwatch.schemas.tools import ToolSpec

__all__ = ["OUTPUT", "RULES", "STRICT", "SchemaDifference", "check", "check_all"]


@dataclass(frozen=True)
class SchemaDifference:
    """One place where a provider treats a schema differently from how it is written."""

    rule: str
    where: str
    """The first such place in the tool, such as `tool/properties/name`."""
    message: str
    rewritten: bool
    """True if the request is sent in a form that the provider accepts."""


RUNTIME_TOOLS = 2
"""Tools that the runtime offers in addition when they are needed: `read_result` and `recall`."""


def check_all(
    providers: Iterable[str], tools: Sequence[ToolSpec], output: JsonObject | None
) -> tuple[SchemaDifference, ...]:
    """Find what each of these providers treats differently for an agent. Raises ConfigError, as `check` does."""
    more = RUNTIME_TOOLS if tools else 0
    return tuple(found for one in dict.fromkeys(providers) for found in check(one, tools, output, more_tools=more))


def check(
    provider: str, tools: Iterable[ToolSpec], output: JsonObject | None = None, *, more_tools: int = 0
) -> tuple[SchemaDifference, ...]:
    """Find what this provider treats differently. A provider without known rules has no differences.

    Args:
        provider: the part of a model name before the colon.
        tools: the tools that are offered to the model.
        output: the schema of the final answer, which is rewritten by the same rules.
        more_tools: how many tools a request may have in addition.

    Raises:
        ConfigError: the vendor would refuse every request with this tool. Raised for the first such difference.

    """
    tools = tuple(tools)
    found = [difference for tool in tools for difference in _check_tool(provider, tool)]
    if output is not None:
        found += _check_output(provider, output)
    answer = None if output is None else answer_form(provider, to_vendor_output(provider, output))
    enforced = answer.schema if answer is not None and answer.strict else None
    for one in find_exceeded(provider, tools, enforced, more_tools=more_tools):
        if one.is_refused:
            where = f"tool {one.where}" if one.where not in ("", OUTPUT) else one.where or "tools"
            raise ConfigError(f"{where}: {provider} refuses {one}")
        found.append(SchemaDifference(one.limit.name, one.where or "tools", f"{provider}: {one}", rewritten=False))
    return tuple(found)


def _check_output(provider: str, output: JsonObject) -> Iterator[SchemaDifference]:
    """Check the schema of the answer: what is rewritten for it, and what the provider can't enforce."""
    yield from _check(provider, OUTPUT, output, [rule for rule in RULES.get(provider, ()) if rule.effect == REWRITTEN])
    answer = answer_form(provider, to_vendor_output(provider, output))
    if answer.refused:
        raise ConfigError(f"{OUTPUT}: {provider} refuses it: {answer.refused}")
    if answer.lost:
        yield SchemaDifference("answer", OUTPUT, f"{provider}: {answer.lost}", rewritten=False)


def _check_tool(provider: str, tool: ToolSpec) -> Iterator[SchemaDifference]:
    rules = RULES.get(provider, ())
    if tool.strict and provider in STRICT_MODES:
        rules = (*map(_as_written, rules), *STRICT[provider])
    return _check(provider, tool.name, tool.input_schema, rules)


def _as_written(rule: Rule) -> Rule:
    """The same rule in strict mode, where nothing is rewritten, so that the schema is refused."""
    advice = f"in strict mode it is sent as written; {LEAVE} {rule.unless}"
    return Rule(rule.name, rule.finds, REFUSED, advice) if rule.effect == REWRITTEN else rule


def _check(provider: str, name: str, schema: JsonObject, rules: Sequence[Rule]) -> Iterator[SchemaDifference]:
    found = list(every_part(schema))
    for rule in rules:
        places = list(rule.finds(found))
        if not places:
            continue
        words = list(dict.fromkeys(word for _, word in places))
        listed = ", ".join(words[:5]) + (f" and {len(words) - 5} more" if len(words) > 5 else "")
        where = f"{name}{pointer(places[0][0])}"
        refused = f"{'' if name == OUTPUT else 'tool '}{where}: {provider} refuses {listed}"
        if rule.effect == REFUSED:
            raise ConfigError(f"{refused}: {rule.says}")
        if rule.name == ROOT:
            try:  # the rewritten schema must satisfy the other rules
                found = list(every_part(to_one_object(schema).schema))
            except NotOneObject as error:
                raise ConfigError(f"{refused}, and it can't be sent as one object: {error}; {rule.unless}") from error
        yield SchemaDifference(
            rule.name, where, f"{provider}: {listed}: {rule.says}", rewritten=rule.effect == REWRITTEN
        )
