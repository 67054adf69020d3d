"""The tables of a review store, as numbered steps: a store remembers how many were made, and opening it makes the others.

A step that was released is never changed; what is to be different comes as a further one. {numbered} is a column that numbers its rows.
Times are seconds since 1970, sealed columns are text that may be encrypted (see sealing), JSON is text.
"""

from __future__ import annotations

from demeanor.errors import ReviewError
from demeanor.review.database import Database

STEPS: tuple[tuple[str, ...], ...] = (
    (
        # a reply that was decided about; its texts are sealed, and NULL once they were erased or their time is over
        """CREATE TABLE reply (
            number {numbered}, decision TEXT NOT NULL UNIQUE, conversation TEXT NOT NULL, at DOUBLE PRECISION NOT NULL,
            expires DOUBLE PRECISION NOT NULL, expires_labelled DOUBLE PRECISION NOT NULL, messages TEXT, shown TEXT, gone TEXT,
            action TEXT NOT NULL, scores TEXT NOT NULL, rules TEXT NOT NULL, not_scored TEXT, version TEXT NOT NULL)""",
        "CREATE INDEX reply_conversation ON reply (conversation)",
        "CREATE INDEX reply_expires ON reply (expires) WHERE gone IS NULL",
        "CREATE INDEX reply_at ON reply (at)",
        # a question about a reply that was drawn for people
        """CREATE TABLE item (
            number {numbered}, reply BIGINT NOT NULL REFERENCES reply (number), trait TEXT NOT NULL, why TEXT NOT NULL,
            probability DOUBLE PRECISION NOT NULL, place DOUBLE PRECISION NOT NULL, wanted INTEGER NOT NULL, needs INTEGER NOT NULL,
            value TEXT, alike BIGINT, UNIQUE (reply, trait))""",
        "CREATE INDEX item_place ON item (value, place, number)",
        "CREATE INDEX item_reply ON item (reply)",
        """CREATE TABLE answer (
            number {numbered}, item BIGINT NOT NULL REFERENCES item (number), reviewer TEXT NOT NULL, value TEXT NOT NULL, note TEXT,
            better TEXT, at DOUBLE PRECISION NOT NULL, seen INTEGER NOT NULL DEFAULT 0, UNIQUE (item, reviewer))""",
        """CREATE TABLE reservation (
            item BIGINT NOT NULL REFERENCES item (number), reviewer TEXT NOT NULL, until DOUBLE PRECISION NOT NULL,
            sheet INTEGER NOT NULL, PRIMARY KEY (item, reviewer))""",
        # how many replies of each kind there were, drawn or not; numbers only, which outlive the texts
        """CREATE TABLE tally (
            version TEXT NOT NULL, day TEXT NOT NULL, rule TEXT NOT NULL, trait TEXT NOT NULL, caught INTEGER NOT NULL, why TEXT NOT NULL,
            probability DOUBLE PRECISION NOT NULL, replies BIGINT NOT NULL,
            PRIMARY KEY (version, day, rule, caught, why, probability))""",
        # what near-duplicates have in common
        "CREATE TABLE band (mark TEXT NOT NULL, reply BIGINT NOT NULL, PRIMARY KEY (mark, reply))",
        "CREATE INDEX band_reply ON band (reply)",
        "CREATE TABLE question (trait TEXT PRIMARY KEY, title TEXT NOT NULL, high TEXT NOT NULL, low TEXT NOT NULL, safe TEXT NOT NULL)",
        """CREATE TABLE reviewer (
            name TEXT PRIMARY KEY, role TEXT NOT NULL, secret TEXT NOT NULL, added DOUBLE PRECISION NOT NULL)""",
        """CREATE TABLE event (
            number {numbered}, at DOUBLE PRECISION NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL, about TEXT NOT NULL)""",
        """CREATE TABLE version (
            number {numbered}, at DOUBLE PRECISION NOT NULL, who TEXT NOT NULL, why TEXT NOT NULL, vectors TEXT NOT NULL,
            fingerprint TEXT NOT NULL, policy TEXT NOT NULL, policy_text TEXT NOT NULL, back_from BIGINT)""",
        """CREATE TABLE shadow (
            decision TEXT NOT NULL, candidate TEXT NOT NULL, at DOUBLE PRECISION NOT NULL, acted TEXT NOT NULL, would TEXT NOT NULL,
            PRIMARY KEY (candidate, decision))""",
    ),
    (
        "ALTER TABLE reviewer ADD COLUMN disabled INTEGER NOT NULL DEFAULT 0",
        # who is signed in; the token itself is only in the browser
        """CREATE TABLE session (
            token TEXT PRIMARY KEY, reviewer TEXT NOT NULL REFERENCES reviewer (name), used DOUBLE PRECISION NOT NULL,
            until DOUBLE PRECISION NOT NULL)""",
        # wrong passwords, by hashes of the name and of where they came from
        "CREATE TABLE attempt (name TEXT NOT NULL, address TEXT NOT NULL, at DOUBLE PRECISION NOT NULL)",
        "CREATE INDEX attempt_at ON attempt (at)",
        # how the scores of all replies lie, drawn or not, in steps (see spread); `otherwise`: another rule withholds the reply
        """CREATE TABLE spread (
            version TEXT NOT NULL, day TEXT NOT NULL, rule TEXT NOT NULL, why TEXT NOT NULL, probability DOUBLE PRECISION NOT NULL,
            step INTEGER NOT NULL, otherwise INTEGER NOT NULL, replies BIGINT NOT NULL,
            PRIMARY KEY (version, rule, day, why, probability, step, otherwise))""",
    ),
    (
        # which rules caught a reply, so that these are found without reading all
        "CREATE TABLE caught (rule TEXT NOT NULL, trait TEXT NOT NULL, reply BIGINT NOT NULL, PRIMARY KEY (rule, reply))",
        "CREATE INDEX caught_trait ON caught (trait, reply)",
        "CREATE INDEX reply_action ON reply (action, number)",
        "CREATE INDEX reply_seen ON reply (at, action)",
        "CREATE INDEX reply_not_scored ON reply (at) WHERE not_scored IS NOT NULL",
        "CREATE INDEX reply_gone ON reply (number) WHERE gone IS NOT NULL",
        "CREATE INDEX item_alike ON item (number) WHERE alike IS NOT NULL",
        "CREATE INDEX spread_day ON spread (day, rule, step)",
    ),
)


def migrate(db: Database, steps: tuple[tuple[str, ...], ...] = STEPS) -> None:
    """Make the steps that a database has not made yet, each whole or not at all.

    Raises ReviewError for a database of something else, or one that a newer version of Demeanor wrote.
    """
    with db.transaction():
        there = db.tables()
        if there and "demeanor_review" not in there:
            raise ReviewError(f"{db.name}: a database of something else; name another one")
        if not there:
            db.run("CREATE TABLE demeanor_review (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
            db.run("INSERT INTO demeanor_review (name, value) VALUES ('step', '0')")
        made = int((db.one("SELECT value FROM demeanor_review WHERE name = 'step'") or (0,))[0])
        if made > len(steps):
            raise ReviewError(
                f"{db.name}: written by a newer version of Demeanor (step {made}, and this one knows {len(steps)}); update demeanor"
            )
        for step in steps[made:]:
            for statement in step:
                db.run(statement.format(numbered=db.numbered))
        db.run("UPDATE demeanor_review SET value = ? WHERE name = 'step'", str(len(steps)))
