"""Our pages in a real Flower: what they show, what their buttons do, and which requests they refuse."""

from __future__ import annotations

import base64
import html
import json
import os
from collections.abc import Iterator

import pytest

from midwatch.schemas.failure import Failure, FailureKind
from midwatch.workers.local.embedded_server import EmbeddedServer
from tests.browser.stage import XSS, Site, Stage, flower

LOGIN = {"Authorization": "Basic " + base64.b64encode(b"mate:secret").decode()}


@pytest.fixture(scope="module")
def fleet(server: EmbeddedServer, lend_prefix) -> Iterator[dict[str, str]]:
    """The environment of a fleet that the module's Flowers share."""
    with lend_prefix() as prefix:
        yield {**os.environ, "MIDWATCH_REDIS_URL": server.url, "MIDWATCH_PREFIX": prefix, "MIDWATCH_EVENTS": "false"}


@pytest.fixture(scope="module")
def stage(fleet) -> Iterator[Stage]:
    """Jobs of that fleet."""
    with Stage(fleet["MIDWATCH_REDIS_URL"], fleet["MIDWATCH_PREFIX"]) as made:
        yield made


@pytest.fixture(scope="module")
def site(fleet) -> Iterator[Site]:
    """A Flower on loopback without a login, as on a laptop."""
    with flower(fleet) as started:
        yield started


@pytest.fixture(scope="module")
def locked(fleet) -> Iterator[Site]:
    """A Flower with a login and a URL prefix, as behind a proxy."""
    with flower(fleet, "--basic_auth=mate:secret", "--url_prefix=ops") as started:
        yield started


def make_dead_letter(stage: Stage, said: str = "I try the refund.") -> str:
    """Make a dead letter whose failed step is a tool call."""
    return stage.kill(stage.turn(stage.begin(), said, "issue_refund")[0])


def test_a_job_shows_what_it_waits_for(stage: Stage, site: Site):
    """A retrying job shows `retrying`, the next attempt, its time and the reason, and not just `running`."""
    job_id = stage.put_back(
        stage.begin("writer"), Failure(kind=FailureKind.RATE_LIMITED, detail="429"), after_ms=60_000
    )
    page = site.get("/jobs?status=running&agent=writer").text
    assert job_id in page
    assert "retrying" in page
    assert "attempt 2, next in" in page
    assert "rate_limited: 429" in page


def test_jobs_are_filtered_by_status_and_agent(stage: Stage, site: Site):
    """The two filters work together. An unknown status is answered with the known ones."""
    done = stage.complete(stage.begin("singer"), "la")
    other = stage.complete(stage.begin("dancer"), "hop")
    page = site.get("/jobs?status=completed&agent=singer").text
    assert done in page
    assert other not in page
    assert "No job matches the filter" in site.get("/jobs?status=parked&agent=singer").text
    refused = site.get("/jobs?status=asleep")
    assert refused.code == 400
    assert "expected one of queued, running" in refused.text


def test_a_job_shows_its_steps_with_reasons_and_its_failure(stage: Stage, site: Site):
    """Each turn shows the model's text. The failure is at the top."""
    page = site.get(f"/jobs/{make_dead_letter(stage, 'The customer is right, I pay it back.')}").text
    assert "The customer is right, I pay it back." in page
    assert "issue_refund ×1" in page
    assert "tool_error" in page
    assert "the payment service said 500" in page
    assert "Replay" in page


def test_an_unknown_job_has_a_404_page(site: Site):
    """The page is in Flower's frame and says what to do."""
    answer = site.get("/jobs/job-none")
    assert answer.code == 404
    assert "never enqueued here" in answer.text


def test_text_of_a_model_or_a_user_is_escaped(stage: Stage, site: Site):
    """HTML in an input, an answer, a failure or a poison message is shown as text."""
    nasty = Failure(kind=FailureKind.TOOL_ERROR, detail=XSS)
    killed = stage.kill(stage.turn(stage.begin(text=XSS), XSS, "issue_refund")[0], nasty)
    done = stage.complete(stage.begin(text=XSS), XSS)
    stage.poison(XSS)
    for path in (
        f"/jobs/{killed}",
        f"/jobs/{done}",
        "/dead-letters",
        "/jobs",
        "/jobs/%3Cscript%3E",
        "/jobs?agent=<script>",
    ):
        page = site.get(path).text
        assert XSS not in page, path
        assert "<script>document" not in page, path
        assert "<img src=x" not in page, path
    assert html.escape(XSS) in site.get(f"/jobs/{done}").text


def test_replay_removes_the_letter_from_the_list(stage: Stage, site: Site):
    """The button returns to the list with a message. The second time, the message says that nothing was done."""
    job_id = make_dead_letter(stage)
    assert f'data-job="{job_id}"' in site.get("/dead-letters").text
    first = site.post(f"/dead-letters/{job_id}/replay")
    assert first.code == 200
    assert "Done for" in first.text
    assert f'data-job="{job_id}"' not in first.text
    assert stage.client.jobs.show(job_id).status == "running"
    assert "Nothing was done for" in site.post(f"/dead-letters/{job_id}/replay").text


