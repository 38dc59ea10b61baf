"""What a worker and the separate process of a suspect step tell each other: the order, and the reports over a pipe."""

from __future__ import annotations

from midwatch.schemas.contract import Contract
from midwatch.schemas.step import StepRef

BEGUN, RUNS, DONE = b"b", b".", b"d"
"""Reports to the worker: the step begins; this process's threads run; the step was brought to an outcome."""

REPORT_S = 0.5


class Order(Contract):
    """What this process has to do."""

    ref: StepRef
    nonce: str
    """Continues the worker's claim."""
    agent: str
    """Of the step's job."""
    node: str
    """The Celery name of the worker, for Flower."""
