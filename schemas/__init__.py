"""The nouns: every shape that crosses a process or is stored. Frozen pydantic models; no I/O, no clock, no chance."""

DISTRIBUTION = "midwatch"
"""What `orchestration` looks for to be sure that no other package named `schemas` shadows this one."""
