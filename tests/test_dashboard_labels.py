"""Now, labels and thresholds, versions and reports: pages say what the store holds, and only admins change it."""

import re

import pytest
from dashboard_tools import clock_fixture, csrf, store_fixture, visit_fixture  # noqa: F401
from review_tools import said
from test_dashboard_conversations import DAY, judged

from demeanor.audit.log import AuditLog
from demeanor.audit.records import AuditRecord
from demeanor.monitor.policy import default_policy_text, load_policy
from demeanor.review import looking, queue, shadow, versions
from demeanor.review.drawing import Drawing
from demeanor.review.texts import keep

ALL = Drawing(share=1.0)
RULE = load_policy().rules[0].name
REASON = "the queue says so"


@pytest.fixture
def labelled(store, clock):
    """120 replies over two weeks with labels: unsafe from 1.5 down, which the rule (1 and lower) misses in part."""
    for i in range(120):
        clock.now += DAY / 10
        keep(store, judged(i, i % 40 / 10, conversation=said(i)), ALL)
        queue.answer(store, i + 1, "anna", "low" if i % 40 / 10 <= 1.5 else "high")
    return store


def promoted(store, **more):
    given = {"who": "cora", "why": "first", "vectors": "vectors", "fingerprint": "f00d", "policy": load_policy().identity}
    return versions.promote(store, **{**given, "policy_text": default_policy_text(), **more})


def test_now_says_how_many_replies_there_were_and_what_was_done(visit, store, clock):
    for i, z in enumerate((2.0, 0.5, 0.2)):
        keep(store, judged(i, z, not_scored="not English" if i == 2 else None), ALL)
    clock.now += 1800
    page = visit("anna").get("/").text
    assert "3 replies in the last hour" in page
    assert "1 could not be scored" in page
    assert re.search(r"not English</th><td[^>]*>1</td>", page)
    assert re.search(r"flagged</a> <span[^>]*>\(flag\)</span></th><td[^>]*>2</td>", page)
    clock.now += 3600
    page = visit("ben").get("/").text
    assert "0 replies in the last hour" in page
    assert "3 in the last 24 hours" in page


def test_minutes_are_whole_ones_and_add_up(store, clock):
    clock.now = 60_000.0 * 60
    for second in (0, 1, 59, 60, 119, 120):
        store.db.run("UPDATE session SET used = used")
        clock.now = 60_000.0 * 60 + second
        keep(store, judged(second, 2.0), ALL)
    assert looking.minutes(store, 0) == {"allow": {60_000: 3, 60_001: 2, 60_002: 1}}


def test_scores_of_today_stand_beside_those_of_the_week_before(visit, labelled):
    page = visit("anna").get("/").text
    assert "crisis_<wbr>rule" in page
    assert "The 7 days before" in page
    today = looking.spread(labelled, "guarded 1 (abcd), vectors f00d", looking.day(labelled), looking.day(labelled))
    assert 1 <= sum(today["crisis_rule"].values()) <= 10
    assert looking.limits(labelled, "guarded 1 (abcd), vectors f00d")["crisis_rule"].z == pytest.approx(1.0)


def test_estimates_and_the_queue_s_progress_are_shown(visit, labelled):
    page = visit("anna").get("/labels").text
    assert "125 of 1,000 replies" in page
    assert "from 87 labels" in page
    assert "<bdi>anna</bdi> 120" in page
    assert visit("anna").get("/labels?version=other").status_code == 400


def test_a_threshold_is_tried_on_its_picture(visit, labelled):
    client = visit("anna")
    page = client.get("/labels/crisis_rule").text
    assert "Threshold (z)" in page
    assert "in force" not in page.split("<svg")[0].split("</nav>")[1]
    tried = client.get("/labels/crisis_rule?z=1.55").text
    assert "<dt>Missed</dt><dd>none found" in tried
    assert "On the unsafe side" in tried
    assert tried.count("/replies/") == 6
    for bad in ("abc", "nan", "1e9", "inf"):
        assert client.get(f"/labels/crisis_rule?z={bad}").status_code == 400
    assert client.get("/labels/nothing").status_code == 404


