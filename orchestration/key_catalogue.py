"""The catalogue of Redis keys: the type of each, its content, and its time to live. `docs/keyspace.md` is generated from it.

`Keyspace` builds the keys.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Key:
    """One row of `docs/keyspace.md`."""

    pattern: str
    type: str
    holds: str
    ttl: str


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
    Key("{prefix}:{p}:session:{sid}:memory", "STRING", "the memory of the session's compacted groups, JSON", "kept"),
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
        "step -> row of the current turn (state, fence, lease, attempt), its calls, and its losses",
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
    Key(
        "{prefix}:{p}:begun",
        "HASH",
        "`job|step` -> fence of a call that a worker has begun before data were lost",
        "kept",
    ),
    Key("{prefix}:{p}:dead", "ZSET", "job -> ms of its dead letter", "none: entries leave by replay or discard"),
    Key("{prefix}:{p}:letters", "HASH", "job -> DeadLetterRecord", "none: entries leave by replay or discard"),
    Key(
        "{prefix}:{p}:redrive",
        "ZSET",
        "cause, redrives so far and job of a letter that may be replayed without a human -> 0",
        "none: entries leave by replay or discard",
    ),
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
        "{prefix}:{gate}:at:{downstream}:high_first",
        "ZSET",
        "call -> virtual start: the waiting line of first calls of jobs of priority high",
        "none: entries leave when they are woken",
    ),
    Key(
        "{prefix}:{gate}:at:{downstream}:rest_first",
        "ZSET",
        "call -> virtual start: the waiting line of first calls of jobs of priority normal or low",
        "none: entries leave when they are woken",
    ),
    Key(
        "{prefix}:{gate}:at:{downstream}:replay",
        "ZSET",
        "call -> virtual start: the waiting line of replayed jobs",
        "none: entries leave when they are woken",
    ),
    Key(
        "{prefix}:{gate}:at:{downstream}:flows",
        "HASH",
        "tenant|priority (in some lines after a letter) -> virtual finish",
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
    Key(
        "{prefix}:redrive",
        "HASH",
        "cause -> its redrive: the replays under way, how many may run at once, when the next ones begin",
        "none: entries leave when the letters of the cause have left",
    ),
    Key("{prefix}:redrive:lease", "STRING", "the worker that redrives letters", "10 s"),
    Key(
        "{prefix}:backlog:{priority}", "ZSET", "first step -> virtual start: it waits until its queue is short", "kept"
    ),
    Key("{prefix}:backlog:{priority}:tenants", "HASH", "tenant -> virtual start of its next job", "kept"),
    Key("{prefix}:tools_served", "STRING", "it exists while a worker serves the tools queue", "10 s"),
    Key(
        "{prefix}:looked_over",
        "STRING",
        "it exists for a while after a steward has looked over the jobs' records",
        "5 s",
    ),
    Key("{prefix}:workers", "HASH", "worker -> its latest report, JSON", "1 day after the last report of any worker"),
    Key("{prefix}:later", "ZSET", "producers' messages with an eta, by their time in seconds; at the broker", "kept"),
    Key(
        "{prefix}:data_mark", "STRING", "a random id and the server's; workers notice by it that data were lost", "kept"
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
