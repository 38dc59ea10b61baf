"""The pages as a person uses them: a click in Chromium, and what is to be seen afterwards."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from midwatch.schemas.failure import Failure, FailureKind
from tests.browser.stage import XSS, Site, Stage

pytestmark = pytest.mark.browser


def dead(stage: Stage, failure: Failure | None = None, said: str = "I pay it back.") -> str:
    """A dead letter at a tool call."""
    claim = stage.turn(stage.begin(text=said), said, "issue_refund")[0]
    return stage.kill(claim, failure) if failure else stage.kill(claim)


def test_a_dead_letter_is_found_from_flowers_first_page(stage: Stage, site: Site, page: Page):
    """One click on the tab: agent, step, tool, why, and the job behind it."""
    job_id = dead(stage)
    page.goto(site.url)
    page.get_by_role("link", name="Dead letters").click()
    row = page.locator(f"tr[data-job='{job_id}']")
    for text in ("desk", "1.0", "issue_refund", "tool_error", "the payment service said 500"):
        expect(row).to_contain_text(text)
    row.get_by_role("link", name=job_id).click()
    expect(page.get_by_role("heading", name=job_id)).to_be_visible()
    expect(page.locator("section[aria-label=Failure]")).to_contain_text("the payment service said 500")


def test_replay_removes_the_row_and_a_second_click_elsewhere_does_nothing(stage: Stage, site: Site, page: Page):
    """Two people look at one list, both press: the second is told that it was done."""
    job_id = dead(stage)
    other = page.context.new_page()
    for each in (page, other):
        each.goto(f"{site.url}/dead-letters")
    row = f"tr[data-job='{job_id}']"
    page.locator(row).get_by_role("button", name="Replay").click()
    expect(page.get_by_role("status")).to_contain_text("Done for")
    expect(page.locator(row)).to_have_count(0)
    assert stage.client.jobs.show(job_id).status == "running"
    waiting = stage.waiting("tools")
    other.locator(row).get_by_role("button", name="Replay").click()
    expect(other.get_by_role("status")).to_contain_text("Nothing was done for")
    assert stage.waiting("tools") == waiting


def test_discard_asks_first(stage: Stage, site: Site, page: Page):
    """A dismissed question leaves the letter where it is; an accepted one takes it away."""
    job_id = dead(stage)
    page.goto(f"{site.url}/dead-letters")
    row = page.locator(f"tr[data-job='{job_id}']")
    page.once("dialog", lambda dialog: dialog.dismiss())
    row.get_by_role("button", name="Discard").click()
    expect(row).to_have_count(1)
    page.once("dialog", lambda dialog: dialog.accept())
    row.get_by_role("button", name="Discard").click()
    expect(page.get_by_role("status")).to_contain_text("Done for")
    expect(row).to_have_count(0)


def test_markup_in_inputs_and_answers_stays_text(stage: Stage, site: Site, page: Page):
    """Nothing that a user, a model or a tool wrote runs in the browser of who looks at it."""
    killed = dead(stage, Failure(kind=FailureKind.TOOL_ERROR, detail=XSS), XSS)
    done = stage.complete(stage.begin(text=XSS), XSS)
    stage.poison(XSS)
    for path in (
        "/jobs",
        f"/jobs/{killed}",
        f"/jobs/{done}",
        "/dead-letters",
        f"/dead-letters?done={XSS}",
        f"/jobs?agent={XSS}",
    ):
        page.goto(site.url + path)
        assert page.locator("main img").count() == 0, path
        assert "owned" not in page.title(), path
        assert "Flower" in page.title(), path
    page.goto(f"{site.url}/jobs/{done}")
    expect(page.locator("section[aria-label=Output]")).to_contain_text(XSS)


def test_the_list_of_jobs_renews_itself(stage: Stage, site: Site, page: Page):
    """A job that ends while somebody looks is seen to end, without a reload."""
    claim = stage.begin()
    page.goto(f"{site.url}/jobs")
    row = page.locator("tr", has_text=claim.ref.job_id)
    expect(row).to_contain_text("running")
    stage.complete(claim, "done")
    expect(row).to_contain_text("completed")


def test_filters_are_links(stage: Stage, site: Site, page: Page):
    """By status, then by agent, and back."""
    done, waits = stage.complete(stage.begin("singer"), "la"), stage.begin("singer").ref.job_id
    page.goto(f"{site.url}/jobs")
    page.get_by_role("navigation", name="Filter jobs").get_by_role("link", name="Completed").click()
    expect(page.locator("#mw-jobs")).to_contain_text(done)
    expect(page.locator("#mw-jobs")).not_to_contain_text(waits)
    page.locator("#mw-jobs").get_by_role("link", name="singer").click()
    expect(page).to_have_url(f"{site.url}/jobs?agent=singer&status=completed")
    page.get_by_role("link", name="agent singer").click()
    expect(page).to_have_url(f"{site.url}/jobs?status=completed")
