"""All Redis keys are built here. `key_catalogue.py` describes each of them.

All keys of a session and its jobs have the hash tag of the session's partition. So a script may use them together on Redis
Cluster, and the indexes that a steward reads (`due`, `owed`) change in the same script as their step.

Different ids have different keys. An id may hold colons, and the log of session `x` is at `…:session:x:log`. So a
session that is named `x:log` gets another key: `…:session:x:log~`. See `stem`.
"""

from __future__ import annotations

import re
from binascii import crc32

from midwatch.orchestration.key_catalogue import CATALOGUE
from midwatch.orchestration.key_catalogue import Key as Key

PARTITIONS = 16
"""Fixed. The partition of a session is `crc32(session id) % 16`, so with another number every session would be lost."""

KEPT_S = 7 * 24 * 3600
"""How long a session and its jobs are kept after their last step."""

ORIGINALS_BYTES = 64_000_000
"""Most bytes of a session's archived groups and whole results, compressed.

Compression makes a group 4.8 times smaller (measured on recorded sessions, of which the largest took 0.1 MB).
"""

HELD_S = 90 * 24 * 3600
"""How long a session and its jobs are kept if a dead letter or a parked call waits for a human.

The job listing covers this time too.
"""


def partition(session_id: str) -> int:
    """The partition of a session. It uses crc32, since `hash` differs between processes."""
    return crc32(session_id.encode()) % PARTITIONS


LINES = ("high", "rest", "retry", "high_first", "rest_first", "replay")
"""The waiting lines of a downstream."""

SESSION_PARTS = ("log", "waiting", "results", "memory", "archive", "originals")
"""Parts of a session with a key of their own: the session's key, a colon and the part."""

JOB_PARTS = ("steps", "trace")
"""Parts of a job with a key of their own. `lua/prelude.lua` knows them, too."""

DOWNSTREAM_PARTS = ("calls", *LINES, "flows", "expiry")
"""Parts of a downstream, in the order of the coordinator's scripts."""

ESCAPE = "~"
"""No id of a session or a job may hold it. A model's name may."""


def ends_like_part(name: str, parts: tuple[str, ...]) -> bool:
    """Does a user's name end like the key of a part? `x:log` does."""
    return re.search(rf":(?:{'|'.join(parts)}){ESCAPE}*\Z", name) is not None


def stem(name: str, parts: tuple[str, ...]) -> str:
    """The name as it is in keys. A name that ends like the key of a part gets one more `~`; all others stay as they are.

    So a key that ends with a part belongs to that part, and different names have different keys.
    """
    return name + ESCAPE if ends_like_part(name, parts) else name


class Keyspace:
    """The keys of one fleet, which all begin with its `MIDWATCH_PREFIX`."""

    CATALOGUE = CATALOGUE

    def __init__(self, prefix: str = "mw") -> None:
        self.prefix = prefix

    def _tag(self, p: int) -> str:
        return f"{self.prefix}:{{{self.prefix}{p:02d}}}"

    def job_pointer(self, job_id: str) -> str:
        """STRING: session id of the job."""
        return f"{self.prefix}:job:{job_id}"

    def session(self, session_id: str) -> str:
        """HASH of the session."""
        return f"{self._tag(partition(session_id))}:session:{stem(session_id, SESSION_PARTS)}"

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
        return f"{self._tag(partition(session_id))}:job:{stem(job_id, JOB_PARTS)}"

    def steps(self, session_id: str, job_id: str) -> str:
        """HASH of the current turn's step rows."""
        return self.job(session_id, job_id) + ":steps"

    def trace(self, session_id: str, job_id: str) -> str:
        """LIST of the job's trace records."""
        return self.job(session_id, job_id) + ":trace"

    def index(self, p: int, name: str) -> str:
        """A partition's `due`, `owed`, `jobs`, `dead`, `letters`, `redrive`, `unreadable`, `begun` or `counters`."""
        return f"{self._tag(p)}:{name}"

    def _gate(self, name: str) -> str:
        """All keys of the coordinator are in one slot, since one decision changes a downstream and a lineage together."""
        return f"{self.prefix}:{{{self.prefix}gate}}:{name}"

    def downstream(self, name: str) -> list[str]:
        """The keys of one downstream and the index, in the order of the coordinator's scripts."""
        hash_key = self._gate(f"at:{stem(name, DOWNSTREAM_PARTS)}")
        return [hash_key, *(f"{hash_key}:{part}" for part in DOWNSTREAM_PARTS), self.gate_index()]

    def gate_index(self) -> str:
        """ZSET of the downstreams."""
        return self._gate("index")

    def lineage(self, root_id: str) -> str:
        """HASH of a lineage."""
        return self._gate(f"lineage:{root_id}")

    def redrive(self) -> str:
        """HASH of the causes of letters that are redriven."""
        return f"{self.prefix}:redrive"

    def redrive_lease(self) -> str:
        """STRING that names the worker that redrives letters."""
        return self.redrive() + ":lease"

    def backlog(self, priority: str) -> str:
        """ZSET of first steps of one priority that wait until their queue is short."""
        return f"{self.prefix}:backlog:{priority}"

    def backlog_tenants(self, priority: str) -> str:
        """HASH of the tenants with jobs in the backlog."""
        return f"{self.prefix}:backlog:{priority}:tenants"

    def tools_served(self) -> str:
        """STRING that exists while a worker serves the tools queue."""
        return f"{self.prefix}:tools_served"

    def looked_over(self) -> str:
        """STRING that exists while a steward has looked over the jobs' records a short time ago."""
        return f"{self.prefix}:looked_over"

    def workers(self) -> str:
        """HASH of the reports of the workers."""
        return f"{self.prefix}:workers"

    def data_mark(self) -> str:
        """STRING: mark of the fleet. If it is gone, workers know that all data were lost."""
        return f"{self.prefix}:data_mark"

    def poison(self) -> str:
        """LIST of PoisonRecords."""
        return f"{self.prefix}:poison"

    def later(self) -> str:
        """ZSET of messages whose time has not come, by that time in seconds. It is on the broker's server."""
        return f"{self.prefix}:later"

    def queue(self, name: str) -> str:
        """Name of a Celery queue."""
        return f"{self.prefix}.{name}"
