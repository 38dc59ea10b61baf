"""A model server on loopback that the vendors' SDKs can call, with faults on demand.

from midwatch.workers.simulator import Faults, ModelServer, Say, ScriptBrain, Use

brain = ScriptBrain([Use([("find_order", {"order_id": "W1"})]), "It is on its way."])
with ModelServer(brain, faults=Faults(rate_limited=0.1, seed=7)) as server:
    ...  # point ANTHROPIC_BASE_URL at server.url, OPENAI_BASE_URL at server.openai_url
    assert server.stats().unexpected == 0
"""

from __future__ import annotations

from midwatch.workers.simulator.brains.brain import (
    Answer,
    Brain,
    Conversation,
    ConversationTurn,
    Say,
    SimulatedCall,
    ToolOffer,
    UnexpectedCall,
    Use,
)
from midwatch.workers.simulator.brains.rules import RuleBrain
from midwatch.workers.simulator.brains.script import ScriptBrain
from midwatch.workers.simulator.brains.transcript import TranscriptBrain
from midwatch.workers.simulator.faults.faults import Fault, Faults
from midwatch.workers.simulator.journal import Entry, Stats
from midwatch.workers.simulator.server import ModelServer

__all__ = [
    "Answer",
    "Brain",
    "Conversation",
    "ConversationTurn",
    "Entry",
    "Fault",
    "Faults",
    "ModelServer",
    "RuleBrain",
    "Say",
    "ScriptBrain",
    "SimulatedCall",
    "Stats",
    "ToolOffer",
    "TranscriptBrain",
    "UnexpectedCall",
    "Use",
]
