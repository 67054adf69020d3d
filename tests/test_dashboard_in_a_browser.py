"""The dashboard in a real Chromium: nothing of what people wrote runs or breaks a page, keys do the work, and axe finds no fault."""

import socket
import threading
from pathlib import Path

import pytest
from dashboard_tools import PASSWORD, PEOPLE
from review_tools import BOUNDARY, CRISIS
from test_dashboard_conversations import judged
from test_dashboard_labels import promoted
from test_reports_in_a_browser import HOSTILE, chromium  # noqa: F401

from demeanor.conversation import Conversation, Message
from demeanor.review import accounts, queue, shadow
from demeanor.review.drawing import Drawing
from demeanor.review.store import open_store
from demeanor.review.texts import keep, read

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]
SEALS = "'; DROP TABLE reply; -- ${7*7} {% raw %} %s \\u0000 &lt;b&gt; "
LONG = HOSTILE + "word " * 20_000
NASTY = [HOSTILE, SEALS, LONG, "x" * 100_000, "\u202e\u2066\u05d0\u05d1 " + HOSTILE, "\x00\x07\x1b]0;pwned\x07\x9b31m", "\ud800 half"]
DONE = Drawing(share=1.0)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A dashboard whose texts are all hostile, in a thread; gives its address and its store."""
    import uvicorn

    from demeanor.dashboard.application import app

    folder = tmp_path_factory.mktemp("dashboard")
    with open_store(folder / "review.db") as store:
        queue.ask(store, [CRISIS, BOUNDARY])
        for name, role in PEOPLE.items():
            accounts.add(store, name, role, PASSWORD)
        for i in range(60):
            text = NASTY[i % len(NASTY)]
            talk = Conversation((Message("user", f"{i} {text}"), Message("assistant", f"{i} {text}")))
            shown = text if i % 3 == 0 else None
            keep(store, judged(i, i % 7 / 2, conversation=talk, shown=shown, not_scored=HOSTILE if i % 5 == 0 else None), DONE)
        for number in range(1, 41):
            queue.answer(store, number, "ben", "low" if number % 3 else "high", note=HOSTILE, better=LONG)
        promoted(store, why=HOSTILE, vectors=HOSTILE)
        promoted(store, why="again", fingerprint=HOSTILE)
        shadow.note(store, HOSTILE, "d1", shadow.Would("flag"), shadow.Would("substitute", (HOSTILE,)))
        (folder / "<b>a.html").write_text("<script>parent.document.title = 'ran'; document.title = 'own'</script>")
        listening = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app(store, None, folder), log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", store
        server.should_exit = True
        thread.join(10)
        listening.close()


@pytest.fixture
def opened(chromium, served):  # noqa: F811
    contexts = []

    def open_page(path, name="cora", width=1280, scheme="light", bypass=False, script=True):
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=bypass, java_script_enabled=script
        )
        contexts.append(context)
        page = context.new_page()
        page.faults = []
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.on("console", lambda said: page.faults.append(said.text) if said.type == "error" else None)
        page.goto(served[0] + path)
        if name:
            page.fill("[name=name]", name)
            page.fill("[name=password]", PASSWORD)
            page.click("main button")
            page.wait_for_url(served[0] + path)
        return page

    yield open_page
    for context in contexts:
        context.close()


def paths(store):
    key = read(store, 3).conversation_key
    long = ["/replies/1", "/replies/3", "/replies/4", f"/conversations/{key}"]
    return ["/", "/queue", "/conversations", "/labels", "/labels/crisis_rule?z=1", "/versions/1", "/reports", "/accounts", *long]


def test_nothing_that_people_wrote_runs_or_breaks_a_page(opened, served):
    page = opened("/queue")
    for path in paths(served[1]):
        page.goto(served[0] + path)
        assert page.title().endswith("· Demeanor"), path
        assert page.locator("img").count() == 0, path
        assert page.locator("nav.contents a").count() == 6, path
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280, path
    assert page.faults == []


def test_the_policy_stops_a_script_that_is_put_into_a_page(opened):
    page = opened("/queue")
    title = page.title()
    page.evaluate(
        "() => { const s = document.createElement('script'); s.textContent = \"document.title = 'ran'\"; document.body.append(s); }"
    )
    page.evaluate("() => { const i = document.createElement('img'); i.src = 'https://evil.example/x'; document.body.append(i); }")
    assert page.title() == title
    assert any("Content Security Policy" in fault for fault in page.faults)


def test_a_report_is_a_stranger_to_the_dashboard(opened, served):
    page = opened("/reports")
    page.click("text=<b>a.html")
    page.wait_for_url("**/reports/*")
    assert page.evaluate("origin") == "null"
    with pytest.raises(Exception, match="sandboxed"):
        page.evaluate("document.cookie")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_axe_finds_no_fault_and_nothing_is_cut_off(opened, served, width, scheme):
    import axe_playwright_python

    axe = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    page = opened("/queue", width=width, scheme=scheme, bypass=True)
    for path in paths(served[1]):
        page.goto(served[0] + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        page.evaluate(axe)
        assert [(v["id"], v["nodes"][0]["html"]) for v in page.evaluate("axe.run()")["violations"]] == [], path
    page = opened("/sign-in", name=None, width=width, scheme=scheme, bypass=True)
    page.evaluate(axe)
    assert [(v["id"], v["nodes"][0]["html"]) for v in page.evaluate("axe.run()")["violations"]] == []


def answers(store, name):
    return store.db.rows("SELECT item, value FROM answer WHERE reviewer = ? ORDER BY number", name)


def test_the_queue_is_answered_by_keys_alone(opened, served):
    page = opened("/queue", name="anna")
    for key in "hlnu":
        with page.expect_navigation():
            page.keyboard.press(key)
    assert [value for _, value in answers(served[1], "anna")] == ["high", "low", "not_applicable", "unsure"]
    page.keyboard.press("e")
    page.keyboard.type("hull")
    assert page.locator("[name=note]").input_value() == "hull"
    assert len(answers(served[1], "anna")) == 4
    page.uncheck("#keys")
    page.keyboard.press("Escape")
    page.locator("#main").press("h")
    assert len(answers(served[1], "anna")) == 4
    page.reload()
    assert not page.is_checked("#keys")
    page.click("text=Show the model's score")
    page.get_by_role("link", name="Next item").press("Enter")
    page.wait_for_url("**/queue")


def test_without_script_everything_can_still_be_done(opened, served):
    page = opened("/queue", name="anna", script=False)
    before = len(answers(served[1], "anna"))
    page.click("button[value=decline]")
    assert len(answers(served[1], "anna")) == before + 1
    page.goto(served[0] + "/labels/crisis_rule")
    page.fill("[name=z]", "1.5")
    page.click("#threshold button")
    page.wait_for_url("**z=1.5*")


def test_a_threshold_is_moved_with_the_slider(opened, served):
    page = opened("/labels/crisis_rule")
    before = page.locator("#chosen h2").first.inner_text()
    page.locator("input[type=range]").focus()
    with page.expect_response("**/labels/crisis_rule?*"):
        page.keyboard.press("Home")
    page.wait_for_function("before => document.querySelector('#chosen h2').innerText !== before", arg=before)
    lowest = page.locator("input[type=range]").get_attribute("min")
    assert float(page.locator("[name=z]").first.input_value()) == pytest.approx(float(lowest), abs=0.06)
    page.wait_for_url("**z=*")
    assert page.faults == []


def test_the_cookie_is_out_of_reach_of_scripts_and_a_link_from_elsewhere_still_leads_in(opened, served):
    page = opened("/queue")
    assert page.evaluate("document.cookie") == ""
    page.goto("data:text/html,<a href='" + served[0] + "/labels'>go</a>")
    page.click("a")
    page.wait_for_url("**/sign-in?next=*")
    page.click("text=Open the page")
    page.wait_for_url("**/labels")
    assert page.locator("h1").inner_text() == "Labels and thresholds"
