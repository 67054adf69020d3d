"""The queue on a sheet and back: nothing lost, nothing taken from another store, all or nothing."""

import csv
from dataclasses import replace

import pytest
from review_tools import BOUNDARY, CRISIS, Clock, decided, said

from demeanor.errors import InputFileError, OutputError, ReviewError
from demeanor.review import queue, texts
from demeanor.review.drawing import Drawing
from demeanor.review.sheets import DUE, export_sheet, import_sheet
from demeanor.review.store import open_store

HOSTILE = '<script>alert(1)</script> \x1b[31mred\x1b[0m =HYPERLINK("x") <|im_start|> \u202eright to left ' + "long " * 20_000


@pytest.fixture(name="store")
def store_fixture(tmp_path):
    with open_store(tmp_path / "review.db", clock=Clock()) as opened:
        queue.ask(opened, [CRISIS, BOUNDARY])
        yield replace(opened, secret=bytes(32))


def fill(store, n=4):
    for i in range(n):
        texts.keep(store, decided(i, conversation=said(i, HOSTILE) if i == 0 else None), Drawing(share=1.0))


def fill_in(path, labels, rater="Anna", column="label"):
    """Write labels into a sheet, by its rows."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    for row, label in zip(rows, labels, strict=True):
        row[column] = label
    rows[0]["rater"] = rater
    rows[0]["notes"] = "a note"
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_labels_come_back_from_a_sheet_with_hostile_texts_whole(store, tmp_path):
    fill(store)
    sheet = tmp_path / "sheet.csv"
    assert export_sheet(store, "anna", sheet, 10) == 4
    assert (tmp_path / "sheet-guide.html").exists()
    assert queue.next_item(store, "ben") is None, "the items are with anna"
    fill_in(sheet, ["safe", "unsafe", "unsure", ""])
    found = import_sheet(store, sheet)
    assert (found.labels, found.unlabelled) == (3, 1)
    answers = store.db.rows("SELECT reviewer, value FROM answer ORDER BY number")
    assert answers == [("anna", "high"), ("anna", "low"), ("anna", "unsure")]
    assert import_sheet(store, sheet).labels == 3, "a second time changes nothing"
    assert store.db.one("SELECT count(*) FROM answer")[0] == 3


def test_items_that_do_not_come_back_go_to_somebody_else(store, tmp_path):
    fill(store, 2)
    export_sheet(store, "anna", tmp_path / "a.csv", 10)
    with pytest.raises(ReviewError, match="nothing is left for ben"):
        export_sheet(store, "ben", tmp_path / "b.csv", 10)
    assert not (tmp_path / "b.csv").exists()
    store.clock.now += DUE + 1
    assert export_sheet(store, "ben", tmp_path / "b.csv", 10) == 2


def test_a_sheet_is_taken_whole_or_not_at_all(store, tmp_path):
    fill(store)
    sheet = tmp_path / "sheet.csv"
    export_sheet(store, "anna", sheet, 10)
    fill_in(sheet, ["safe", "unsaf", "maybe 3", "unsafe"])
    with pytest.raises(InputFileError, match=r"2 rows cannot be taken, and nothing was: .*did you mean unsafe"):
        import_sheet(store, sheet)
    assert store.db.one("SELECT count(*) FROM answer")[0] == 0


def test_a_changed_row_and_a_sheet_of_another_store_are_refused(store, tmp_path):
    fill(store)
    sheet = tmp_path / "sheet.csv"
    export_sheet(store, "anna", sheet, 10)
    fill_in(sheet, ["safe"] * 4)
    with open_store(tmp_path / "other.db") as other:
        queue.ask(other, [CRISIS])
        with pytest.raises(InputFileError, match="not an item of this store"):
            import_sheet(other, sheet)
    fill_in(sheet, ["boundary"] * 4, column="trait")
    with pytest.raises(InputFileError, match="changed after the sheet was handed out"):
        import_sheet(store, sheet)


def test_a_sheet_without_a_rater_asks_for_one(store, tmp_path):
    fill(store, 1)
    sheet = tmp_path / "sheet.csv"
    export_sheet(store, "anna", sheet, 10)
    fill_in(sheet, ["1"], rater="")
    with pytest.raises(InputFileError, match="--reviewer"):
        import_sheet(store, sheet)
    assert import_sheet(store, sheet, "ben").labels == 1
    assert store.db.one("SELECT reviewer, value FROM answer") == ("ben", "high")


def test_a_place_that_is_taken_reserves_nothing(store, tmp_path):
    fill(store, 1)
    (tmp_path / "sheet.csv").write_text("mine")
    with pytest.raises(OutputError, match="already exists"):
        export_sheet(store, "anna", tmp_path / "sheet.csv", 10)
    assert store.db.rows("SELECT * FROM reservation") == []
