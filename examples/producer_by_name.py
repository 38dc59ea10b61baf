"""Enqueue a job by the agent's name: a web application, say, that does not hold the agent's code.

Run `quickstart.py`'s worker first. Run this twice: the second time the job exists already, and its answer is at hand.
"""

from midwatch import connect

client = connect()  # MIDWATCH_REDIS_URL, or connect("redis://...")

job = client.enqueue(
    "tide-clerk",
    "When can I leave Brackwater today?",
    session_id="sailor-17",  # one conversation: the next job of this session knows of this one
    idempotency_key="sailor-17-question-1",  # a retried request enqueues nothing twice
)
print(job.id, "is new" if job.accepted else "was enqueued before")
print(job.result(timeout_s=60).output)
