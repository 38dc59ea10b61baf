"""For authors of agents: run an agent in a plain test, without a server, a network or a wait.

    from midwatch.testing import ScriptedModel, call, run_inline

    result = run_inline(agent, "Where is A-17?", model=ScriptedModel([call("look_up", order="A-17"), "On its way."]))
    assert result.output == "On its way."

All but the model is real: tools run, arguments are validated, failures are retried (without waiting), ceilings hold.
`InlineFleet` is the same with the parts in hand: several jobs, approvals, dead letters and their replay.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.ports import Model
from midwatch.orchestration.testing import real_models
from midwatch.orchestration.testing.inline_fleet import InlineFleet
from midwatch.orchestration.testing.manual_clock import ManualClock
from midwatch.orchestration.testing.scripted_model import ScriptedModel
from midwatch.schemas.job import JobResult
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
        agent: what to run; its children run with it.
        input: what the user says.
        model: a `ScriptedModel` (which must be played to its end), or a function of the request.
        clock: moved on whenever a deferred step must be waited for.
        session_id: of the session, when a tool looks at it.

    Raises:
        AssertionError: the script had too few or too many replies.
        ConfigError: the job did not end in 10,000 steps.

    """
    fleet = InlineFleet(agent, model=model, clock=clock)
    result = fleet.run(fleet.enqueue(agent, input, session_id=session_id))
    if isinstance(model, ScriptedModel) and not model.entered and result.status.ended:
        model.assert_done()
    return result


def forbid_real_models(*, allow: tuple[str, ...] = ()) -> AbstractContextManager[None]:
    """During the block, loading a provider raises a ConfigError that says so; those in `allow` may be loaded.

    In a `conftest.py`, for every test:

        @pytest.fixture(autouse=True)
        def no_real_models():
            with forbid_real_models():
                yield
    """
    return real_models.forbidden(allow)
