"""Reports in a real Chromium: nothing of what people wrote runs, everything can be reached, filtered and saved, and axe finds no fault."""

import importlib.util
import os
import shutil
from pathlib import Path

import pytest
from artifacts import entry, measured
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
    from test_reports import extraction
    from test_screening_flags import hostile_report
    from test_steering import point, sweep_of

    from demeanor.comparison import compare
    from demeanor.reports.steering import write_report as write_sweeps
    from demeanor.reports.vectors import write_report as write_vectors

    folder = tmp_path_factory.mktemp("reports")
    with Monitor(planted(conftest._build, tokenizer), policy(), enforce=False) as monitor:
        transcripts, counts = [], Counts()
        for i, texts in enumerate(TALKS):
            messages = tuple(Message("user" if j % 2 == 0 else "assistant", text) for j, text in enumerate(texts))
            transcripts.append(judge_transcript(monitor, f"{HOSTILE}{i}", Conversation(messages), date=f"2026-01-0{i + 1}"))
            counts.add(transcripts[-1])
        write_report(transcripts, counts, monitor, folder / "monitor.html")
    write_comparison(compare(two(shift={"warmth": -2.0}), POLES), folder / "comparison.html")
    hostile_report(folder)
    doses = [(layer, dose) for layer in (1, 2) for dose in (-0.2, -0.1, 0.1, 0.2)]
    write_sweeps([sweep_of(*(point(layer, dose, 2 * dose) for layer, dose in doses))], folder / "steering.html")
    write_vectors(extraction(entry("warmth", measured()), entry("candour", seed=1, title=HOSTILE)), folder / "vectors.html")
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


@pytest.mark.parametrize("name", ["monitor.html", "comparison.html", "screening.html", "steering.html", "vectors.html"])
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


@pytest.mark.parametrize("name", ["monitor.html", "comparison.html", "screening.html", "steering.html", "vectors.html"])
def test_every_control_is_reached_by_keyboard_and_shows_that_it_is(opened, name):
    page = opened(name)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    controls = page.locator("a[href]:visible, input:visible, select:visible, button:visible, summary:visible")
    for _ in range(controls.count() + 20):  # scrolled tables are stops, too
        page.evaluate("() => { const at = document.activeElement; at.dataset.seen = getComputedStyle(at).outlineStyle; }")
        page.keyboard.press("Tab")
    assert controls.evaluate_all("all => all.filter(one => !one.dataset.seen).map(one => one.outerHTML)") == []
    assert page.locator(":not(body)[data-seen=none]").count() == 0
    folded = page.locator("summary:visible")
    if folded.count():
        before = folded.first.evaluate("summary => summary.parentElement.open")
        folded.first.focus()
        page.keyboard.press("Enter")
        assert folded.first.evaluate("summary => summary.parentElement.open") != before


def test_on_paper_everything_is_unfolded_in_ink_and_no_control_is_left(opened):
    page = opened("monitor.html", scheme="dark")
    page.emulate_media(media="print")
    assert page.locator("form:visible, .contents:visible").count() == 0
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    hidden = "all => all.filter(one => !one.checkVisibility({contentVisibilityAuto: true, visibilityProperty: true})).length"
    assert page.locator(".card details:not([open]) p").count()
    assert page.locator(".card details:not([open]) p").evaluate_all(hidden) == 0
    page.emulate_media(media="screen")
    assert page.locator(".card details:not([open]) p").evaluate_all(hidden) > 0
