"""Stray 429s, simulated: a downstream that refuses some calls by chance, with or without a limit that it does not name."""

from __future__ import annotations

from midwatch.workers.bench.strays.cells import Cell, make_cells
from midwatch.workers.bench.strays.run import run, simulate

__all__ = ["Cell", "make_cells", "run", "simulate"]