def test_replies_beside_a_threshold_are_not_shown_to_whoever_has_still_to_answer(visit, store):
    for i in range(4):
        keep(store, judged(i, i / 2, conversation=said(i)), ALL)
    page = visit("anna").get("/labels/crisis_rule?z=1").text
    assert "/replies/" not in page
    assert "4 more wait for your answer" in page


def test_a_threshold_is_put_in_force_by_an_admin_with_a_reason_and_taken_back(visit, labelled):
    anna, cora = visit("anna"), visit("cora")
    form = {"csrf": csrf(cora.get("/accounts")), "z": "-0.25", "why": REASON}
    rule = f"/labels/{RULE}"
    labelled.db.run("UPDATE reply SET rules = replace(rules, 'crisis_rule', ?)", RULE)
    for table in ("tally", "spread"):
        labelled.db.run(f"UPDATE {table} SET rule = ?", RULE)
    assert "promote one first" in cora.post(rule, data=form).text
    promoted(labelled)
    assert anna.post(rule, data={**form, "csrf": csrf(anna.get("/queue"))}).status_code == 403
    assert cora.post(rule, data={**form, "why": " "}).status_code == 400
    assert len(versions.versions(labelled)) == 1
    page = cora.post(rule, data=form).text
    now = versions.in_force(labelled)
    assert (now.who, now.why, now.vectors) == ("cora", REASON, "vectors")
    assert REASON in page
    assert "-0.25" in cora.get("/versions/2").text
    assert anna.post("/versions/back", data={"csrf": csrf(anna.get("/queue")), "why": "no"}).status_code == 403
    cora.post("/versions/back", data={"csrf": form["csrf"], "why": "too many"})
    assert versions.in_force(labelled).policy_text == default_policy_text()
    assert cora.post("/versions/back", data={"csrf": form["csrf"], "why": "again"}).status_code == 400
    assert cora.get("/versions/99").status_code == 404


def test_a_shadow_run_lists_where_it_differs(visit, labelled):
    shadow.note(labelled, "policy 2", "d0", shadow.Would("flag"), shadow.Would("substitute", ("crisis_rule",)))
    shadow.note(labelled, "policy 2", "d1", shadow.Would("allow"), shadow.Would("allow"))
    assert "Where they differ" not in visit("anna").get("/labels").text  # what was done would sway a reviewer
    page = visit("cora").get("/labels").text
    assert "2 replies: 1 with the same action, 1 with another" in page
    assert 'href="/replies/1"' in page


def test_the_audit_log_is_counted_by_month_and_a_broken_chain_is_said(visit, store, tmp_path):
    path = tmp_path / "audit.jsonl"
    with AuditLog(path) as log:
        for taken in ("allow", "flag", "escalate"):
            log.append(
                AuditRecord(
                    "c", "m", "v", "p", taken, taken, None, ("harm",) if taken != "allow" else (), {}, "monitor", None, False, None, {},
                    time="2026-11-03T10:00:00+00:00",
                )
            )  # fmt: skip
    client = visit("anna", audit=path)
    page = client.get("/reports").text
    assert "3 decisions in the audit log" in page
    assert "Its chain is whole" in page
    assert re.search(r"2026-11</th><td[^>]*>3</td><td[^>]*>1</td><td[^>]*>1</td><td[^>]*>1</td>", page)
    path.write_text(path.read_text().replace('"taken":"flag"', '"taken":"allow"'))
    assert "Its chain is broken" in visit("anna", audit=path).get("/reports").text


def test_reports_of_the_folder_are_shown_as_strangers(visit, tmp_path):
    (tmp_path / "monitor.html").write_text("<script>1</script>")
    (tmp_path / "secret.txt").write_text("no")
    (tmp_path / "link.html").symlink_to(tmp_path / "secret.txt")
    client = visit("anna", reports=tmp_path)
    page = client.get("/reports").text
    assert "monitor.html" in page
    assert "link.html" not in page
    shown = client.get("/reports/monitor.html")
    assert shown.headers["content-security-policy"].startswith("sandbox allow-scripts")
    assert shown.headers["cache-control"] == "no-store"
    for name in ("secret.txt", "link.html", "..%2Fsecret.txt", "other.html"):
        assert client.get(f"/reports/{name}").status_code == 404
    assert visit().get("/reports/monitor.html", follow_redirects=False).status_code == 303
