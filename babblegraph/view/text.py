"""Generated text, safe and cut to a number of terminal cells."""

from __future__ import annotations

from rich.cells import cell_len, get_character_cell_size

from babblegraph import clean
from babblegraph.clean import MOST_MARKS, UNKNOWN
from babblegraph.view.signs import UNICODE, Signs

MOST_READ = 6  # characters read for each cell of room: enough, and a novel in one span stays cheap


def fit(text: str, width: int, signs: Signs = UNICODE, middle: bool = False) -> str:
    """Any text as one safe line of at most `width` cells.

    Args:
        text: anything at all.
        width: in terminal cells.
        signs: what stands for control characters.
        middle: cut out the middle rather than the end.

    >>> fit("3+4=7:7\\n\\x1b[2J", 12)
    '3+4=7:7⏎␛[2J'
    >>> fit("a long line of text", 8), fit("a long line of text", 9, middle=True)
    ('a long …', 'a lo…text')
    """
    room = MOST_READ * max(width, 1) + 16
    whole = len(text) <= room
    if not whole:
        text = text[: room // 2] + UNKNOWN + text[-(room // 2) :] if middle else text[:room]
    line = visible(text, signs)
    if cell_len(line) <= width and (whole or middle):  # what was not read may lie behind piles of marks
        return line
    room = width - len(signs.ellipsis)
    if room <= 0:
        return head(line, max(width, 0))
    if not middle:
        return head(line, room) + signs.ellipsis
    tail = _tail(line, room // 2)
    return head(line, room - cell_len(tail)) + signs.ellipsis + tail


def fit_figures(text: str, width: int, signs: Signs = UNICODE) -> str:
    """`fit` for words with figures in them: a figure that has no room is left out whole, as half of it is another one.

    >>> fit_figures("level 3 took 1234 tokens", 17), fit("level 3 took 1234 tokens", 17)
    ('level 3 took …', 'level 3 took 123…')
    """
    line, whole = fit(text, width, signs), visible(text, signs)
    kept = line.removesuffix(signs.ellipsis) if line != whole else line
    before, gap, last = kept.rpartition(" ")
    if whole[len(kept) :].startswith(" ") or len(kept) == len(whole) or not any(map(str.isdigit, last)):
        return line
    return before + gap + line[len(kept) :]


def wrapped(text: str, width: int, indent: int = 0) -> list[str]:
    """Safe words as lines of at most `width` cells, broken between words: within one only if it is wider than a line.

    >>> wrapped("at most 0.023 of them", 13, indent=2)
    ['  at most', '  0.023 of', '  them']
    """
    lead, room = " " * indent, max(width - indent, 2)
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".lstrip()
        if cell_len(joined) <= room:
            lines[-1] = joined
            continue
        lines.append(word)
        while cell_len(word := lines[-1]) > room:
            part = head(word, room)
            lines[-1:] = [part, word[len(part) :]]
    return [lead + line for line in lines if line]


def visible(text: str, signs: Signs = UNICODE) -> str:
    """The text on one safe line, in the characters that `signs` may use; see `clean.visible`."""
    return clean.visible(text, signs.controls, ascii_only=signs.ascii_only)


def head(line: str, width: int, start: int = 0) -> str:
    """The most of a safe line from `start` on that fits into `width` cells; the work is for these, not for the line."""
    # a cell too many at least: only marks take none
    line = line[start : start + (1 + MOST_MARKS) * (width + 1)]
    if cell_len(line) <= width:
        return line
    used = 0
    for i, c in enumerate(line):
        used += get_character_cell_size(c)
        if used > width:
            return line[:i]
    return line


def pad(line: str, width: int) -> str:
    """A safe line with spaces up to `width` cells."""
    return line + " " * (width - cell_len(line))


def _tail(line: str, width: int) -> str:
    used = 0
    for i in range(len(line) - 1, -1, -1):
        used += get_character_cell_size(line[i])
        if used > width:
            return line[i + 1 :]
    return line
