"""Tool: a function with its schema and policies. The declaration is checked when it is made, not when it is called."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any, Literal, get_args

from midwatch.orchestration.errors import ConfigError
from midwatch.orchestration.tools.signature import Signature
from midwatch.orchestration.validation.problems import show
from midwatch.orchestration.validation.validator import JSONSchemaValidator
from midwatch.schemas.contract import JsonObject, canonical_json
from midwatch.schemas.policy import RetryConfig
from midwatch.schemas.tools import ToolSpec

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_DOWNSTREAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}")
_COMPOSED = ("$ref", "allOf", "anyOf", "oneOf", "if", "patternProperties", "dependentSchemas")

MIN_RESULT_TOKENS = 100
MAX_TIMEOUT_S = 86_400.0

Approval = bool | Callable[[JsonObject], bool]
Validation = Literal["enforce", "shadow"]


@dataclass(frozen=True, eq=False, repr=False)
class Tool:
    """A function that `@tool` decorated. Calling it calls the function without validation, which is useful in tests.

    Raises:
        ConfigError: the declaration contradicts itself. The message says what was expected, what was given, and what to do.

    """

    name: str
    description: str
    validator: JSONSchemaValidator
    function: Callable[..., Any]
    idempotent: bool = False
    """True if the call may run again after a crash. It gets the same idempotency key."""
    timeout_s: float = 30.0
    downstream: str | None = None
    """The downstream, such as `jira`, to which the coordinator admits the calls."""
    requires_approval: Approval = False
    """True if a human decides before the call runs, or a function that answers this for the validated arguments."""
    max_result_tokens: int = 4_000
    retry: RetryConfig | None = None
    inline: bool = False
    """True for a quick and safe tool: it runs within the model step's task."""
    validation: Validation = "enforce"
    """With `shadow`, a call that the schema refuses still runs, and is reported."""
    child: str | None = None
    """Name of an agent, if the call becomes a child job."""
    signature: Signature = field(kw_only=True)

    def __post_init__(self) -> None:
        _check_words(self)
        _check_numbers(self)
        _check_policy(self)
        if self.child is None:
            _check_parameters(self)

    def __repr__(self) -> str:
        return f"Tool({self.name!r})"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self.function(*args, **kwargs)

    @property
    def takes_context(self) -> str | None:
        """Name of the parameter that takes the ToolContext."""
        return self.signature.takes_context

    @cached_property
    def is_coroutine(self) -> bool:
        """Is the function an `async def`? Those run in the process's event loop."""
        call = getattr(self.function, "__call__", None)  # noqa: B004 - a callable object may have an async __call__
        return inspect.iscoroutinefunction(self.function) or inspect.iscoroutinefunction(call)

    @cached_property
    def spec(self) -> ToolSpec:
        """The part of the tool that is sent to a provider."""
        return ToolSpec(name=self.name, description=self.description, input_schema=self.validator.schema)

    @cached_property
    def digest(self) -> str:
        """Hash of the name, description, schema and policies, but not of the function's code."""
        approval = self.requires_approval
        policies = {
            "idempotent": self.idempotent,
            "timeout_s": self.timeout_s,
            "downstream": self.downstream,
            "requires_approval": getattr(approval, "__qualname__", "callable") if callable(approval) else approval,
            "max_result_tokens": self.max_result_tokens,
            "retry": self.retry.model_dump(mode="json") if self.retry else None,
            "inline": self.inline,
            "validation": self.validation,
            "child": self.child,
        }
        everything = canonical_json([self.name, self.description, self.validator.schema, policies])
        return sha256(everything.encode(errors="surrogatepass")).hexdigest()[:16]

    def needs_approval(self, arguments: JsonObject) -> bool:
        """Must a human decide on this call? Yes, also if `requires_approval` raises."""
        if not callable(self.requires_approval):
            return self.requires_approval
        try:
            return bool(self.requires_approval(arguments))
        except Exception:
            return True


