"""All Redis keys: the type of each, its content, and its time to live. `docs/keyspace.md` is generated from this module.

All keys of a session and its jobs have the hash tag of the session's partition. So a script may use them together on Redis
Cluster, and the indexes that a steward reads (`due`, `owed`) change in the same script as their step.
"""

from __future__ import annotations

from binascii import crc32
from dataclasses import dataclass

PARTITIONS = 16
"""Fixed. The partition of a session is `crc32(session id) % 16`, so with another number every session would be lost."""

KEPT_S = 7 * 24 * 3600
"""How long a session and its jobs are kept after their last step."""

ORIGINALS_BYTES = 64_000_000
"""Most bytes of a session's archived groups and whole results, compressed. Compression makes a group 4.8 times smaller (measured
on recorded sessions, of which the largest took 0.1 MB)."""

HELD_S = 90 * 24 * 3600
"""How long a session and its jobs are kept if a dead letter or a parked call waits for a human. The job listing covers this
time too."""


@dataclass(frozen=True)
class Key:
    """One row of `docs/keyspace.md`."""

    pattern: str
    type: str
    holds: str
    ttl: str


def partition(session_id: str) -> int:
    """The partition of a session. It uses crc32, since `hash` differs between processes."""
    return crc32(session_id.encode()) % PARTITIONS


