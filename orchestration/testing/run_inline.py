"""For authors of agents: run an agent in a plain test, without a server, a network or waiting.

    from midwatch.testing import ScriptedModel, call, run_inline

    result = run_inline(agent, "Where is A-17?", model=ScriptedModel([call("look_up", order="A-17"), "On its way."]))
    assert result.output == "On its way."

Only the model is replaced: tools run, arguments are validated, failures are retried (without waiting), limits apply. Use
`InlineFleet` for tests of several jobs, of approvals, and of dead letters and their replay.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.client.job_result import JobResult
from midwatch.orchestration.ports import Model
from midwatch.orchestration.testing import real_models
from midwatch.orchestration.testing.inline_fleet import InlineFleet
from midwatch.orchestration.testing.manual_clock import ManualClock
from midwatch.orchestration.testing.scripted_model import ScriptedModel
from midwatch.schemas.model import ModelReply, ModelRequest


def run_inline(
    agent: Agent,
    input: str,
    *,
    model: Model | Callable[[ModelRequest], ModelReply],
    clock: ManualClock | None = None,
    session_id: str | None = None,
) -> JobResult:
    """Run one job of an agent to its end, in this thread, without a server.

    Args:
        agent: the agent to run. The agents that it uses as tools run too.
        input: the input of the job.
        model: a `ScriptedModel` (the run must use all its replies), or a function of the request.
        clock: it moves to the time of each deferred step.
        session_id: the id of the session, if a tool reads it.

    Raises:
        AssertionError: the script of the model had too few or too many replies.
        ConfigError: the job did not end in 10,000 steps.

    """
    fleet = InlineFleet(agent, model=model, clock=clock)
    result = fleet.run(fleet.enqueue(agent, input, session_id=session_id))
    if isinstance(model, ScriptedModel) and not model.entered and result.status.ended:
        model.assert_done()
    return result


def forbid_real_models(*, allow: tuple[str, ...] = ()) -> AbstractContextManager[None]:
    """During the block, loading a provider raises ConfigError. Providers in `allow` may be loaded.

    In a `conftest.py`, for every test:

        @pytest.fixture(autouse=True)
        def no_real_models():
            with forbid_real_models():
                yield
    """
    return real_models.forbid(allow)
