"""Which tokens run together: every token of every job stands where its row says, whatever is shared."""

from hypothesis import given
from hypothesis import strategies as st

from demeanor.model.packing import Job, plan, windows

tokens = st.lists(st.integers(0, 2), min_size=1, max_size=12)


@st.composite
def job_lists(draw):
    """Jobs that share beginnings: a stem, sometimes a second one, and a rest of their own."""
    stems = [draw(st.lists(st.integers(0, 9), max_size=30)), draw(st.lists(st.integers(0, 9), max_size=20))]
    jobs = []
    for _ in range(draw(st.integers(1, 9))):
        ids = [*stems[0], *(stems[1] if draw(st.booleans()) else []), *draw(tokens)]
        start = draw(st.integers(0, len(ids) - 1))
        jobs.append(Job(ids, [(start, draw(st.integers(start + 1, len(ids))))]))
    return jobs


def laid_out(jobs, row):
    """The row's tokens, as the reader lays them out."""
    first = jobs[row.jobs[0]].ids
    found = first[row.head : row.head + row.trunk]
    for job, start, end in row.branches():
        assert jobs[job].ids[: row.head + row.trunk] == first[: row.head + row.trunk]
        assert start == len(found)
        found = found + jobs[job].ids[row.head + row.trunk :]
        assert end == len(found)
    return found


@given(job_lists(), st.sampled_from([0, 20, 1000]), st.sampled_from([0.0, 0.2]), st.sampled_from([20, 30, 1000]))
def test_every_job_stands_in_one_row_and_its_spans_are_found_there(jobs, shares_up_to, worth, turns_at):
    seen = []
    for batch in plan(jobs, 100, min(shares_up_to, turns_at), worth, turns_at):
        assert len({len(jobs[job].ids) > turns_at for row in batch for job in row.jobs}) == 1
        assert len({(row.head, row.masked) for row in batch}) == 1
        assert len(batch) == 1 or len(batch) * max(row.length for row in batch) <= 100
        for row in batch:
            line = laid_out(jobs, row)
            assert len(line) == row.length
            for branch in row.branches():
                job = jobs[branch[0]]
                seen.append(branch[0])
                start, end = job.spans[0]
                assert start >= row.head, "a span must not stand in the head, which no row holds"
                read = [t for first, last in row.columns(branch, start, end) for t in line[first:last]]
                assert read == job.ids[start:end]
    assert sorted(seen) == list(range(len(jobs)))


def test_replies_to_one_context_hold_it_once():
    context = list(range(100))
    jobs = [Job([*context, *range(200 + 20 * i, 220 + 20 * i)], [(100, 120)]) for i in range(3)]
    ((row,),) = plan(jobs, 1000, shares_up_to=1000)
    assert (row.head, row.trunk, row.length) == (0, 100, 160)


def test_what_most_jobs_begin_with_is_a_head():
    system = list(range(60))
    jobs = [Job([*system, *([100 + i] * 20)], [(65, 80)]) for i in range(5)]
    jobs += [Job([7] * 30, [(0, 30)])]
    rows = [row for batch in plan(jobs, 1000, shares_up_to=1000) for row in batch]
    assert [row.head for row in rows] == [60] * 5 + [0]


def test_a_short_beginning_is_not_worth_a_mask():
    jobs = [Job([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, *([20 + i] * 80)], [(20, 93)]) for i in range(6)]
    assert all(not row.masked for batch in plan(jobs, 1000, shares_up_to=1000) for row in batch)


def test_windows_read_each_token_of_a_span_once():
    job = Job(list(range(100)), [(10, 95)])
    found = windows(job, 30)
    assert all(len(w.ids) <= 30 for w in found)
    assert [t for w in found for t in w.ids[slice(*w.spans[0])]] == list(range(10, 95))
