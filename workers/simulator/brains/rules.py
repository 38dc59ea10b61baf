"""A brain that answers by a rule set: a callable that gets a conversation and returns an answer."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable

from midwatch.orchestration.errors import ConfigError
from midwatch.workers.simulator.brains.brain import Answer, Conversation, Say, UnexpectedCall, Use
from midwatch.workers.simulator.brains.example_values import make_example

Rules = Callable[[Conversation], Answer]
"""A rule set. It gets the whole conversation and keeps no state."""


class RuleBrain:
    """Answers by a rule set. The default is `each_tool_once`."""

    positional = False

    def __init__(self, rules: Rules | None = None, name: str = "") -> None:
        self.rules = rules or each_tool_once
        self.name = name or getattr(self.rules, "__name__", type(self.rules).__name__)

    @classmethod
    def from_name(cls, name: str) -> RuleBrain:
        """Make a brain of the rule set at `module:attr`. Raises ConfigError if there is none."""
        return cls(import_rules(name), name)

    def answer(self, conversation: Conversation) -> Answer:
        """Return the answer of the rule set. Raises UnexpectedCall if it is neither Say nor Use."""
        answer = self.rules(conversation)
        if not isinstance(answer, Say | Use):
            raise UnexpectedCall(f"rule set {self.name}: expected Say or Use, got {type(answer).__name__}")
        return answer


def import_rules(name: str) -> Rules:
    """Import the rule set at `module:attr`. Raises a ConfigError that says what is missing."""
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise ConfigError(
            f"rules: expected `module:attr`, like `midwatch.workers.simulator.brains.rules:each_tool_once`, got {name!r}"
        )
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"rules: can't import {module_name!r} ({error}); is it on PYTHONPATH?") from error
    rules = getattr(module, attribute, None)
    if not callable(rules):
        there = ", ".join(sorted(key for key, value in vars(module).items() if callable(value) and key[0] != "_"))
        raise ConfigError(f"rules: {module_name!r} has no callable {attribute!r}; it has: {there or 'none'}")
    return rules  # type: ignore[no-any-return]  # the signature is not known before the call


def each_tool_once(conversation: Conversation) -> Answer:
    """Call each offered tool once after the latest user message, with example arguments, and then end the turn.

    A tool that the client forces is always called. If the client gives a schema for the answer, the answer is an
    example value.
    """
    called = {call.name for turn in conversation.since_user for call in turn.calls}
    for tool in conversation.tools:
        wanted = tool.name == conversation.force_tool if conversation.force_tool else tool.name not in called
        if wanted:
            return Use([(tool.name, make_example({"type": "object", **tool.input_schema}))])
    if conversation.output_schema is not None:
        return Say(json.dumps(make_example(conversation.output_schema)))
    return Say(f"Done: {len(called)} tool(s) called.")