def _check_words(given: Any) -> None:
    """Check the values in `given`, an unchecked Tool: Python does not enforce type hints."""
    if not isinstance(given.name, str) or not _NAME.fullmatch(given.name):
        raise ConfigError(
            f"tool name {given.name!r:.100}: expected a letter or _, then letters, digits, _ or -, at most 64 "
            "(what every provider accepts)"
        )
    if not isinstance(given.description, str) or not given.description.strip():
        raise ConfigError(f"tool {given.name}: expected a description (or a docstring): the model chooses by it")
    if not isinstance(given.validator, JSONSchemaValidator):
        came = type(given.validator).__name__
        raise ConfigError(f"tool {given.name}: expected validator=JSONSchemaValidator({{...}}), got a {came}")
    downstream = given.downstream
    if downstream is not None and not (isinstance(downstream, str) and _DOWNSTREAM.fullmatch(downstream)):
        raise ConfigError(
            f"tool {given.name}: downstream: expected a short name such as 'jira', got {downstream!r:.100}; "
            "it becomes part of a Redis key"
        )


def _check_numbers(given: Any) -> None:
    timeout_s, most = given.timeout_s, given.max_result_tokens
    if not isinstance(timeout_s, int | float) or isinstance(timeout_s, bool) or not 0 < timeout_s <= MAX_TIMEOUT_S:
        raise ConfigError(
            f"tool {given.name}: timeout_s: expected seconds above 0, at most {MAX_TIMEOUT_S:.0f}, got {timeout_s!r}"
        )
    if not isinstance(most, int) or isinstance(most, bool) or most < MIN_RESULT_TOKENS:
        raise ConfigError(
            f"tool {given.name}: max_result_tokens: expected a whole number from {MIN_RESULT_TOKENS} on, got {most!r}; "
            "with less, the note that something was left out leaves no room for useful text"
        )


def _check_policy(given: Any) -> None:
    approval, retry = given.requires_approval, given.retry
    if given.validation not in get_args(Validation):
        known = " or ".join(map(repr, get_args(Validation)))
        raise ConfigError(f"tool {given.name}: validation: expected {known}, got {given.validation!r:.100}")
    if not isinstance(approval, bool) and not callable(approval):
        raise ConfigError(f"tool {given.name}: requires_approval: expected True, False or a function, got {approval!r}")
    if retry is not None and not isinstance(retry, RetryConfig):
        raise ConfigError(f"tool {given.name}: retry: expected a RetryConfig, got {retry!r}")
    if retry is not None and retry.max_retries > 0 and not given.idempotent:
        raise ConfigError(
            f"tool {given.name}: retry with idempotent=False: a failed attempt may have taken effect, and another would "
            "repeat it. Set idempotent=True if the tool can be repeated (see ToolContext.idempotency_key), or leave retry out"
        )
    if retry is not None and not given.idempotent and not retry.fail_hard_on:
        raise ConfigError(
            f"tool {given.name}: retry has no effect: a tool with idempotent=False is never tried again; leave retry out, or "
            "name in fail_hard_on the failures that end the job"
        )
    if given.inline and (approval is True or given.downstream):
        other = "requires_approval=True" if approval is True else f"downstream={given.downstream!r}"
        raise ConfigError(
            f"tool {given.name}: inline=True has no effect with {other}: such a call may wait, so it always runs in a task of "
            "its own; leave inline out"
        )


def _check_parameters(tool: Tool) -> None:
    """Check that the function can be called with all arguments that the validator accepts."""
    if inspect.isgeneratorfunction(tool.function) or inspect.isasyncgenfunction(tool.function):
        raise ConfigError(f"tool {tool.name}: a generator has no result; return a list")
    schema, signature = tool.validator.schema, tool.signature
    properties, required = schema.get("properties", {}), schema.get("required", [])
    if any(keyword in schema for keyword in _COMPOSED):
        return  # the top level does not show all properties; each call is checked instead
    missing = [name for name in properties if name not in signature.parameters]
    if missing and not signature.takes_any:
        raise ConfigError(
            f"tool {tool.name}: the schema has {', '.join(map(show, missing))}, the function {signature.name} has no "
            "such parameter; add it, or take **arguments"
        )
    for one in signature.parameters.values():
        if one.required and one.name not in required:
            found = "optional in the schema" if one.name in properties else "not in the schema"
            raise ConfigError(
                f"tool {tool.name}: parameter {one.name!r} has no default and is {found}; give it a default, "
                "or make the property required"
            )
