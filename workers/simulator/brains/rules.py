"""The brain that really uses tools: a rule set, a callable from a conversation to an answer, named `module:attr`."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable

from midwatch.orchestration.errors import ConfigError
from midwatch.workers.simulator.brains.brain import Answer, Conversation, Say, UnexpectedCall, Use
from midwatch.workers.simulator.brains.example import example

Rules = Callable[[Conversation], Answer]
"""A rule set: sees the whole conversation, keeps no state of its own."""


class RuleBrain:
    """Answers by a rule set."""

    positional = False

    def __init__(self, rules: Rules | None = None, name: str = "") -> None:
        self.rules = rules or each_tool_once
        self.name = name or getattr(self.rules, "__name__", type(self.rules).__name__)

    @classmethod
    def named(cls, name: str) -> RuleBrain:
        """The rule set at `module:attr`; raises ConfigError when there is none."""
        return cls(find(name), name)

    def answer(self, conversation: Conversation) -> Answer:
        """What the rule set says; raises UnexpectedCall when that is neither Say nor Use."""
        answer = self.rules(conversation)
        if not isinstance(answer, Say | Use):
            raise UnexpectedCall(f"rule set {self.name}: expected Say or Use, got {type(answer).__name__}")
        return answer


def find(name: str) -> Rules:
    """Import the rule set `module:attr`; raises ConfigError that says what is missing."""
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
    return rules  # type: ignore[no-any-return]  # its signature can't be known before it is called


def each_tool_once(conversation: Conversation) -> Answer:
    """The default: since the user last spoke, call each offered tool once, with made-up arguments, then say done.

    A tool the client forces is called whatever was called before. A schema for the answer gets a made-up value.
    """
    called = {call.name for turn in conversation.since_user for call in turn.calls}
    for tool in conversation.tools:
        wanted = tool.name == conversation.force_tool if conversation.force_tool else tool.name not in called
        if wanted:
            return Use([(tool.name, example({"type": "object", **tool.input_schema}))])
    if conversation.output_schema is not None:
        return Say(json.dumps(example(conversation.output_schema)))
    return Say(f"Done: {len(called)} tool(s) called.")
