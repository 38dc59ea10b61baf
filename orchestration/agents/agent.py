"""Agent: name, pinned model, prompt, tools, policies. Immutable. Its version is a digest of all of these."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from midwatch.orchestration.agents import contradictions
from midwatch.orchestration.agents.model_names import ModelName, pinning_of
from midwatch.orchestration.dialects import rules
from midwatch.orchestration.errors import ConfigError, RunInsideTool
from midwatch.orchestration.tokens.weight import weigh
from midwatch.orchestration.tools.declaration import Tool
from midwatch.orchestration.tools.inside import is_inside_tool
from midwatch.orchestration.tools.toolbox import Toolbox, agent_tool
from midwatch.orchestration.validation.validator import JSONSchemaValidator
from midwatch.schemas.contract import JsonObject, Name, canonical_json
from midwatch.schemas.policy import ContextBudget, Escalation, GoalContract, ModelPolicy, RetryConfig, RunLimits

if TYPE_CHECKING:
    from midwatch.orchestration.client.handle import JobHandle
    from midwatch.orchestration.client.job_result import JobResult

P = TypeVar("P", bound=BaseModel)
_NAME: TypeAdapter[str] = TypeAdapter(Name)


class Agent:
    """What a job runs. The constructor checks everything that can be checked without a network.

    Args:
        name: its name in jobs, traces and the command line; letters, digits, `_`, `-`.
        model: a vendor's pinned model name, or `provider:model`.
        system_prompt: sent first in every call, unchanged.
        tools: `@tool` functions, in the order in which the model gets them.
        retry_config: which failures are retried, how often, and how soon.
        context_budget: how many tokens one call may have.
        limits: hard limits of one job.
        output_schema: a pydantic model or JSON Schema that the final answer must satisfy.
        model_policy: whether a moving model name is allowed, and what happens when the model changes.
        goal: objective and deliverables, sent to the model verbatim.
        escalation: when a human decides.
        children: agents that the model can call as tools (see `as_tool`).
        fallback_models: models to use instead of `model`, the best first.

    Raises:
        ConfigError: a declaration is wrong. The message says what was expected, what was given, and what to do.

    """

    def __init__(
        self,
        name: str,
        model: str,
        system_prompt: str,
        tools: Sequence[Tool] = (),
        *,
        retry_config: RetryConfig | None = None,
        context_budget: ContextBudget | None = None,
        limits: RunLimits | None = None,
        output_schema: type[BaseModel] | JsonObject | None = None,
        model_policy: ModelPolicy | None = None,
        goal: GoalContract | None = None,
        escalation: Sequence[Escalation] = (),
        children: Sequence[Agent] = (),
        fallback_models: Sequence[str] = (),
        **unknown: Any,
    ) -> None:
        if unknown:
            raise ConfigError(_unknown_keyword(next(iter(unknown))))
        try:
            self.name = _NAME.validate_python(name)
        except ValidationError as error:
            raise ConfigError(
                f"agent name {name!r}: expected a letter or _, then letters, digits, _ or -, at most 64"
            ) from error
        self.model_policy = _policy(model_policy, ModelPolicy, "model_policy")
        self.model = _model(self.name, model, self.model_policy)
        if not isinstance(system_prompt, str) or not system_prompt.strip():
            raise ConfigError(f"agent {name!r}: expected a system_prompt with text in it, got {system_prompt!r}")
        self.system_prompt = system_prompt
        self.children = tuple(_agent(self.name, child) for child in children)
        self.tools = tuple(tools) + tuple(
            child.as_tool(f"Hand a task over to {child.name}.")
            for child in children
            if not any(isinstance(t, Tool) and t.child == child.name for t in tools)
        )
        self.toolbox = Toolbox(self.tools)
        self.retry_config = _policy(retry_config, RetryConfig, "retry_config")
        default_budget = ContextBudget(max_tokens=120_000)
        self.context_budget = _policy(context_budget or default_budget, ContextBudget, "context_budget")
        summary = self.context_budget.summary_model
        self.summary_model = None if summary is None else _model(self.name, summary, self.model_policy)
        self.limits = _policy(limits, RunLimits, "limits")
        self.output_model = output_schema if isinstance(output_schema, type) else None
        self.output_schema = _output_schema(self.name, output_schema)
        self.output_validator = _output_validator(self.name, self.output_schema)
        self.goal = _policy(goal, GoalContract, "goal") if goal is not None else None
        self.escalation = tuple(_policy(rule, Escalation, "escalation") for rule in escalation)
        self.fallback_models = tuple(_model(self.name, fallback, self.model_policy) for fallback in fallback_models)
        self.all_models = (self.model, *self.fallback_models, *((self.summary_model,) if self.summary_model else ()))
        self._refuse_contradictions()
        providers = [model.provider for model in (self.model, *self.fallback_models)]
        self.schema_differences = rules.check_all(providers, self.toolbox.specs, self.output_schema)
        """Where a provider treats a schema of this agent differently from how it is written: see `dialects`."""
        self.version = self._digest()
        self.fixed_weight = weigh(self.system) + sum(weigh(spec.model_dump_json()) for spec in self.toolbox.specs)
        """Weight of the fixed part of every call: prompt, goal, tools."""

    def __repr__(self) -> str:
        return f"Agent({self.name!r}, {str(self.model)!r}, version={self.version})"

    @property
    def system(self) -> str:
        """The system prompt as sent, with the goal and the pinned texts if there are any. Compactions never change it."""
        lines = [self.system_prompt]
        if self.goal is not None:
            lines += ["", "# Goal", self.goal.objective]
            lines += [f"- deliver: {item}" for item in self.goal.deliverables]
            lines += [f"- constraint: {item}" for item in self.goal.constraints]
        if self.context_budget.pin:
            lines += ["", "# Always true", *(f"- {text}" for text in self.context_budget.pin)]
        return "\n".join(lines)

    def run(self, input: str, *, session_id: str | None = None, timeout_s: float | None = None) -> JobResult:
        """Enqueue a job and wait for its result. The fleet does the work, not this process.

        Raises:
            RunInsideTool: `run` was called inside a tool. Use `as_tool` instead.
            JobTimeout: `timeout_s` ran out. The job goes on.
            StoreUnavailable: Redis can't be reached.

        """
        if is_inside_tool():
            raise RunInsideTool(
                "agent.run can't be used inside a tool: the worker would wait for its own fleet. Offer the other "
                f"agent as a tool instead: tools=[{self.name}.as_tool('what it does')]"
            )
        return self.enqueue(input, session_id=session_id).result(timeout_s)

    def enqueue(
        self,
        input: str,
        *,
        session_id: str | None = None,
        idempotency_key: str | None = None,
        priority: str = "normal",
        tenant: str | None = None,
        parent: JobHandle | None = None,
    ) -> JobHandle:
        """Enqueue a job and return its handle. A repeated `idempotency_key` gives the same job, with `accepted=False`."""
        from midwatch.orchestration.client.client import default_client

        return default_client().enqueue(
            self,
            input,
            session_id=session_id,
            idempotency_key=idempotency_key,
            priority=priority,
            tenant=tenant,
            parent=parent,
        )

    def as_tool(self, description: str) -> Tool:
        """Make this agent a tool for another one. A call of it becomes a child job in the same lineage."""
        return agent_tool(self.name, description)

    def asks_human(self, when: str, tool: str = "") -> bool:
        """Is there an escalation rule for `when` (and for this tool)?"""
        return any(rule.when == when and (not rule.tools or tool in rule.tools) for rule in self.escalation)

    def _refuse_contradictions(self) -> None:
        models = (self.model, *self.fallback_models)
        for problem in (
            *contradictions.find_in_names(self.limits, self.escalation, self.tools),
            *contradictions.find_in_models(models, self.summary_model, self.model_policy, self.context_budget),
            *contradictions.find_in_retries(self.retry_config, self.tools),
            *contradictions.find_in_escalation(self.escalation, self.limits, self.tools),
        ):
            raise ConfigError(f"agent {self.name!r}: {problem}")

    def _digest(self) -> str:
        policies = (self.retry_config, self.context_budget, self.limits, self.model_policy, self.goal, *self.escalation)
        everything = [
            self.name,
            str(self.model),
            self.system_prompt,
            [tool.digest for tool in self.tools],
            [policy.model_dump(mode="json") if policy else None for policy in policies],
            self.output_schema,
            [str(model) for model in self.fallback_models],
        ]
        return sha256(canonical_json(everything).encode()).hexdigest()[:12]


def _unknown_keyword(name: str) -> str:
    known = [
        parameter for parameter in inspect.signature(Agent.__init__).parameters if parameter not in ("self", "unknown")
    ]
    close = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    return f"Agent got an unknown keyword {name!r}; {hint}"


def _policy(value: P | None, kind: type[P], name: str) -> P:
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise ConfigError(f"{name}: expected a {kind.__name__}, got {value!r}")
    return value


def _agent(name: str, child: object) -> Agent:
    if not isinstance(child, Agent):
        raise ConfigError(f"agent {name!r}: children: expected agents, got {child!r:.200}")
    return child


def _model(agent: str, name: str, policy: ModelPolicy) -> ModelName:
    parsed = ModelName.parse(name)
    if pinning_of(parsed.provider, parsed.model) == "alias" and not policy.allow_alias:
        raise ConfigError(
            f"agent {agent!r}: model {name!r} is a moving name: the vendor can change the model behind it at any time; "
            "name a pinned version, or set model_policy=ModelPolicy(allow_alias=True)"
        )
    return parsed


def _output_schema(agent: str, schema: type[BaseModel] | JsonObject | None) -> JsonObject | None:
    if schema is None or isinstance(schema, dict):
        return schema
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return schema.model_json_schema()
    raise ConfigError(f"agent {agent!r}: output_schema: expected a pydantic model or a JSON Schema, got {schema!r}")


def _output_validator(agent: str, schema: JsonObject | None) -> JSONSchemaValidator | None:
    """Build the validator now, so that an impossible schema is refused before the first job, not after its last turn."""
    if schema is None:
        return None
    try:
        return JSONSchemaValidator(schema)
    except ConfigError as error:
        raise ConfigError(f"agent {agent!r}: output_schema: {error}") from error
