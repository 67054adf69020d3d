"""Reports in a real Chromium: nothing of what people wrote runs, everything can be reached, filtered and saved, and axe finds no fault."""

import importlib.util
import os
import shutil
from pathlib import Path

import pytest
from monitor_tools import planted, policy

from demeanor.conversation import Conversation, Message
from demeanor.data.sheets import rows_of
from demeanor.monitor.session import Monitor
from demeanor.monitor.transcripts import Counts, judge_transcript
from demeanor.reports.comparison import write_report as write_comparison
from demeanor.reports.monitor import write_report
from demeanor.testing import AT_RISK, CALM, FINE, HARMFUL, PLAIN

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]
HOSTILE = "<script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\"></article> {{ 7*7 }} \x1b[31m\u202egnp "
TALKS = [
    (CALM, FINE, CALM, FINE, CALM, HARMFUL),
    (AT_RISK, PLAIN),
    (HOSTILE + "y " * 50_000, HOSTILE + HARMFUL),
    (CALM, HARMFUL + ' "quoted", and\na second line'),
]


@pytest.fixture(scope="module")
def chromium():
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None or importlib.util.find_spec("playwright") is None or importlib.util.find_spec("axe_playwright_python") is None:
        if "browser" in os.environ.get("DEMEANOR_REQUIRE", "").split(","):
            pytest.fail("DEMEANOR_REQUIRE asks for a browser; install Debian's chromium, playwright and axe-playwright-python")
        pytest.skip("no Chromium here, or no Playwright for it")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as made:
        browser = made.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def reports(tmp_path_factory, tokenizer):
    import conftest
    from test_comparison import POLES, two

    from demeanor.comparison import compare

    folder = tmp_path_factory.mktemp("reports")
    with Monitor(planted(conftest._build, tokenizer), policy(), enforce=False) as monitor:
        transcripts, counts = [], Counts()
        for i, texts in enumerate(TALKS):
            messages = tuple(Message("user" if j % 2 == 0 else "assistant", text) for j, text in enumerate(texts))
            transcripts.append(judge_transcript(monitor, f"{HOSTILE}{i}", Conversation(messages), date=f"2026-01-0{i + 1}"))
            counts.add(transcripts[-1])
        write_report(transcripts, counts, monitor, folder / "monitor.html")
    write_comparison(compare(two(shift={"warmth": -2.0}), POLES), folder / "comparison.html")
    return folder


@pytest.fixture
def opened(chromium, reports):
    contexts = []

    def open_page(name, width=1280, scheme="light", script=True, bypass=False):
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=script, bypass_csp=bypass
        )
        contexts.append(context)
        page = context.new_page()
        page.goto((reports / name).as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()


def test_nothing_that_people_wrote_runs(opened):
    page = opened("monitor.html")
    assert page.title() == "Replies judged by the monitor"
    assert page.locator("img").count() == 0
    assert "<script>document.title" in page.locator(".card").first.evaluate("() => document.body.textContent")


def test_the_page_s_policy_stops_a_script_that_is_put_into_it(opened):
    page = opened("monitor.html")
    page.evaluate(
        "() => { const s = document.createElement('script'); s.textContent = \"document.title = 'ran'\"; document.body.append(s); }"
    )
    assert page.title() == "Replies judged by the monitor"


def test_everything_can_be_read_without_script(opened):
    page = opened("monitor.html", script=False)
    assert page.locator(".card:visible").count() == len(TALKS)
    assert page.locator("form:visible").count() == 0


@pytest.mark.parametrize("name", ["monitor.html", "comparison.html"])
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_axe_finds_no_fault_and_nothing_is_cut_off(opened, name, width, scheme):
    import axe_playwright_python

    page = opened(name, width, scheme, bypass=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate((Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8"))
    assert [(v["id"], v["nodes"][0]["html"]) for v in page.evaluate("axe.run()")["violations"]] == []


def test_cards_are_searched_filtered_ordered_and_reached_by_their_links(opened, reports):
    page = opened("monitor.html")
    page.fill("[name=search]", "QUOTED")
    assert page.locator("#found").inner_text() == f"1 of {len(TALKS)}"
    page.click("[type=reset]")
    page.select_option("[name=date]", "2026-01-02")
    assert page.locator(".card:visible").get_attribute("id") == "c2-m2"
    page.select_option("[name=date]", "")
    page.select_option("[name=order]", "place")
    assert page.locator(".card").evaluate_all("cards => cards.map(card => card.id)") == ["c1-m6", "c2-m2", "c3-m2", "c4-m2"]
    page.fill("[name=search]", "nothing like this")
    assert page.locator("#none").is_visible()
    page.evaluate("location.hash = '#c4-m2'")
    page.locator("#c4-m2").wait_for(state="visible")


def test_what_is_shown_is_saved_as_a_sheet_that_is_read_back(opened, tmp_path):
    page = opened("monitor.html")
    page.fill("[name=search]", "quoted")
    with page.expect_download() as saved:
        page.click("[name=export]")
    assert saved.value.suggested_filename == "monitor-to-label.csv"
    saved.value.save_as(tmp_path / "sheet.csv")
    rows = rows_of(tmp_path / "sheet.csv")
    assert rows
    assert {row.record["messages"][-1]["content"] for row in rows} == {TALKS[3][-1]}