def test_discard_gives_a_job_up(stage: Stage, site: Site):
    """The letter is removed, and a later replay does nothing."""
    job_id = make_dead_letter(stage)
    site.get("/dead-letters")
    assert "Done for" in site.post(f"/dead-letters/{job_id}/discard").text
    assert not stage.client.dead_letters.replay(job_id)


def test_discard_removes_a_poison_message(stage: Stage, site: Site):
    """The second time, the page says that it was discarded already."""
    stage.poison("a message that no task understands")
    poison_id = stage.client.operations.poison()[0].poison_id
    assert poison_id in site.get("/dead-letters").text
    assert "Done for" in site.post(f"/dead-letters/{poison_id}/discard").text
    assert poison_id not in site.get("/dead-letters").text
    assert f"{poison_id}: it was discarded already" in site.post(f"/dead-letters/{poison_id}/discard").text


def test_a_button_needs_its_token_and_a_request_of_its_own_site(stage: Stage, site: Site):
    """Even without a login, a page of another site can't press buttons of a Flower on this machine."""
    job_id = make_dead_letter(stage)
    site.get("/dead-letters")
    for headers, token in (
        ({}, ""),
        ({}, "forged"),
        ({"Sec-Fetch-Site": "cross-site"}, None),
        ({"Sec-Fetch-Site": "same-site"}, None),
        ({"Origin": "http://evil.example"}, None),
        ({"Origin": "null"}, None),
    ):
        assert site.post(f"/dead-letters/{job_id}/replay", headers, token=token).code == 403, (headers, token)
    assert stage.client.jobs.show(job_id).status == "dead_lettered"


def test_without_a_login_only_local_host_names_are_answered(site: Site):
    """A foreign host name that points to 127.0.0.1 (DNS rebinding) gets no job."""
    for path in ("/jobs", "/dead-letters"):
        answer = site.get(path, {"Host": "evil.example:5555"})
        assert answer.code == 403
        assert "127.0.0.1 and localhost only" in answer.text
    assert site.get("/jobs", {"Host": "localhost:5555"}).code == 200


def test_pages_can_not_be_cached_or_framed(site: Site):
    """A proxy must not store a job's text. Another site must not put its own button over Replay."""
    for path in ("/jobs", "/dead-letters"):
        headers = site.get(path).headers
        assert headers["Cache-Control"] == "no-store"
        assert headers["Content-Security-Policy"] == "frame-ancestors 'self'"


def test_read_only_shows_everything_and_changes_nothing(stage: Stage, fleet):
    """There are no buttons. A request to change something gets a 403 that names the command line."""
    job_id = make_dead_letter(stage)
    with flower(fleet, "--read_only", "--basic_auth=mate:secret") as site:
        page = site.get("/dead-letters", LOGIN).text
        assert job_id in page
        assert '<button class="btn' not in page
        for path in (f"/dead-letters/{job_id}/replay", f"/api/midwatch/dead-letters/{job_id}/discard"):
            answer = site.post(path, LOGIN)
            assert answer.code == 403
            assert "--read_only" in answer.text
    assert stage.client.jobs.show(job_id).status == "dead_lettered"


def test_a_login_protects_pages_and_their_json(locked: Site):
    """Without a login, or with a wrong one, the answer is 401."""
    wrong = {"Authorization": "Basic " + base64.b64encode(b"mate:guess").decode()}
    for path in ("/jobs", "/dead-letters", "/api/midwatch/jobs", "/api/midwatch/dead-letters"):
        assert locked.get(path).code == 401, path
        assert locked.get(path, wrong).code == 401, path
        assert locked.get(path, LOGIN).code == 200, path


def test_every_page_has_tabs_with_the_url_prefix(locked: Site):
    """Flower's pages link to ours and back."""
    for path in ("/workers", "/tasks", "/broker", "/jobs", "/dead-letters"):
        page = locked.get(path, LOGIN).text
        for target in ("/ops/jobs", "/ops/dead-letters", "/ops/tasks"):
            assert f'href="{target}"' in page, (path, target)


def test_the_json_of_a_page_has_the_same_jobs(stage: Stage, locked: Site):
    """Page and JSON have the same jobs, states and buttons. The JSON contains no text of a conversation."""
    job_id = make_dead_letter(stage, "My reasons are my own.")
    jobs = locked.get("/api/midwatch/jobs?status=dead_lettered", LOGIN)
    assert [job["standing"] for job in jobs.json["jobs"] if job["job_id"] == job_id] == [
        "dead lettered, tool_error: the payment service said 500"
    ]
    one = locked.get(f"/api/midwatch/jobs/{job_id}", LOGIN)
    assert [step["step"] for step in one.json["trace"]] == ["1", "1.0"]
    assert "My reasons" not in jobs.text + one.text
    letters = locked.get("/api/midwatch/dead-letters", LOGIN).json["dead_letters"]
    assert job_id in [letter["job_id"] for letter in letters]
    verb = f"/api/midwatch/dead-letters/{job_id}/replay"
    assert locked.post(verb, LOGIN, token="").json == {"job_id": job_id, "verb": "replay", "done": True}
    assert locked.post(verb, LOGIN, token="").json["done"] is False
    assert locked.get("/api/midwatch/jobs/job-none", LOGIN).code == 404


