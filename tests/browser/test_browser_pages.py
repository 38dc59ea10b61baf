"""The pages as a person uses them: clicks in Chromium, and what the page then shows."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from midwatch.schemas.failure import Failure, FailureKind
from tests.browser.stage import XSS, Site, Stage

pytestmark = pytest.mark.browser


def make_dead_letter(stage: Stage, failure: Failure | None = None, said: str = "I pay it back.") -> str:
    """Make a dead letter whose failed step is a tool call."""
    claim = stage.turn(stage.begin(text=said), said, "issue_refund")[0]
    return stage.kill(claim, failure) if failure else stage.kill(claim)


def test_a_dead_letter_is_one_click_from_flowers_first_page(stage: Stage, site: Site, page: Page):
    """The tab shows agent, step, tool and reason, with a link to the job."""
    job_id = make_dead_letter(stage)
    page.goto(site.url)
    page.get_by_role("link", name="Dead letters").click()
    row = page.locator(f"tr[data-job='{job_id}']")
    for text in ("desk", "1.0", "issue_refund", "tool_error", "the payment service said 500"):
        expect(row).to_contain_text(text)
    row.get_by_role("link", name=job_id).click()
    expect(page.get_by_role("heading", name=job_id)).to_be_visible()
    expect(page.locator("section[aria-label=Failure]")).to_contain_text("the payment service said 500")


def test_replay_removes_the_row_and_a_second_click_does_nothing(stage: Stage, site: Site, page: Page):
    """Two people see the same list and both press Replay. The second one reads that it was already replayed."""
    job_id = make_dead_letter(stage)
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


def test_discard_asks_for_confirmation(stage: Stage, site: Site, page: Page):
    """Without confirmation the letter stays. With it the letter is removed."""
    job_id = make_dead_letter(stage)
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
    """No text of a user, a model or a tool runs as a script in a browser."""
    killed = make_dead_letter(stage, Failure(kind=FailureKind.TOOL_ERROR, detail=XSS), XSS)
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


def test_the_list_of_jobs_refreshes_itself(stage: Stage, site: Site, page: Page):
    """A job that ends while the page is open is shown as ended, without a reload."""
    claim = stage.begin()
    page.goto(f"{site.url}/jobs")
    row = page.locator("tr", has_text=claim.ref.job_id)
    expect(row).to_contain_text("running")
    stage.complete(claim, "done")
    expect(row).to_contain_text("completed")


def test_filters_are_links(stage: Stage, site: Site, page: Page):
    """A click filters by status, then by agent, and back."""
    done, waits = stage.complete(stage.begin("singer"), "la"), stage.begin("singer").ref.job_id
    page.goto(f"{site.url}/jobs")
    page.get_by_role("navigation", name="Filter jobs").get_by_role("link", name="Completed").click()
    expect(page.locator("#mw-jobs")).to_contain_text(done)
    expect(page.locator("#mw-jobs")).not_to_contain_text(waits)
    page.locator("#mw-jobs").get_by_role("link", name="singer").click()
    expect(page).to_have_url(f"{site.url}/jobs?agent=singer&status=completed")
    page.get_by_role("link", name="agent singer").click()
    expect(page).to_have_url(f"{site.url}/jobs?status=completed")


@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_is_wider_than_its_window(stage: Stage, site: Site, page: Page, width: int):
    """Status, failure, age and buttons are seen without scrolling sideways, with the longest names and ids."""
    agent = "ledger-keeper-of-the-northern-harbours-and-of-the-southern-ones"
    claim = stage.turn(
        stage.begin(agent), "I pay it back.", "issue_refund_for_every_order_of_the_last_year_and_the_next"
    )[0]
    killed = stage.kill(claim)
    done = stage.complete(stage.begin(agent), "done " * 50)
    stage.poison("x" * 500)
    page.set_viewport_size({"width": width, "height": 900})
    for path in ("/jobs", "/dead-letters", f"/jobs/{killed}?content=1", f"/jobs/{done}"):
        page.goto(site.url + path)
        for box in [page.locator("html"), *page.locator("main .mw-scroll").all()]:
            assert box.evaluate("each => each.scrollWidth - each.clientWidth") <= 1, path
    page.goto(f"{site.url}/dead-letters")
    for button in page.locator("main .mw-table button").all():
        place = button.bounding_box()
        assert place is not None
        assert place["x"] + place["width"] <= width


def test_a_dead_letter_links_to_its_input_and_call(stage: Stage, site: Site, page: Page):
    """The list shows no conversation. One click shows what the failing call was called with."""
    job_id = make_dead_letter(stage)
    page.goto(f"{site.url}/dead-letters")
    page.locator(f"tr[data-job='{job_id}']").get_by_role("link", name="input and call").click()
    expect(page.locator("section[aria-label=Content]")).to_contain_text("issue_refund(")


def test_a_discarded_poison_message_is_no_link(stage: Stage, site: Site, page: Page):
    """It has no page. The second of two people who press Discard reads that it was discarded already."""
    stage.poison("not a task")
    other = page.context.new_page()
    rows = "section[aria-label='Poison messages'] tbody tr"
    for each in (page, other):
        each.goto(f"{site.url}/dead-letters")
    for each in (page, other):
        each.locator(rows).first.get_by_role("button").click()
    expect(page.get_by_role("status")).to_contain_text("Done for poison-")
    expect(other.get_by_role("status")).to_contain_text("it was discarded already")
    expect(page.get_by_role("status").get_by_role("link")).to_have_count(0)
