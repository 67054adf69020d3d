"""The store of texts: kept only here, for a time, sealed where a key is given, erased on request; the same on SQLite and PostgreSQL."""

import sqlite3
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from review_tools import CRISIS, clock_fixture, decided, said, server_fixture, store_fixture, where_fixture  # noqa: F401

from demeanor.errors import ReviewError
from demeanor.review import migrations, queue, texts
from demeanor.review.database import open_database
from demeanor.review.drawing import Drawing
from demeanor.review.sealing import new_key
from demeanor.review.store import open_store

ALL = Drawing(share=1.0, days=10, labelled_days=100)
DAY = 86400.0


def raw(store, where):
    """Every byte that the store has written."""
    if not where.startswith("postgresql"):
        folder = Path(where)
        return b"".join(p.read_bytes() for p in folder.parent.glob(folder.name + "*"))
    return repr([store.db.rows(f"SELECT * FROM {table}") for table in store.db.tables()]).encode()


def test_a_reply_comes_back_as_it_was_kept(store):
    odd = "half a pair \ud800, a NUL \x00, \u202eright to left, <script>alert(1)</script> 100 %, a ? and 'quotes'"
    number = texts.keep(store, replace(decided(1, conversation=said(1, odd)), shown=odd, not_scored="too long"), ALL)
    found = texts.read(store, number)
    assert found.conversation.response == odd
    assert (found.shown, found.not_scored, found.action, found.at) == (odd, "too long", "allow", store.clock())
    assert found.scores == {"crisis_recognition": 3.0}
    assert found.verdicts == tuple(decided(1).verdicts)
    with pytest.raises(ReviewError, match="no reply 99"):
        texts.read(store, 99)


def test_a_retry_is_neither_kept_nor_drawn_nor_counted_again(store):
    first = [texts.keep(store, decided(i), Drawing(share=0.5)) for i in range(40)]
    drawn = store.db.rows("SELECT reply, place FROM item ORDER BY number")
    assert 5 < len(drawn) < 35
    assert [texts.keep(store, decided(i), Drawing(share=0.5)) for i in range(40)] == first
    assert store.db.rows("SELECT reply, place FROM item ORDER BY number") == drawn
    assert store.db.one("SELECT sum(replies) FROM tally")[0] == 40


def test_the_draw_is_the_same_wherever_it_is_made_and_another_with_another_secret(store, tmp_path):
    chances = [store.chance(f"d{i}") for i in range(500)]
    assert chances == [store.chance(f"d{i}") for i in range(500)]
    assert 0.4 < sum(chances) / 500 < 0.6
    assert max(chances) < 1
    with open_store(tmp_path / "other.db") as other:
        assert [other.chance(f"d{i}") for i in range(500)] != chances


def test_conversation_ids_are_nowhere_in_the_store(store, where):
    texts.keep(store, decided(1, talk="patient-4711"), ALL)
    assert b"patient-4711" not in raw(store, where)
    assert texts.conversation_of(store, texts.read(store, 1).conversation_key)[0].number == 1


def test_erasing_a_conversation_leaves_no_word_of_it_and_says_so_without_text(store, where):
    for i in range(3):
        texts.keep(store, decided(i, talk="one" if i < 2 else "other", conversation=said(i, f"secretword{i}")), ALL)
    for _ in range(3):
        item = queue.next_item(store, "anna")
        queue.answer(store, item.number, "anna", "high", note=f"note on {item.conversation.response}", better=f"better than {item.reply}")
    assert texts.erase(store, "one", who="root") == 2
    found = raw(store, where)
    assert b"secretword0" not in found
    assert b"secretword1" not in found
    assert b"secretword2" in found
    assert b"note on secretword2" in found
    assert [texts.read(store, i).gone for i in (1, 2, 3)] == ["erased", "erased", None]
    assert texts.read(store, 1).decision == "erased 1"
    event = store.db.one("SELECT who, what, about FROM event")
    assert event == ("root", "erase", '{"replies": 2}')
    assert store.db.rows("SELECT value FROM item") == [("high",)] * 3, "a label is a number, and stays"
    assert texts.erase(store, "one") == 0
    assert texts.erase(store, "never seen") == 0


def test_texts_go_when_their_time_is_over_and_later_where_somebody_labelled(store, clock):
    for i in range(2):
        texts.keep(store, decided(i), ALL)
    item = queue.next_item(store, "anna")
    queue.answer(store, item.number, "anna", "low")
    clock.now += 9.9 * DAY
    assert texts.expire(store) == 0
    clock.now += 0.2 * DAY
    other = next(i for i in (1, 2) if i != item.reply)
    assert texts.read(store, other).gone == "expired"
    assert texts.read(store, other).conversation is None
    assert texts.read(store, item.reply).conversation is not None
    assert queue.next_item(store, "ben") is None
    clock.now += 91 * DAY
    assert texts.read(store, item.reply).gone == "expired"
    assert [about for (about,) in store.db.rows("SELECT about FROM event")] == ['{"replies": 1}'] * 2


