"""What a node can be: its status, the gate that stopped it, and flags."""

from __future__ import annotations

from enum import IntEnum, IntFlag


class Status(IntEnum):
    """What a node is now."""

    FRONTIER = 0  # live, never expanded
    EXPANDED = 1  # live, has children; may be expanded again
    LEAF_END = 2  # finished: the model ended the text
    LEAF_STOP = 3  # finished: a final stop string, or the task says that it is complete
    LEAF_LENGTH = 4  # finished: no room for more tokens
    LEAF_DEAD = 5  # provably worthless: score 0, its weight kept
    PRUNED = 6  # stopped by a gate
    MERGED = 7  # the same state as another node, which stands for it
    STEM = 8  # holds back a share of its parent's weight for a later restart


class Gate(IntEnum):
    """Which filter stopped a node."""

    NONE = 0
    TOKEN = 1
    NODE = 2
    LEAF = 3
    ELITE = 4


class Flag(IntFlag):
    """What else is worth knowing of a node."""

    BIASED = 1  # its pruning was not by an unbiased operation
    SCORER_FAILED = 2  # a value function raised, hung, or gave no usable number
    CUT = 4  # the budget ended the span early
    EXHAUSTED = 8  # every continuation has been drawn
    PROBE = 16  # a gate rejected it and let it live, to see what would have become of it
