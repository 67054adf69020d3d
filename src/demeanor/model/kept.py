"""What is kept of token sequences that were read: a tree in which all that begin alike share what they have in common.

A node holds a stretch of tokens, each token's raw scores, and the keys and values to go on from. A sequence's *path* is the nodes
from the root on that hold its beginning; so a conversation that goes on, a new one that opens like another, and one whose whole
history comes again with every request find what was read before, by its tokens alone. Beyond a limit in bytes the stretches that were
not read for longest go first, a sequence's end before its beginning.

Knows no model, and is not for several threads at once; `used` may be asked for from any.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Values = NDArray[np.float32]
"""Raw scores [tokens, traits]."""
Blocks = list[Tensor]
"""Keys and values [layers, heads, tokens, width], one tensor for all layers of one shape."""
MERGED = 64  # tokens up to which a stretch is made longer, not followed by another
SCRAP = 8  # tokens: what follows a split and is shorter is what a template writes after a reply that has meanwhile grown
NODE = 1000  # bytes that a node takes beside what it holds


class Found(NamedTuple):
    """What is kept of the beginning of a sequence."""

    tokens: int
    """How many tokens it may go on after, without running them again."""
    blocks: list[Blocks]
    """Keys and values of these, stretch by stretch."""
    values: list[Values]
    """Raw scores of these, and of what follows as far as they are known."""

    @property
    def scored(self) -> int:
        """How many tokens have raw scores."""
        return sum(map(len, self.values))


class _Node:
    __slots__ = ("blocks", "children", "ids", "parent", "values")

    def __init__(self, ids: list[int], values: Values, blocks: Blocks | None, parent: _Node | None) -> None:
        self.ids, self.values, self.blocks, self.parent = ids, values, blocks, parent
        self.children: dict[int, _Node] = {}  # by their first token

    @property
    def nbytes(self) -> int:
        tensors = sum(block.nbytes for block in self.blocks) if self.blocks is not None else 0
        return NODE + 8 * len(self.ids) + self.values.nbytes + tensors

    def cut(self, n: int) -> tuple[list[int], Values, Blocks | None]:
        """Its first n tokens with what is kept of them, in memory of their own; the node keeps the rest."""
        first = self.ids[:n], self.values[:n].copy(), _own(self.blocks, 0, n)
        self.ids, self.values, self.blocks = self.ids[n:], self.values[n:].copy(), _own(self.blocks, n, len(self.ids))
        return first


class Kept:
    """The tree, with a limit in bytes; None for no bound."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.used = 0
        """Bytes that are kept now."""
        self._roots: dict[bool, _Node] = {}
        self._nodes: OrderedDict[_Node, None] = OrderedDict()  # in the order in which they were used, a node after those that follow it

    def __len__(self) -> int:
        return len(self._nodes)

    def find(self, ids: Sequence[int], anew: int | None = None, long: bool = False) -> Found:
        """What is kept of the beginning of a sequence.

        Args:
            ids: All its tokens.
            anew: Nothing is wanted of the tokens from this number on.
            long: What a model reads otherwise beyond a certain length is apart from the rest; so in all methods.
        """
        ids = list(ids[:anew])
        blocks: list[Blocks] = []
        values: list[Values] = []
        tokens, gap = 0, False
        path = self._path(ids, long)
        for node, shared in path:
            values.append(node.values[:shared])
            gap = gap or node.blocks is None
            if not gap and node.blocks is not None:
                blocks.append([block[:, :, :shared] for block in node.blocks])
                tokens += shared
        self._touch([node for node, _ in path])
        return Found(tokens, blocks, values)

    def add(self, ids: Sequence[int], start: int, values: Values, blocks: Blocks | None, long: bool = False) -> None:
        """Keep what was read of a sequence from token `start` on; without `blocks`, only its raw scores.

        The blocks are given up to the tree.
        """
        ids = list(ids)
        path, at, whole = [], 0, self._root(long)
        for known, shared in self._path(ids, long):
            node = known
            if shared < len(known.ids):
                node = self._split(known, shared)
                if len(known.ids) < SCRAP and not known.children:
                    self._drop(known)
            path.append(node)
            if node.blocks is None and blocks is not None and at >= start:
                self._change(node, blocks=_own(blocks, at - start, at - start + shared))
            whole, at = node, at + shared
        if start <= at < len(ids):
            own = blocks if at == start else _own(blocks, at - start, len(ids) - start)
            path = self._grow(path, whole, ids[at:], values[at - start :].copy(), own)
        self._touch(path)
        self.trim()

    def only(self, sequences: Sequence[tuple[Sequence[int], bool]]) -> None:
        """Forget all but these sequences (each with its `long`), and keys and values of all but the last of them, which may go on."""
        kept: set[_Node] = set()
        for ids, long in sequences:
            path = self._path(list(ids), long)
            if path and path[-1][1] < len(path[-1][0].ids):
                path[-1] = (self._split(*path[-1]), path[-1][1])
            kept |= {node for node, _ in path}
        for node in [node for node in self._nodes if node not in kept]:
            if node in self._nodes:
                self._drop(node)
        goes_on = {node for ids, long in sequences[-1:] for node, _ in self._path(list(ids), long)}
        for node in kept - goes_on:
            self._change(node, blocks=None)

    def trim(self) -> None:
        """Give up what was not used for longest, until the limit is kept."""
        while self.limit is not None and self.used > self.limit and self._nodes:
            self._drop(next(iter(self._nodes)))

    def clear(self) -> None:
        """Keep nothing."""
        self._roots, self.used = {}, 0
        self._nodes.clear()

    def _root(self, long: bool) -> _Node:
        return self._roots.setdefault(long, _Node([], np.zeros((0, 0), np.float32), None, None))

    def _path(self, ids: list[int], long: bool) -> list[tuple[_Node, int]]:
        """The nodes that a sequence begins with, and how many tokens of each it has."""
        node, at, path = self._root(long), 0, []
        while at < len(ids) and (child := node.children.get(ids[at])) is not None:
            here = ids[at : at + len(child.ids)]
            shared = len(here) if here == child.ids[: len(here)] else next(i for i, t in enumerate(here) if t != child.ids[i])
            path.append((child, shared))
            at += shared
            if shared < len(child.ids):
                break
            node = child
        return path

    def _grow(self, path: list[_Node], last: _Node, ids: list[int], values: Values, blocks: Blocks | None) -> list[_Node]:
        """Put tokens behind the last node of a path, or into it where it is short and nothing follows it; gives the path."""
        joins = last.parent is not None and not last.children and len(last.ids) + len(ids) <= MERGED
        if joins and (last.blocks is None) == (blocks is None):
            joined = None
            if last.blocks is not None and blocks is not None:
                joined = [torch.cat(pair, dim=2) for pair in zip(last.blocks, blocks, strict=True)]
            self.used -= last.nbytes
            last.ids, last.values, last.blocks = last.ids + ids, np.concatenate([last.values, values]), joined
            self.used += last.nbytes
            return path
        node = last.children[ids[0]] = _Node(ids, values, blocks, last)
        self._nodes[node] = None
        self.used += node.nbytes
        return [*path, node]

    def _split(self, node: _Node, n: int) -> _Node:
        """Make two of a node; gives the first, of n tokens."""
        assert node.parent is not None
        self.used -= node.nbytes
        first = _Node(*node.cut(n), node.parent)
        node.parent.children[first.ids[0]] = first
        node.parent, first.children = first, {node.ids[0]: node}
        self.used += node.nbytes + first.nbytes
        self._nodes[first] = None
        self._touch(self._above(first))
        return first

    def _above(self, node: _Node) -> list[_Node]:
        """The path to a node."""
        path = [node]
        while (above := path[-1].parent) is not None and above.parent is not None:
            path.append(above)
        return path[::-1]

    def _change(self, node: _Node, blocks: Blocks | None) -> None:
        self.used -= node.nbytes
        node.blocks = blocks
        self.used += node.nbytes

    def _drop(self, node: _Node) -> None:
        """Forget a node and what follows it."""
        assert node.parent is not None
        del node.parent.children[node.ids[0]]
        going = [node]
        while going:
            one = going.pop()
            going += one.children.values()
            del self._nodes[one]
            self.used -= one.nbytes

    def _touch(self, path: Sequence[_Node]) -> None:
        for node in reversed(path):
            self._nodes.move_to_end(node)


def _own(blocks: Blocks | None, start: int, end: int) -> Blocks | None:
    """A stretch of keys and values in memory of its own."""
    return None if blocks is None else [block[:, :, start:end].clone() for block in blocks]
