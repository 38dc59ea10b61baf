"""The promise about the active prompt, for any conversation and any budget."""

from __future__ import annotations

from hashlib import sha1

from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch import Agent, ContextBudget
from midwatch.orchestration.context.planning.plan import SPARE, find_prompt
from midwatch.orchestration.context.planning.room import Room
from midwatch.orchestration.context.strategies import STRATEGIES
from midwatch.orchestration.context.window import note_weight
from midwatch.orchestration.protocol.compactions import CompactionWork
from midwatch.orchestration.tokens.weight import weigh_message
from midwatch.schemas.message import AssistantMessage, Message, NoteMessage, Text, ToolCall, ToolMessage, UserMessage
from midwatch.schemas.step import StepRef
from midwatch.workers.bench.context.windows import split_groups

TEXTS = st.sampled_from(
    ["all is well. ", '{"id": "W-1", "n": 1.5}\n', "7,2026-01-02,3.5\n", "订单已经交付。", "aGVsbG8gd29ybGQh"]
)
SIZES = st.integers(1, 400)
AGENT = Agent("clerk", "scripted:m-1", "You help.", context_budget=ContextBudget(max_tokens=10_000))


@st.composite
def talks(draw: st.DrawFn) -> list[Message]:
    """Generate a session of one or more jobs: prompts of any size, notes, and turns of up to three calls."""
    log: list[Message] = []
    for group in range(1, draw(st.integers(2, 9))):
        kind = draw(st.sampled_from(["prompt", "turn", "turn", "note"])) if group > 1 else "prompt"
        text = draw(TEXTS) * draw(SIZES)
        if kind == "turn":
            calls = tuple(ToolCall(id=f"c{n}", name="look", raw_arguments="{}") for n in range(draw(st.integers(0, 3))))
            log.append(AssistantMessage(group=group, parts=(Text(text="Well."), *calls), provider="p", model="m"))
            log += [
                ToolMessage(group=group, ordinal=n, call_id=call.id, tool="look", content=text)
                for n, call in enumerate(calls)
            ]
        else:
            log.append((UserMessage if kind == "prompt" else NoteMessage)(group=group, text=text))
    return log


@settings(deadline=None, max_examples=150)
@given(
    talks(), st.integers(1_000, 12_000), st.floats(0.3, 0.75), st.sampled_from(["summarize_and_trim", "trim_oldest"])
)
def test_the_active_prompt_is_verbatim_if_it_fits_with_the_newest_group(
    log: list[Message], full: int, shrink_to: float, strategy: str
) -> None:
    """It is cut only if a call has no room for both. Then the plan says so. The result always fits into a call."""
    weights = tuple(map(weigh_message, log))
    prompt_at = find_prompt(log)
    work = CompactionWork(
        StepRef(job_id="j", session_id="s", step="3c"), "n", 0, "j", None, None, tuple(log), weights,
        sha1(b"").hexdigest(),
    )  # fmt: skip
    done = STRATEGIES[strategy].compact(work, AGENT, Room(full, int(full * shrink_to), full), never)
    after = dict(done.replaced)
    newest = sum(weights[at] for at, one in enumerate(log) if one.group == log[-1].group and at != prompt_at)
    assert prompt_at not in done.removed
    assert done.is_prompt_cut == (prompt_at in after)
    if weights[prompt_at] + newest + SPARE <= full:
        assert not done.is_prompt_cut
    kept = [after.get(at, one) for at, one in enumerate(log) if at not in done.removed]
    memory = note_weight(done.memory) if done.memory else 0
    assert sum(map(weigh_message, kept)) + memory <= full
    assert split_groups(kept) == 0


def never(*_: object) -> object:
    """Fails if a model is called."""
    raise AssertionError("no summary_model was named")
