"""`midwatch.testing`: scripted models, a clock that only the test moves, and a ban on real models."""

from __future__ import annotations

import pytest

from midwatch import Agent, RetryConfig
from midwatch.orchestration.errors import ConfigError, ModelError
from midwatch.orchestration.testing import real_models
from midwatch.schemas.failure import FailureKind
from midwatch.schemas.job import JobStatus
from midwatch.schemas.message import ToolCall, UserMessage
from midwatch.schemas.model import ModelRequest, Stop
from midwatch.testing import ManualClock, ScriptedModel, call, forbid_real_models, run_inline

AGENT = Agent("clerk", "scripted:m-1", "You help.")
REQUEST = ModelRequest(model="m-1", system="s", messages=(UserMessage(group=1, text="hi"),))


def test_a_script_is_played_line_by_line():
    """A reply may be text, a call, both, a function of the request, or a failure."""
    model = ScriptedModel(
        ["one", call("f", a=1), ["two", call("g")], lambda request: request.messages[0].text, FailureKind.OVERLOADED]
    )
    assert model.complete(REQUEST).text == "one"
    reply = model.complete(REQUEST)
    assert (reply.stop, reply.tool_calls[0].name, reply.tool_calls[0].raw_arguments) == (Stop.TOOLS, "f", '{"a": 1}')
    assert len(model.complete(REQUEST).parts) == 2
    assert model.complete(REQUEST).text == "hi"
    with pytest.raises(ModelError, match="overloaded"):
        model.complete(REQUEST)
    model.assert_done()
    assert model.requests == [REQUEST] * 5


def test_a_call_that_was_written_by_hand_goes_out_as_it_is():
    """Broken arguments and a repeated id are returned unchanged."""
    odd = ToolCall(id="x", name="f", raw_arguments='{"a": ')
    assert ScriptedModel([odd]).complete(REQUEST).tool_calls == (odd,)


def test_an_unexpected_call_fails_the_test():
    """In a fleet the same error would only become a dead letter."""
    with pytest.raises(AssertionError, match="model call 1 was not expected"):
        run_inline(AGENT, "hi", model=ScriptedModel([]))


def test_a_reply_that_was_never_asked_for_fails_the_test():
    """The job ended, and replies of the script are left."""
    with pytest.raises(AssertionError, match="1 of 2 replies were not used; next: 'two'"):
        run_inline(AGENT, "hi", model=ScriptedModel(["one", "two"]))
    with pytest.raises(AssertionError, match="not used"), ScriptedModel(["one"]):
        pass


def test_an_assertion_in_a_reply_reaches_the_test():
    """A function in a script may check the request. Its AssertionError fails the test."""

    def expects_more(request):
        raise AssertionError("no order in the window")

    with pytest.raises(AssertionError, match="no order"):
        run_inline(AGENT, "hi", model=ScriptedModel([expects_more]))
    with pytest.raises(AssertionError, match="no order"):
        run_inline(AGENT, "hi", model=expects_more)


def test_an_error_in_the_block_is_not_hidden_by_the_unplayed_script():
    """The test fails with the first error, not with a report of unused replies."""
    with pytest.raises(ZeroDivisionError), ScriptedModel(["one"]):
        1 / 0  # noqa: B018 - the point is that it raises


def test_one_script_may_serve_several_jobs_in_its_block():
    """The script is checked at the end of the block, and not after each job."""
    with ScriptedModel(["one", "two"]) as model:
        assert run_inline(AGENT, "hi", model=model).output == "one"
        assert run_inline(AGENT, "hi", model=model).output == "two"


def test_waiting_takes_no_time():
    """Retries with long waits take no real time. The clock shows how long they would have taken."""
    clock = ManualClock()
    began_ms = clock.monotonic_ms()
    agent = Agent(
        "clerk", "scripted:m-1", "You help.", retry_config=RetryConfig(base_s=600, cap_s=3_600, jitter="none")
    )
    result = run_inline(agent, "hi", model=ScriptedModel([FailureKind.OVERLOADED] * 2 + ["ok"]), clock=clock)
    assert result.status is JobStatus.COMPLETED
    assert clock.monotonic_ms() - began_ms == 1_800_000


def test_time_does_not_go_back():
    """A negative step is an error in the test, so it raises."""
    clock = ManualClock(5)
    clock.sleep_ms(3)
    assert clock.monotonic_ms() == 8
    with pytest.raises(ValueError, match="got -1"):
        clock.advance(-1)


def test_real_models_can_be_forbidden():
    """The ban lasts for a block. In nested blocks, each ban applies."""
    real_models.check("anthropic")
    with forbid_real_models(allow=("openai-compatible",)):
        real_models.check("openai-compatible")
        with pytest.raises(ConfigError, match="'anthropic' was about to be called"):
            real_models.check("anthropic")
        with forbid_real_models(), pytest.raises(ConfigError):
            real_models.check("openai-compatible")
    real_models.check("anthropic")
