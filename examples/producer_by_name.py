"""Enqueue a job by the name of its agent.

Use this in a program that does not have the agent's code, such as a web application. Start the worker of `quickstart.py`
first. Run this program twice: the second run finds the same job and prints its output.
"""

from midwatch import connect

client = connect()  # reads MIDWATCH_REDIS_URL; or pass the URL: connect("redis://...")

job = client.enqueue(
    "tide-clerk",
    "When can I leave Brackwater today?",
    session_id="sailor-17",  # one conversation: the next job of this session sees this one
    idempotency_key="sailor-17-question-1",  # a repeated request does not enqueue a second job
)
print(job.id, "is new" if job.accepted else "was enqueued before")
print(job.result(timeout_s=60).output)
