"""Declare a tool and an agent, and run a job.

In this folder, start `MIDWATCH_AGENTS=quickstart midwatch dev`. Then run `python quickstart.py` in another terminal, in the same
folder. If `ANTHROPIC_API_KEY` is not set, a simulated model answers and says so.
"""

from midwatch import Agent, tool

TIDES = {"Brackwater": "04:12 and 16:39", "Sandholm": "05:01 and 17:24"}


@tool(idempotent=True)
def high_water(harbour: str) -> str:
    """Today's times of high water in a harbour."""
    return TIDES.get(harbour, f"no table for {harbour}; there is one for {', '.join(TIDES)}")


clerk = Agent("tide-clerk", "claude-sonnet-4-6", "Answer sailors, from the tables only.", tools=[high_water])

if __name__ == "__main__":
    print(clerk.run("When can I leave Sandholm today?", timeout_s=60).output)