def test_with_a_key_no_text_lies_open_and_another_key_is_refused(where, tmp_path, monkeypatch):
    pytest.importorskip("cryptography")
    key = new_key()
    with open_store(where, key) as store:
        texts.keep(store, replace(decided(1, conversation=said(1, "secretword")), shown="insteadword"), ALL)
        queue.ask(store, [CRISIS])
        queue.answer(store, queue.next_item(store, "anna").number, "anna", "low", note="noteword", better="betterword")
        found = raw(store, where)
        assert not any(word in found for word in (b"secretword", b"alpha1", b"insteadword", b"noteword", b"betterword"))
        assert texts.read(store, 1).shown == "insteadword"
    with pytest.raises(ReviewError, match="is not the key that it was begun with"):
        open_store(where, new_key())
    with pytest.raises(ReviewError, match="set DEMEANOR_REVIEW_KEY"):
        open_store(where)
    with pytest.raises(ReviewError, match="no key: 32 random bytes"):
        open_store(where, "hello")
    monkeypatch.setenv("DEMEANOR_REVIEW_KEY", key)
    open_store(where).close()
    monkeypatch.delenv("DEMEANOR_REVIEW_KEY")
    open_store(tmp_path / "plain.db").close()
    with pytest.raises(ReviewError, match="begun without a key"):
        open_store(tmp_path / "plain.db", key)


def test_steps_are_made_once_and_in_their_order(where):
    with open_store(where):
        pass
    db = open_database(where)
    more = (*migrations.STEPS, ("ALTER TABLE reply ADD COLUMN added TEXT", "CREATE TABLE later (number {numbered})"))
    migrations.migrate(db, more)
    migrations.migrate(db, more)
    assert "later" in db.tables()
    db.close()
    with pytest.raises(ReviewError, match="newer version"):
        open_store(where)


def test_a_step_that_fails_leaves_nothing_behind(where):
    open_store(where).close()
    db = open_database(where)
    with pytest.raises(ReviewError):
        migrations.migrate(db, (*migrations.STEPS, ("CREATE TABLE half (number {numbered})", "NONSENSE")))
    assert "half" not in db.tables()
    migrations.migrate(db)
    db.close()


def test_a_transaction_that_breaks_off_leaves_nothing_and_the_next_goes_on(store):
    def broken():
        with store.db.transaction():
            store.record("x", "y")
            with store.db.transaction():
                store.record("x", "z")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    assert store.db.rows("SELECT * FROM event") == []
    with pytest.raises(ReviewError), store.db.transaction():
        store.db.run("NONSENSE")
    store.record("x", "y")
    assert len(store.db.rows("SELECT * FROM event")) == 1


def test_what_is_no_store_is_refused(tmp_path):
    (tmp_path / "text.db").write_text("hello, I am a letter" * 100)
    with pytest.raises(ReviewError, match="not a review store"):
        open_store(tmp_path / "text.db")
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE x (y)")
    other.close()
    with pytest.raises(ReviewError, match="a database of something else"):
        open_store(tmp_path / "other.db")
    with pytest.raises(ReviewError, match="is a folder"):
        open_store(tmp_path)
    with pytest.raises(ReviewError, match="make it first"):
        open_store(tmp_path / "none" / "review.db")
    with pytest.raises(ReviewError, match="begins with postgresql://, not mysql://"):
        open_store("mysql://host/x")


def test_a_server_that_is_not_there_is_said_in_one_line_without_the_password():
    pytest.importorskip("psycopg")
    with pytest.raises(ReviewError) as refused:
        open_store("postgresql://me:hush@127.0.0.1:1/none?connect_timeout=1")
    assert "hush" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_only_its_owner_reads_a_store(tmp_path):
    open_store(tmp_path / "review.db").close()
    assert stat.S_IMODE((tmp_path / "review.db").stat().st_mode) == 0o600


def test_a_backup_is_a_store(store, where, tmp_path):
    texts.keep(store, decided(1), ALL)
    target = tmp_path / "copy.db"
    store.backup(target, "root")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    with pytest.raises(ReviewError, match="is there already"):
        store.backup(target)
    if where.startswith("postgresql"):
        assert target.read_bytes()[:5] == b"PGDMP"
    else:
        with open_store(target, clock=store.clock) as copy:
            assert texts.read(copy, 1).conversation == said(1)
            assert copy.secret == bytes.fromhex(store.db.one("SELECT value FROM demeanor_review WHERE name = 'secret'")[0])


@pytest.mark.parametrize("wrong", [{"share": 0.0}, {"share": 1.1}, {"flagged": 0.0}, {"doubtful": -1.0}, {"reviewers": 0}, {"days": 0.0}])
def test_a_drawing_that_would_leave_replies_out_is_refused(wrong):
    with pytest.raises(ReviewError):
        Drawing(**wrong)
