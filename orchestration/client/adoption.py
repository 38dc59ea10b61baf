"""A producer's child: `enqueue(parent=...)` checks the parent, and counts the child for it, before the child is enqueued."""

from __future__ import annotations

from midwatch.orchestration.admission import ancestry
from midwatch.orchestration.admission.functions import COORDINATOR
from midwatch.orchestration.errors import NotFound, Refused
from midwatch.orchestration.protocol.lineage import Chain, OverAncestor, deepest_level, own_chain, time_left
from midwatch.orchestration.store.operations import Operations
from midwatch.orchestration.store.pipelines import run_pipeline
from midwatch.orchestration.store.reads import find_over
from midwatch.orchestration.store.script_calls import operate
from midwatch.orchestration.store.scripts import Scripts
from midwatch.orchestration.store.step_keys import step_keys
from midwatch.schemas.job import Parent
from midwatch.schemas.policy import RunLimits

PATIENCE_MS = 1_000
"""How long an adoption keeps trying to reach the server."""

UNKNOWN = RunLimits()
"""The limits of children and depth of a parent that was enqueued by name, until its first step."""


class Adoption:
    """One producer's child of one parent.

    Raises:
        NotFound: there is no such parent.
        Refused: the parent has another tenant, is too deep, or is over, or an ancestor of it is.

    """

    def __init__(self, operations: Operations, parent_id: str, tenant: str | None) -> None:
        self._operations = operations
        self._parent = operations.job(parent_id)
        self._chain: Chain = own_chain(self._parent)
        self._check_tenant(tenant)
        self._check_depth()
        self.tenant = self._parent.tenant
        """The child has its parent's tenant."""

    def parent(self) -> Parent:
        """The parent, as the child's record names it."""
        job = self._parent
        ref = self._operations.first_step(job).model_copy(update={"step": "0"})
        return Parent(
            ref=ref,
            root_id=job.root_id,
            depth=job.depth + 1,
            ancestors=self._chain,
            **time_left(job, _now_ms(self._operations))._asdict(),
        )

    def adopt(self, child_id: str) -> None:
        """Count the child for its parent. A repetition for the same child counts once.

        Raises:
            Refused: the parent is over, or has all the children that it may have.

        """
        parent = self._parent
        answer = self._record(child_id, is_added=True)
        if answer == "gone":
            raise NotFound(f"no job {parent.job_id!r}: its retention is over")
        over = None if answer in ("adopted", "known") else OverAncestor(parent.job_id, answer, is_parent=True)
        if answer == "adopted":
            over = find_over(self._operations.client, self._operations.keys, parent)
        if over:
            self._record(child_id, is_added=False)
            why = over.verb if over.job_id == parent.job_id else f"has nothing more to do: {over}"
            raise Refused(f"job {parent.job_id!r} {why}. It can have no more children")
        # Read what the parent has used so far. A turn that was under way must reserve its calls, now that there is a child.
        self._parent = self._operations.job(parent.job_id)
        self._chain = own_chain(self._parent)
        limit = self._count(child_id, is_added=True)
        if limit is not None:
            self._record(child_id, is_added=False)
            raise Refused(f"job {parent.job_id!r} may have {limit} children (max_children) and has them")

    def forget(self, child_id: str) -> None:
        """Take back an adoption, because the child was not enqueued."""
        self._count(child_id, is_added=False)
        self._record(child_id, is_added=False)

    def _check_tenant(self, tenant: str | None) -> None:
        own = self._parent.tenant
        if tenant is not None and tenant != own:
            whose = f"tenant {own!r}" if own else "no tenant"
            raise Refused(
                f"tenant={tenant!r}: the parent, job {self._parent.job_id!r}, has {whose}, and so have its children; "
                "leave tenant out, or enqueue without parent"
            )

    def _check_depth(self) -> None:
        deepest = deepest_level(self._chain)
        deepest = UNKNOWN.max_depth if deepest is None else deepest
        if self._parent.depth >= deepest:
            raise Refused(
                f"job {self._parent.job_id!r} can have no children: jobs may be nested {deepest} deep (max_depth), and it is"
            )

    def _record(self, child_id: str, *, is_added: bool) -> str:
        keys = step_keys(self._operations.keys, self._operations.first_step(self._parent))
        call = operate.adopt(keys, child=child_id, is_added=is_added)
        return Scripts(self._operations.client).run(call, patience_ms=PATIENCE_MS)

    def _count(self, child_id: str, *, is_added: bool) -> int | None:
        scripts = Scripts(self._operations.client, COORDINATOR)
        return ancestry.adopt(
            scripts, self._operations.keys, self._parent, self._chain, child_id,
            is_added=is_added, most_if_unknown=UNKNOWN.max_children,
        )  # fmt: skip


def _now_ms(operations: Operations) -> int:
    """The server's time."""
    pipe = operations.client.pipeline(transaction=False)
    pipe.time()
    ((seconds, micros),) = run_pipeline(pipe)
    return int(seconds) * 1_000 + int(micros) // 1_000