def test_a_login_does_not_let_another_site_press_buttons(stage: Stage, locked: Site):
    """A browser sends basic authentication by itself, so a valid login does not prove that the user pressed the button."""
    job_id = make_dead_letter(stage)
    foreign = {**LOGIN, "Sec-Fetch-Site": "cross-site"}
    assert locked.post(f"/api/midwatch/dead-letters/{job_id}/replay", foreign).code == 403
    assert locked.post(f"/dead-letters/{job_id}/replay", LOGIN, token="forged").code == 403
    assert stage.client.jobs.show(job_id).status == "dead_lettered"


def test_queues_without_a_worker_are_on_the_broker_page(stage: Stage, site: Site):
    """Each of our queues is listed. Its number counts the messages of all priorities, which are in separate lists."""
    keys = stage.client.operations.keys
    before = stage.waiting("model")
    for priority in ("high", "normal", "low"):
        stage.client.enqueue("desk", "one", priority=priority)
    page = site.get("/broker").text
    for name in ("model", "tools", "maintenance"):
        assert f'id="{keys.queue(name)}"' in page
    row = page.partition(f'id="{keys.queue("model")}"')[2].partition("</tr>")[0]
    assert f">{before + 3}<" in row


def test_a_record_that_can_not_be_read_hides_no_other(stage: Stage, site: Site):
    """A job of a later version: the listing names it and shows the others, and its own page says why, with 422."""
    newer, other = stage.begin("desk").ref, stage.begin("desk").ref
    key = stage.client.operations.keys.job(newer.session_id, newer.job_id)
    spec = json.loads(stage.store.client.hget(key, "spec"))
    stage.store.client.hset(key, "spec", json.dumps({**spec, "v": 2}))
    page = html.unescape(site.get("/jobs").text)
    assert f"/jobs/{other.job_id}" in page
    assert f"job {newer.job_id}: of a newer version" in page
    answer = site.get(f"/jobs/{newer.job_id}")
    assert answer.code == 422
    assert "can't be read: of a newer version" in html.unescape(answer.text)


def test_a_damaged_trace_and_log_leave_the_page_of_their_job(stage: Stage, site: Site):
    """The page shows the job's state, and names what is missing."""
    ref = stage.begin("desk").ref
    keys = stage.client.operations.keys
    trace, log = keys.trace(ref.session_id, ref.job_id), keys.log(ref.session_id)
    entries = stage.store.client.lrange(log, 0, -1)
    stage.store.client.rpush(trace, '{"v": 2}')
    stage.store.client.set(log, "no list", ex=3_600)
    answer = site.get(f"/jobs/{ref.job_id}")
    assert answer.code == 200
    page = html.unescape(answer.text)
    assert "a trace record of job" in page
    assert "the log of session" in page
    stage.store.client.delete(trace, log)  # the leak check expects their usual types
    stage.store.client.rpush(log, *entries)
    stage.store.client.expire(log, 3_600)


def test_a_server_that_is_down_gives_a_503(fleet):
    """The page has the reason. It never shows an empty list."""
    with EmbeddedServer(append_only=None) as own, flower({**fleet, "MIDWATCH_REDIS_URL": own.url}) as site:
        assert site.get("/jobs").code == 200
        own.kill()
        answer = site.get("/jobs")
        assert answer.code == 503
        assert "Redis" in answer.text


def test_dead_letters_are_filtered_and_paged(stage: Stage, site: Site, locked: Site):
    """The conditions are those of `midwatch dlq list`. A link leads to older letters. An unknown kind is answered with 400."""
    job_id = make_dead_letter(stage)
    agent = stage.client.jobs.show(job_id).agent
    assert job_id in site.get(f"/dead-letters?agent={agent[:2]}*&kind=tool_error").text
    assert "No dead letter matches" in site.get("/dead-letters?agent=nobody").text
    assert job_id not in site.get("/dead-letters?older=2h").text
    for wrong, said in (("kind=timeuot", "did you mean"), ("older=long", "expected a time"), ("after=x", "MS-JOB")):
        answer = site.get(f"/dead-letters?{wrong}")
        assert answer.code == 400, wrong
        assert said in answer.text, wrong
    page = locked.get("/api/midwatch/dead-letters", LOGIN).json
    assert page["next"] is None
    assert page["in_all"] >= 1
    assert locked.get(f"/api/midwatch/dead-letters?after=9999999999999-{job_id}", LOGIN).json["dead_letters"]
