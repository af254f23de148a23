"""Copies of tails hold what the pools hold, wherever rows go."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from babblegraph.budget import Budget, Meter
from babblegraph.lm import Babbler
from babblegraph.lm.layout import Layout
from babblegraph.lm.store import Store
from babblegraph.lm.tails import Growth
from babblegraph.protocols import Chosen
from babblegraph.randomness import Rng

HEADS, SIZE, LAYER = 2, 3, 0


class Walk:
    """Rows that grow, part and end at random; the twin reads every row's whole path from the pools.

    Args:
        lengths: tokens of the texts that the rows begin with; all share the first `shared` of them.
    """

    def __init__(self, rng, lengths, shared, least):
        self.rng, self.least = rng, least
        self.store = Store(torch.device("cpu"))
        common = self.store.take(shared)
        self.paths = [np.r_[common, self.store.take(n - shared + 1)] for n in lengths]
        self._write(np.concatenate(self.paths))
        self.layout, self.built, self.kept = self._build(), 0, 0

    def step(self):
        """One token more in every row, some of which part or end before."""
        rows = np.arange(len(self.paths))
        if self.rng.random() < 0.6:
            rows = np.sort(self.rng.choice(len(rows), self.rng.integers(1, len(rows) + 3)))
        new = self.store.take(len(rows))
        self.paths = [np.r_[self.paths[r], slot] for r, slot in zip(rows, new, strict=True)]
        key, value = self._write(new)
        old, self.layout = self.layout, self.layout.reformed(rows)
        if self.layout is None:
            self.layout, self.built = self._build(), self.built + 1
            return
        self.kept += bool(self.layout.copies) and self.layout is not old
        self.layout.append(new)
        grow = Growth.of(self.layout, self.store)
        order = torch.as_tensor(self.layout.order)
        keys, values = grow(LAYER, key[order, :, None], value[order, :, None])
        for place, row in enumerate(self.layout.order.tolist()):
            n = self.layout.sizes[place]
            own = torch.as_tensor(self.paths[row][-n:])
            for found, pool in ((keys, self.store.keys), (values, self.store.values)):
                assert torch.equal(found[place, :, :n].transpose(0, 1), pool[LAYER][own])

    def covered(self):
        """The slots that the layout reads for each row of the batch."""
        read = {}
        for place, row in enumerate(self.layout.order.tolist()):
            parts = [s.slots for s in self.layout.segments if s.first <= place < s.last]
            read[row] = np.concatenate([*parts, self.layout.slots[place, : self.layout.sizes[place]]])
        return [read[row] for row in range(len(self.paths))]

    def _build(self):
        lengths = np.array([len(path) for path in self.paths])
        padded = np.zeros((len(lengths), lengths.max()), np.int64)
        for row, path in zip(padded, self.paths, strict=True):
            row[: len(path)] = path
        return Layout(padded, lengths, np.ones_like(lengths), self.least)

    def _write(self, slots):
        draw = torch.Generator().manual_seed(int(slots[0]))
        new = [torch.randn(len(slots), HEADS, SIZE, generator=draw) for _ in range(2)]
        self.store.write(LAYER, *(part[:, :, None] for part in new), torch.as_tensor(slots))
        return new


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    ("lengths", "shared", "least"), [([9], 9, 20), ([7, 9, 8], 5, 10**9), ([40] * 6, 30, 60)]
)
def test_rows_that_part_and_end_read_their_own_paths(seed, lengths, shared, least):
    walk = Walk(np.random.default_rng(seed), lengths, shared, least)
    for _ in range(60):
        walk.step()
        for path, read in zip(walk.paths, walk.covered(), strict=True):
            assert np.array_equal(np.sort(read), np.sort(path))
    assert walk.kept > 3  # otherwise nothing was tested
    assert walk.built < 40


def test_a_layout_is_built_anew_before_its_tails_have_grown_by_more_than_twice():
    walk = Walk(np.random.default_rng(0), [4] * 8, 2, 64)
    for _ in range(400):
        fits = len(walk.paths) * walk.layout.roomy.shape[1] < 2 * walk.layout._built
        rows = np.arange(len(walk.paths))[::-1]
        assert (walk.layout.reformed(rows) is not None) == fits
        walk.layout.append(walk.store.take(8))
    assert not fits


def test_rows_that_stay_keep_their_places_and_no_row_is_overwritten_before_it_is_moved():
    walk = Walk(np.random.default_rng(0), [4] * 8, 2, 10**9)
    before = walk.layout.order.copy()
    place = np.argsort(before)
    made = walk.layout.reformed(np.array([7, 7, 2, 0, 5, 2]))
    at = np.argsort(made.order)
    assert (at[[0, 2, 3, 4]] == place[[7, 2, 0, 5]])[place[[7, 2, 0, 5]] < 6].all()
    assert sorted(made.order.tolist()) == list(range(6))
    assert np.array_equal(walk.layout.order, before)


def test_rows_of_different_prompts_are_laid_out_anew():
    walk = Walk(np.random.default_rng(0), [30, 30], 1, 10)
    walk.paths = [path for path in walk.paths for _ in range(4)]
    walk.layout = walk._build()
    assert [segment.last - segment.first for segment in walk.layout.segments if segment.start] == [4, 4]
    assert walk.layout.reformed(np.arange(7)) is None


def expanded(characters, llama, **options):
    babbler = Babbler(llama, characters, span=12, **options)
    graph, draws = babbler.start(["3 5 7 11>24\n", "1 2 3>6\n"]), np.full(2, 6)
    meter = Meter(Budget(tokens=1000), 2)
    graph.add(babbler.expand(graph, Chosen(np.arange(2), draws), Rng(0), meter))
    return graph, babbler.trie(graph)


def test_copies_are_made_and_go_with_the_expansion_and_count_as_memory(characters, llama):
    _, trie = expanded(characters, llama)
    layers, rows, longest = 4, 12, 20
    assert 0 < trie.store.copied_bytes < layers * rows * 3 * longest * trie.store.token_bytes
    assert trie._layout is None


def test_a_memory_limit_has_no_room_for_copies_and_the_draws_are_the_same(characters, llama):
    graph, _ = expanded(characters, llama)
    limited, trie = expanded(characters, llama, memory_limit=1 << 22)
    assert trie.store.copied_bytes == 0
    assert np.array_equal(graph.tokens[: graph.stop.max()], limited.tokens[: limited.stop.max()])
