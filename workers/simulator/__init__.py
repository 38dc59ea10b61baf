"""A model server on loopback that speaks what the vendors' SDKs speak, with faults on demand.

from workers.simulator import Faults, ModelServer, Say, ScriptBrain, Use

brain = ScriptBrain([Use([("find_order", {"order_id": "W1"})]), "It is on its way."])
with ModelServer(brain, faults=Faults(rate_limited=0.1, seed=7)) as server:
    ...  # point ANTHROPIC_BASE_URL at server.url, OPENAI_BASE_URL at server.openai_url
    assert server.stats().unexpected == 0
"""

from __future__ import annotations

from workers.simulator.brain import Answer, Brain, Call, Conversation, Say, ToolOffer, Turn, UnexpectedCall, Use
from workers.simulator.faults import Fault, Faults
from workers.simulator.journal import Entry, Stats
from workers.simulator.rules import RuleBrain
from workers.simulator.script import ScriptBrain
from workers.simulator.server import ModelServer
from workers.simulator.transcript import TranscriptBrain

__all__ = [
    "Answer",
    "Brain",
    "Call",
    "Conversation",
    "Entry",
    "Fault",
    "Faults",
    "ModelServer",
    "RuleBrain",
    "Say",
    "ScriptBrain",
    "Stats",
    "ToolOffer",
    "TranscriptBrain",
    "Turn",
    "UnexpectedCall",
    "Use",
]
