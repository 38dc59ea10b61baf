"""@tool and Toolbox: declare a tool, find it by the name a model used, let through only arguments that pass."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal, overload

from midwatch.orchestration.errors import ConfigError, RunInsideTool
from midwatch.orchestration.tools.declaration import Approval, Tool, Validation
from midwatch.orchestration.tools.docstrings import read_docstring
from midwatch.orchestration.tools.result_pages import READ_RESULT, RECALL
from midwatch.orchestration.tools.signature import Signature
from midwatch.orchestration.validation.arguments import InvalidArguments, parse_arguments
from midwatch.orchestration.validation.problems import explain, properties_line
from midwatch.orchestration.validation.validator import JSONSchemaValidator
from midwatch.schemas.contract import JsonObject, canonical_json
from midwatch.schemas.message import ToolCall
from midwatch.schemas.policy import RetryConfig
from midwatch.schemas.tools import ToolSpec

MAX_NAMES_TOLD = 40
"""Tools listed to a model that asked for one that isn't there."""


@overload
def tool(name: Callable[..., Any], /) -> Tool: ...


@overload
def tool(
    name: str | None = None,
    description: str | None = None,
    validator: JSONSchemaValidator | None = None,
    *,
    idempotent: bool = False,
    timeout_s: float = 30.0,
    downstream: str | None = None,
    requires_approval: Approval = False,
    max_result_tokens: int = 4_000,
    retry: RetryConfig | None = None,
    inline: bool = False,
    validation: Validation = "enforce",
) -> Callable[[Callable[..., Any]], Tool]: ...


def tool(
    name: str | Callable[..., Any] | None = None,
    description: str | None = None,
    validator: JSONSchemaValidator | None = None,
    **policies: Any,
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a function a tool. On a documented, typed function a bare `@tool` is enough.

    Args:
        name: What the model calls it; the function's name by default.
        description: What the model chooses it by; the docstring's first paragraph by default.
        validator: Judges the arguments; made from the type hints and the docstring's `Args:` by default.
        **policies: `idempotent`, `timeout_s`, `downstream`, `requires_approval`, `max_result_tokens`, `retry`,
            `inline`, `validation`: see `Tool`.

    Raises:
        ConfigError: the declaration is incomplete or contradicts itself.

    """
    if callable(name):
        return _declare(name, None, description, validator, policies)
    return lambda function: _declare(function, name, description, validator, policies)


def _declare(
    function: Callable[..., Any],
    name: str | None,
    description: str | None,
    validator: JSONSchemaValidator | None,
    policies: dict[str, Any],
) -> Tool:
    given: object = function
    if not callable(given) or isinstance(given, (Tool, type)):
        raise ConfigError(f"@tool: expected a function, got {given!r:.200}")
    signature = Signature.of(function, schema_given=validator is not None)
    documented = read_docstring(getattr(function, "__doc__", None))
    return Tool(
        name=signature.name if name is None else name,
        description=documented.summary if description is None else description,
        validator=JSONSchemaValidator(signature.schema(documented.parameters)) if validator is None else validator,
        function=function,
        signature=signature,
        **policies,
    )


def agent_tool(agent: str, description: str) -> Tool:
    """An agent as a tool: the call becomes a child job with the text in `input`."""
    schema = {
        "type": "object",
        "properties": {
            "input": {"type": "string", "minLength": 1, "description": "The whole task; the agent sees nothing else."}
        },
        "required": ["input"],
        "additionalProperties": False,
    }

    def run(input: str) -> str:
        raise RunInsideTool(f"{agent} is an agent: its call becomes a child job, it can't be called as a function")

    signature = Signature.of(run, schema_given=True)
    return Tool(agent, description, JSONSchemaValidator(schema), run, idempotent=True, child=agent, signature=signature)


@dataclass(frozen=True)
class CheckedCall:
    """A call that may run: `arguments` satisfy the tool's schema, and convert to what its function takes."""

    tool: Tool
    arguments: JsonObject
    shadowed: str = ""
    """Why the schema refuses them, when the tool is in shadow and the call runs all the same."""


@dataclass(frozen=True)
class RefusedCall:
    """A call that must not run. `message` is the answer to the model."""

    kind: Literal["unknown_tool", "bad_json", "cut_off", "schema"]
    """`cut_off`: the text ends inside a value, which is a limit's fault rather than the model's."""
    message: str


class Toolbox:
    """The tools of one agent, in the order in which they are offered.

    Raises:
        ConfigError: something is no tool, or two have one name.

    """

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._tools: dict[str, Tool] = {}
        for one in tools:
            given: object = one
            if not isinstance(given, Tool):
                raise ConfigError(f"tools: expected what @tool makes, got {given!r:.200}; decorate it with @tool")
            if one.name in (READ_RESULT.name, RECALL):
                raise ConfigError(f"tools: {one.name!r} is one of the runtime's own tools; rename yours")
            if one.name in self._tools:
                raise ConfigError(
                    f"tools: two tools are named {one.name!r}; a model could not tell them apart, rename one"
                )
            self._tools[one.name] = one
        self.specs: tuple[ToolSpec, ...] = tuple(one.spec for one in self._tools.values())

    def get(self, name: str) -> Tool | None:
        """The tool of that name."""
        return self._tools.get(name)

    def check(self, call: ToolCall) -> CheckedCall | RefusedCall:
        """Is this a call of one of these tools, with arguments that it takes? Nothing runs that has not passed here."""
        found = self._tools.get(call.name)
        if found is None:
            return RefusedCall("unknown_tool", self._unknown(call.name))
        refused = f"{found.name} was not run: its arguments are not valid.\n"
        try:
            arguments = parse_arguments(call.raw_arguments, has_required=found.validator.has_required)
        except InvalidArguments as error:
            kind: Literal["cut_off", "bad_json"] = "cut_off" if error.kind == "cut_off" else "bad_json"
            return RefusedCall(kind, f"{refused}{error}\n{properties_line(found.validator.schema)}")
        problems, shadowed = found.validator.problems(arguments), ""
        if problems and found.validation == "shadow":
            problems, shadowed = (), explain(problems, found.validator.schema)
        if not problems:
            problems = (*found.signature.mismatch(arguments), *found.signature.convert(arguments)[1])
        if problems:
            return RefusedCall("schema", refused + explain(problems, found.validator.schema))
        return CheckedCall(found, arguments, shadowed)

    def _unknown(self, name: str) -> str:
        close = difflib.get_close_matches(name[:100], self._tools, 3, 0.5)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        names = list(self._tools)
        more = f" and {len(names) - MAX_NAMES_TOLD} more" if len(names) > MAX_NAMES_TOLD else ""
        there = (
            f"The tools are: {', '.join(names[:MAX_NAMES_TOLD])}{more}."
            if names
            else "There are no tools; answer in words."
        )
        return f"There is no tool {name[:100]!r}.{hint} {there}"


def idempotency_key(job_id: str, step: str, tool: str, arguments: JsonObject) -> str:
    """The same for every try at one call, different for any other: made of where the call stands and what it says.

    Never of the provider's call id: in recorded sessions 73 of 1,164 ids were used again, 71 of them for another call.
    """
    said = canonical_json([job_id, step, tool, arguments])
    return "mw-" + sha256(said.encode(errors="surrogatepass")).hexdigest()[:32]
