"""How long each page of the dashboard takes on a store of many decisions.

    python benchmarks/dashboard.py [--decisions 100000] [--runs 5] [--store postgresql://...]

The store is filled with made-up conversations over 30 days, of which a share is drawn and 2,000 items are answered; then each page is asked
for by a signed-in admin and, where it differs, a reviewer. Prints the median and the slowest of the runs after the first, and the first.
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from starlette.testclient import TestClient

from demeanor.audit.log import AuditLog
from demeanor.audit.records import AuditRecord
from demeanor.conversation import Conversation, Message
from demeanor.dashboard.application import app
from demeanor.data.to_label import Question
from demeanor.review import accounts, queue
from demeanor.review.drawing import Decided, Drawing, Verdict
from demeanor.review.store import open_store
from demeanor.review.texts import keep

PASSWORD = "correct horse battery"
TRAITS = ("crisis_recognition", "harmful_validation", "boundary_maintenance", "empathetic_responsiveness")
ANSWERED, AUDITED = 2000, 5000
LIMIT = 0.2
WORDS = [f"{a}{b}{c}" for a in ("ba", "do", "ki", "lu", "me") for b in ("ra", "to", "ni", "su", "le") for c in ("n", "s", "r", "t")]


class Clock:
    """Seconds that pass as the store is filled."""

    def __init__(self, now):
        self.now = now

    def __call__(self):
        """Give the time."""
        return self.now


def decided(i, draw):
    texts = [" ".join(draw.choices(WORDS, k=60)) for _ in range(6)]
    messages = tuple(Message("user" if j % 2 == 0 else "assistant", text) for j, text in enumerate(texts))
    verdicts, action, scores = [], "allow", {}
    for trait in TRAITS:
        z = draw.gauss(1.5, 1.0)
        scores[trait] = z
        for rule, at, withholds in ((f"{trait}_certain", -1.0, True), (f"{trait}_possible", -0.5, False)):
            verdicts.append(Verdict(rule, trait, z <= at, at - z, z, "below", withholds))
            if z <= at:
                action = "substitute" if withholds or action == "substitute" else "flag"
    why = "the reply is too long" if i % 400 == 0 else None
    return Decided(f"d{i}", f"c{i // 3}", Conversation(messages), action, verdicts, "guarded 1 (abcd)", "f00d", scores, None, why)


def fill(store, clock, decisions, end):
    draw = random.Random(1)
    queue.ask(store, [Question(trait, trait.replace("_", " "), "is good", "is bad", "high") for trait in TRAITS])
    for name, role in (("cora", "admin"), ("anna", "reviewer")):
        accounts.add(store, name, role, PASSWORD)
    drawing = Drawing(share=0.02, doubtful=0.1, flagged=0.1, days=60)
    begun = time.perf_counter()
    for start in range(0, decisions, 1000):
        with store.db.transaction():
            for i in range(start, min(decisions, start + 1000)):
                clock.now = end - 30 * 86400 * (1 - i / decisions)
                keep(store, decided(i, draw), drawing)
    print(f"{decisions:,} decisions kept in {time.perf_counter() - begun:.0f} s", file=sys.stderr)
    with store.db.transaction():
        for (number,) in store.db.rows("SELECT number FROM item ORDER BY place LIMIT ?", ANSWERED):
            for who in ("ben", "dan"):
                queue.answer(store, number, who, draw.choices(["high", "low"], [0.9, 0.1])[0])


def log(path, end):
    with AuditLog(path) as written:
        for i in range(AUDITED):
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(end - 60 * i))
            written.append(AuditRecord("c", "m", "v", "p", "allow", "allow", None, (), {}, "s", None, False, None, {}, time=stamp))


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--decisions", type=int, default=100_000)
    arguments.add_argument("--runs", type=int, default=5)
    arguments.add_argument("--store")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        end = time.time()
        clock = Clock(end)
        with open_store(given.store or Path(folder) / "review.db", clock=clock) as opened:
            store = replace(opened, secret=bytes(32))
            fill(store, clock, given.decisions, end)
            log(Path(folder) / "audit.jsonl", end)
            clock.now = end
            middle = given.decisions // 2
            key = store.db.one("SELECT conversation FROM reply WHERE number = ?", middle)[0]
            since = time.strftime("%Y-%m-%d", time.gmtime(end - 20 * 86400))
            until = time.strftime("%Y-%m-%d", time.gmtime(end - 10 * 86400))
            pages = [
                "/", "/queue", "/queue?trait=boundary_maintenance", "/conversations", f"/conversations?before={middle}",
                "/conversations?action=substitute", "/conversations?action=escalate", "/conversations?rule=boundary_maintenance_certain",
                "/conversations?trait=crisis_recognition&action=flag", f"/conversations?since={since}&until={until}",
                "/conversations?answered=yes", "/conversations?answered=no", "/conversations?text=nowhere",
                f"/conversations?text=bara&rule=boundary_maintenance_certain&until={until}", f"/replies/{middle}", f"/conversations/{key}",
                "/labels", "/labels/boundary_maintenance_certain", "/labels/crisis_recognition_possible?z=0.4", "/reports", "/accounts",
            ]  # fmt: skip
            slow = 0
            with TestClient(app(store, Path(folder) / "audit.jsonl")) as client:
                for who in ("cora", "anna"):
                    client.cookies.clear()
                    client.post("/sign-in", data={"name": who, "password": PASSWORD, "next": "/queue"})
                    for page in pages if who == "cora" else [page for page in pages if page != "/accounts"]:
                        taken = []
                        for _ in range(given.runs + 1):
                            begun = time.perf_counter()
                            answer = client.get(page)
                            taken.append(time.perf_counter() - begun)
                            assert answer.status_code == 200, (page, answer.status_code)
                        first, *rest = taken
                        slow += max(rest) > LIMIT
                        print(
                            f"{who:5} {page:75} median {1000 * statistics.median(rest):5.0f} ms, slowest {1000 * max(rest):5.0f} ms, "
                            f"first {1000 * first:5.0f} ms"
                        )
    print(f"{slow} pages took longer than {1000 * LIMIT:.0f} ms")


if __name__ == "__main__":
    main()
