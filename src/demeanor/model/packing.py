"""Which tokens run together: jobs to batches of rows, with what several jobs begin with run only once.

Most conversations with one model open alike (the template's system prompt), and the replies of a pair, an A/B set or a
list of candidates answer the same context. So two things are shared:

    head    tokens that most jobs begin with: run once, its keys and values kept, and every row continues from them
    trunk   tokens that a few jobs go on with: a row holds them once and then each job's own rest, its *branch*; under
            a mask no branch sees another, and each token keeps the position that it has in its own job

    row of two jobs:  [ trunk | branch of job 0 | branch of job 1 ]      preceded by the head, which stands in no row

Plain data; knows no tensor.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np

Spans: TypeAlias = Sequence[tuple[int, int]]
LEAST = 12  # tokens from which on a common beginning is worth looking at
WORTH = 0.2  # share of the tokens that sharing must save: attention under a mask costs about an eighth more on a CPU
ROW = 512  # tokens that a row of several branches may hold: every token of a row is compared with all of them
FEWEST_ON_HEAD = 4


@dataclass(frozen=True, slots=True)
class Job:
    """A tokenised conversation and the token spans to pool in it."""

    ids: list[int]
    spans: Spans


@dataclass(frozen=True, slots=True)
class PackedRow:
    """Jobs that run in one row. Tokens before `head` are not in it; then come `trunk` common ones, then the branches."""

    jobs: tuple[int, ...]
    ends: tuple[int, ...]
    """How many tokens each job has."""
    head: int = 0
    trunk: int = 0

    @property
    def length(self) -> int:
        """Its tokens."""
        return self.trunk + sum(end - self.head - self.trunk for end in self.ends)

    @property
    def masked(self) -> bool:
        """Whether some of its tokens must not see all that come before them, or see a head."""
        return self.head > 0 or len(self.jobs) > 1

    def branches(self) -> Iterator[tuple[int, int, int]]:
        """Each job, with the columns of its branch."""
        column = self.trunk
        for job, end in zip(self.jobs, self.ends, strict=True):
            width = end - self.head - self.trunk
            yield job, column, column + width
            column += width

    def columns(self, branch: tuple[int, int, int], start: int, end: int) -> Iterator[tuple[int, int]]:
        """The columns where tokens start..end of a branch's job stand: some in the trunk, some in its branch."""
        _, first, last = branch
        inside = (max(start, self.head) - self.head, min(end, self.head + self.trunk) - self.head)
        if inside[0] < inside[1]:
            yield inside
        shift = first - self.head - self.trunk
        own = (max(start + shift, first), min(end + shift, last))
        if own[0] < own[1]:
            yield own

    def alone(self) -> list[PackedRow]:
        """Each of its jobs in a row of its own, sharing nothing."""
        return [PackedRow((job,), (end,)) for job, end in zip(self.jobs, self.ends, strict=True)]


def plan(
    jobs: Sequence[Job], token_budget: int, shares_up_to: int = 0, worth: float = WORTH, turns_at: int = sys.maxsize
) -> Iterator[list[PackedRow]]:
    """Batches of rows, longest first (so that a lack of memory shows at once), within the budget, padding included.

    Rows that share and rows that do not (and so need no mask) come in batches of their own. Jobs longer than
    `shares_up_to` tokens share nothing, and others only what saves this much of their tokens. No batch holds jobs both
    longer and not longer than `turns_at` tokens.
    """
    sharing = [i for i, job in enumerate(jobs) if len(job.ids) <= shares_up_to]
    rows = [PackedRow((i,), (len(job.ids),)) for i, job in enumerate(jobs) if len(job.ids) > shares_up_to]
    if sharing:
        rows += _shared(jobs, sharing, worth)

    def kind(row: PackedRow) -> tuple[int, bool, bool]:
        return row.head, row.masked, max(row.ends) > turns_at

    rows.sort(key=lambda row: (kind(row), row.length), reverse=True)
    batch: list[PackedRow] = []
    for row in rows:
        other = bool(batch) and kind(row) != kind(batch[0])
        if batch and (other or (len(batch) + 1) * batch[0].length > token_budget):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def windows(job: Job, size: int, again: int = 0) -> list[Job]:
    """A job longer than `size` tokens as overlapping windows, each with the parts of the spans that no earlier one reads.

    A span that has no token in a window is (0, 0) there. The last `again` tokens that a window reads are read by the next one too.
    """
    found = []
    for start, done, end in window_bounds(len(job.ids), size):
        spans = []
        for a, b in job.spans:
            first, last = max(a, done - again, start), min(b, end)
            spans.append((first - start, last - start) if max(first, done) < last else (0, 0))
        found.append(Job(job.ids[start:end], spans))
    return found


def window_bounds(length: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Where each window begins, from where on it reads, and where it ends.

    All but the first begin half a window before what they read, so that where they begin does not depend on the length: a conversation
    that grows keeps its windows.
    """
    start = done = 0
    while done < length:
        end = min(length, start + size)
        yield start, done, end
        start, done = start + size // 2, end


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two jobs begin with in common."""
    n = min(len(a), len(b))
    differ = np.flatnonzero(np.array(a[:n]) != np.array(b[:n]))
    return int(differ[0]) if len(differ) else n


def _shared(jobs: Sequence[Job], members: list[int], worth: float) -> list[PackedRow]:
    order = sorted(members, key=lambda i: jobs[i].ids)  # what begins alike is now side by side
    head, on_head = _head(jobs, order, worth)
    rows = []
    for start, some in ((head, [i for i in order if i in on_head]), (0, [i for i in order if i not in on_head])):
        for trunk, group in _groups(jobs, some, start, worth):
            rows.append(PackedRow(tuple(group), tuple(len(jobs[i].ids) for i in group), start, trunk))
    return rows


def _head(jobs: Sequence[Job], order: list[int], worth: float) -> tuple[int, set[int]]:
    """Length of the beginning whose sharing saves most, and the jobs that have it; 0 where none is worth it.

    What more than half begin with, the middle one of the sorted jobs begins with too. A head ends before any span.
    """
    middle = jobs[order[len(order) // 2]].ids
    common = {i: min(common_prefix(jobs[i].ids, middle), min((a for a, _ in jobs[i].spans), default=0)) for i in order}
    lengths = np.sort(np.array(list(common.values())))[::-1]
    saved = lengths * np.arange(len(lengths))
    best = int(saved.argmax())
    head = int(lengths[best])
    on_head = {i for i, length in common.items() if length >= head}
    if head < LEAST or best + 1 < FEWEST_ON_HEAD or saved[best] < worth * sum(len(jobs[i].ids) for i in on_head):
        return 0, set()
    return head, on_head


def _groups(jobs: Sequence[Job], order: list[int], head: int, worth: float) -> Iterator[tuple[int, list[int]]]:
    """Neighbours in sorted order that share a trunk beyond the head, greedily, as (trunk, jobs)."""
    if not order:
        return
    group, trunk = [order[0]], 0
    for before, job in pairwise(order):
        shared = min(common_prefix(jobs[before].ids, jobs[job].ids), len(jobs[before].ids) - 1, len(jobs[job].ids) - 1) - head
        together = min(trunk, shared) if len(group) > 1 else shared
        apart = sum(len(jobs[i].ids) - head for i in (*group, job))
        saved = len(group) * together
        if together >= LEAST and saved >= max((len(group) - 1) * trunk, worth * apart) and apart - saved <= ROW:
            group.append(job)
            trunk = together
            continue
        yield trunk, group
        group, trunk = [job], 0
    yield trunk, group