class Keyspace:
    """The keys of one fleet, which all begin with its `MIDWATCH_PREFIX`."""

    CATALOGUE = (
        Key("{prefix}:job:{job}", "STRING", "session id of the job, from which its partition follows", "kept"),
        Key("{prefix}:{p}:session:{sid}", "HASH", "active job, groups, log epoch, flags, bytes of originals", "kept"),
        Key(
            "{prefix}:{p}:session:{sid}:log",
            "LIST",
            "messages in order, one entry each; a group's entries are contiguous",
            "kept",
        ),
        Key("{prefix}:{p}:session:{sid}:waiting", "LIST", "`job|priority` of jobs that wait for the session", "kept"),
        Key("{prefix}:{p}:session:{sid}:results", "HASH", "handle -> whole tool result, compressed", "kept"),
        Key(
            "{prefix}:{p}:session:{sid}:memory", "STRING", "the memory of the session's compacted groups, JSON", "kept"
        ),
        Key("{prefix}:{p}:session:{sid}:archive", "HASH", "group -> its original messages, compressed", "kept"),
        Key(
            "{prefix}:{p}:session:{sid}:originals",
            "LIST",
            "`archive|group` or `results|handle`, the oldest first: the order of deletion when there are too many bytes",
            "kept",
        ),
        Key("{prefix}:{p}:job:{job}", "HASH", "the job: status, turn, limits, counters, output, failure", "kept"),
        Key(
            "{prefix}:{p}:job:{job}:steps",
            "HASH",
            "step -> row of the current turn (state, fence, lease, attempt), and its calls",
            "kept",
        ),
        Key("{prefix}:{p}:job:{job}:trace", "LIST", "one TraceRecord per attempt", "kept"),
        Key(
            "{prefix}:{p}:due",
            "ZSET",
            "step -> ms when the steward publishes it: it was deferred, or its lease ran out",
            "none: entries leave with their step",
        ),
        Key(
            "{prefix}:{p}:owed",
            "ZSET",
            "step -> ms when it was published; it is not claimed yet",
            "none: entries leave with their step",
        ),
        Key(
            "{prefix}:{p}:jobs",
            "ZSET",
            "job -> ms of its creation: the listing",
            "held: older entries are trimmed on enqueue",
        ),
        Key("{prefix}:{p}:unreadable", "HASH", "step -> how often a worker could not read its records", "kept"),
        Key("{prefix}:{p}:dead", "ZSET", "job -> ms of its dead letter", "none: entries leave by replay or discard"),
        Key("{prefix}:{p}:letters", "HASH", "job -> DeadLetterRecord", "none: entries leave by replay or discard"),
        Key(
            "{prefix}:{p}:drift:{hour}",
            "HASH",
            "`calls` or `invalid`, model, tool, context band and kind, joined by bars -> number of calls in this hour",
            "8 days",
        ),
        Key("{prefix}:{p}:counters", "HASH", "counters of the fleet, by name", "none: bounded by the set of names"),
        Key(
            "{prefix}:{gate}:at:{downstream}",
            "HASH",
            "limits and state of a downstream: buckets, pause, breaker, budgets",
            "none: one for each downstream",
        ),
        Key(
            "{prefix}:{gate}:at:{downstream}:calls",
            "HASH",
            "call -> its record: waiting, woken, live",
            "none: entries leave with their call",
        ),
        Key(
            "{prefix}:{gate}:at:{downstream}:high",
            "ZSET",
            "call -> virtual start: the waiting line of priority high",
            "none: entries leave when they are woken",
        ),
        Key(
            "{prefix}:{gate}:at:{downstream}:rest",
            "ZSET",
            "call -> virtual start: the waiting line of the other priorities",
            "none: entries leave when they are woken",
        ),
        Key(
            "{prefix}:{gate}:at:{downstream}:retry",
            "ZSET",
            "call -> virtual start: the waiting line of retries",
            "none: entries leave when they are woken",
        ),
        Key(
            "{prefix}:{gate}:at:{downstream}:flows",
            "HASH",
            "tenant|priority -> virtual finish",
            "none: deleted when the lines are empty",
        ),
        Key(
            "{prefix}:{gate}:at:{downstream}:expiry",
            "ZSET",
            "call -> us when its record expires",
            "none: entries leave with their call",
        ),
        Key(
            "{prefix}:{gate}:index",
            "ZSET",
            "downstream -> ms when a steward checks its waiting lines",
            "none: one entry for each downstream",
        ),
        Key(
            "{prefix}:{gate}:lineage:{root}",
            "HASH",
            "calls, retries and tokens of a root job and all its descendants",
            "kept",
        ),
        Key("{prefix}:poison", "LIST", "PoisonRecords, newest first, at most 1,000", "kept"),
        Key(
            "{prefix}.model, .tools, .maintenance (+ priority)",
            "LIST",
            "Celery messages (kombu's wire format)",
            "none: a queue",
        ),
        Key("_kombu.binding.{queue}", "SET", "kombu's bindings of a queue", "none: kombu's own"),
    )

    def __init__(self, prefix: str = "mw") -> None:
        self.prefix = prefix

    def _tag(self, p: int) -> str:
        return f"{self.prefix}:{{{self.prefix}{p:02d}}}"

    def job_pointer(self, job_id: str) -> str:
        """STRING: session id of the job."""
        return f"{self.prefix}:job:{job_id}"

    def session(self, session_id: str) -> str:
        """HASH of the session."""
        return f"{self._tag(partition(session_id))}:session:{session_id}"

    def log(self, session_id: str) -> str:
        """LIST of the session's messages."""
        return self.session(session_id) + ":log"

    def waiting(self, session_id: str) -> str:
        """LIST of jobs that wait for the session."""
        return self.session(session_id) + ":waiting"

    def memory(self, session_id: str) -> str:
        """STRING of the session's memory."""
        return self.session(session_id) + ":memory"

    def archive(self, session_id: str) -> str:
        """HASH of compacted groups."""
        return self.session(session_id) + ":archive"

    def results(self, session_id: str) -> str:
        """HASH of large tool results."""
        return self.session(session_id) + ":results"

    def originals(self, session_id: str) -> str:
        """LIST of the entries of both, the archive and the results, the oldest first."""
        return self.session(session_id) + ":originals"

    def job(self, session_id: str, job_id: str) -> str:
        """HASH of the job."""
        return f"{self._tag(partition(session_id))}:job:{job_id}"

    def steps(self, session_id: str, job_id: str) -> str:
        """HASH of the current turn's step rows."""
        return self.job(session_id, job_id) + ":steps"

    def trace(self, session_id: str, job_id: str) -> str:
        """LIST of the job's trace records."""
        return self.job(session_id, job_id) + ":trace"

    def index(self, p: int, name: str) -> str:
        """A partition's `due`, `owed`, `jobs`, `dead`, `letters`, `unreadable` or `counters`."""
        return f"{self._tag(p)}:{name}"

    def _gate(self, name: str) -> str:
        """All keys of the coordinator are in one slot, since one decision changes a downstream and a lineage together."""
        return f"{self.prefix}:{{{self.prefix}gate}}:{name}"

    def downstream(self, name: str) -> list[str]:
        """The keys of one downstream and the index, in the order of the coordinator's scripts."""
        hash_key = self._gate(f"at:{name}")
        return [
            hash_key,
            *(f"{hash_key}:{part}" for part in ("calls", "high", "rest", "retry", "flows", "expiry")),
            self.gate_index(),
        ]

    def gate_index(self) -> str:
        """ZSET of the downstreams."""
        return self._gate("index")

    def lineage(self, root_id: str) -> str:
        """HASH of a lineage."""
        return self._gate(f"lineage:{root_id}")

    def poison(self) -> str:
        """LIST of PoisonRecords."""
        return f"{self.prefix}:poison"

    def queue(self, name: str) -> str:
        """Name of a Celery queue."""
        return f"{self.prefix}.{name}"
