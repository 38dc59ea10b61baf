"""Contradictions between the parts of an agent's declaration: what could not work, or would have no effect.

A policy checks its own fields. Here are the rules that need two parts: a policy and the tools, a budget and the model.
An upper limit that is not reached is no contradiction, and neither is a permission that is not used.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

from midwatch.orchestration.agents import known_models
from midwatch.orchestration.agents.model_names import ModelName
from midwatch.orchestration.tools.declaration import Tool
from midwatch.schemas.failure import FailureKind
from midwatch.schemas.policy import ContextBudget, Escalation, ModelPolicy, RetryConfig, RunLimits

TOOL_KINDS = (FailureKind.TOOL_ERROR, FailureKind.INTERNAL)
"""Kinds of failure that only a tool can have."""


def find_in_models(
    models: Sequence[ModelName], summary_model: ModelName | None, policy: ModelPolicy, budget: ContextBudget
) -> Iterator[str]:
    """A retired model; a budget that is larger than a model's window; fallback models without an effect.

    `models` are the agent's own model and its fallback models, in this order.
    """
    for model in (*models, *((summary_model,) if summary_model else ())):
        known = known_models.look_up(model)
        if known.is_retired and not policy.allow_retired:
            yield (
                f"model {str(model)!r} was retired on {known.ends}: its vendor refuses calls of it; name a newer model, or set "
                "model_policy=ModelPolicy(allow_retired=True) if your server still has it"
            )
    for model in models:
        window = known_models.look_up(model).window
        if window is not None and budget.max_tokens > window:
            yield (
                f"context_budget: max_tokens={budget.max_tokens:,} is more than the window of {str(model)!r}, {window:,} tokens; "
                "lower max_tokens, so that conversations are compacted before the provider refuses them"
            )
    if len(models) > 2:
        yield (
            f"fallback_models: got {len(models) - 1}, but only the first is used so far; name one. It is called after repeated "
            "invalid calls or answers. A fallback in an outage is not built yet"
        )
    if models[0] in models[1:]:
        yield f"fallback_models names {str(models[0])!r}, which is the agent's own model; name another one, or leave it out"


def find_in_retries(config: RetryConfig, tools: Sequence[Tool]) -> Iterator[str]:
    """Kinds that only a tool can have, without a tool that follows the agent's `RetryConfig`."""
    followers = [tool for tool in tools if tool.child is None and tool.retry is None]
    for kind in config.retry_on:
        if kind in TOOL_KINDS and not any(tool.idempotent for tool in followers):
            yield (
                f"retry_config: {kind.value} in retry_on has no effect: none of its tools is idempotent and follows this "
                "retry_config, and no other call can be repeated safely. Declare @tool(idempotent=True) for a tool that can be, "
                f"or take {kind.value} out"
            )
    for kind in config.fail_hard_on:
        if kind in TOOL_KINDS and not followers:
            yield (
                f"retry_config: {kind.value} in fail_hard_on has no effect: the agent has no tool that follows this "
                f"retry_config; take {kind.value} out"
            )


def find_in_names(limits: RunLimits, escalation: Sequence[Escalation], tools: Sequence[Tool]) -> Iterator[str]:
    """A rule about a tool that the agent does not have. A typo could otherwise disable an approval."""
    ceilings = limits.max_tool_calls
    named = [("limits.max_tool_calls", name) for name in (ceilings if isinstance(ceilings, dict) else ())]
    named += [(f"escalation {rule.when}", name) for rule in escalation for name in rule.tools]
    there = [tool.name for tool in tools]
    for where, name in named:
        if name not in there:
            close = difflib.get_close_matches(name, there, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"its tools: {', '.join(there) or 'none'}"
            yield f"{where} names {name!r}, which is not one of its tools; {hint}"


def find_in_escalation(escalation: Sequence[Escalation], limits: RunLimits, tools: Sequence[Tool]) -> Iterator[str]:
    """A rule that can never ask a human, that repeats an earlier rule, or whose question can't expire."""
    most_s = min((limit for limit in (limits.max_wait_s, limits.deadline_s) if limit is not None), default=None)
    for at, rule in enumerate(escalation):
        if rule.expires_s is not None and most_s is not None and rule.expires_s > most_s:
            yield (
                f"escalation {rule.when}: expires_s={rule.expires_s:g} is never reached: the job waits for others at most "
                f"{most_s:g} s (max_wait_s, deadline_s); lower expires_s, or raise that limit"
            )
        meant = [tool for tool in tools if not rule.tools or tool.name in rule.tools]
        if rule.when == "tool_approval" and not meant:
            yield "escalation tool_approval has no effect: the agent has no tools; leave it out"
        if rule.when == "unknown_effect" and all(tool.idempotent for tool in meant):
            yield (
                "escalation unknown_effect has no effect: the effect of an idempotent tool's call is never unknown, because "
                "the call runs again; name a tool that is not idempotent, or leave the rule out"
            )
        covered = next((one for one in escalation[:at] if one.when == rule.when and _covers(one, rule)), None)
        if covered is not None:
            yield f"escalation {rule.when} is declared twice for the same tools: the second rule has no effect; merge them"


def _covers(earlier: Escalation, later: Escalation) -> bool:
    if earlier.expires_s is None and later.expires_s is not None:
        return False  # the later rule adds when the question expires
    return not earlier.tools or (bool(later.tools) and set(later.tools) <= set(earlier.tools))
