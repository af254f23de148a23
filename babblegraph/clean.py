"""Generated text made safe to show, at one place for every output: it is untrusted, and must obey us alone.

A terminal obeys escape sequences, a web page bidirectional overrides. Whatever draws text (the views, the explorer,
the HTML page) passes it through `visible` first; formats for other programs (GraphML, JSON, DOT) quote it instead.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

UNKNOWN = "\ufffd"
CONTROLS: Mapping[str, str] = {"\n": "⏎", "\t": "⇥"}
MOST_MARKS = 2  # combining marks on one character; more of them climb into the lines above


def visible(text: str, controls: Mapping[str, str] = CONTROLS, *, ascii_only: bool = False) -> str:
    r"""The text on one line, with a visible sign for whatever an output would obey instead of showing it.

    Control characters, line ends, bidirectional and zero-width controls, private and unassigned characters
    are replaced; piles of combining marks are cut; flags and joined emoji fall apart into single characters,
    since terminals do not agree on how wide those are. What is left takes one or two cells a character, or none
    for a mark.

    Args:
        text: anything at all.
        controls: what stands for some control characters.
        ascii_only: write all else as Python's escapes.

    >>> visible("a\tb\x1b[2J\u202ec")
    'a⇥b␛[2J\ufffdc'
    """
    if text.isascii() and text.isprintable():
        return text
    shown: list[str] = []
    marks = MOST_MARKS  # a mark at the very start has nothing to stand on
    for c in unicodedata.normalize("NFC", text):
        kind = unicodedata.category(c)
        if kind[0] == "M":
            if marks < MOST_MARKS and not ascii_only and not _is_selector(c):
                shown.append(c)
                marks += 1
            continue
        shown.append(controls[c] if c in controls else _visible_character(c, kind, ascii_only))
        marks = 0 if kind[0] == "L" else MOST_MARKS
    return "".join(shown)


def _visible_character(c: str, kind: str, ascii_only: bool) -> str:
    if ascii_only:
        return c if c.isascii() and c.isprintable() else ascii(c)[1:-1]
    code = ord(c)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    if 0x1F1E6 <= code <= 0x1F1FF:  # two of these make one flag on some terminals
        return chr(code - 0x1F1E6 + ord("A"))
    if kind == "Zs":
        return " "
    if kind[0] in "CZ" or 0x1F3FB <= code <= 0x1F3FF or _is_joining_jamo(code):
        return UNKNOWN
    return c


def _is_joining_jamo(code: int) -> bool:
    """Parts of Korean syllables, and fillers, without a width of their own; whole syllables are other characters."""
    return 0x1160 <= code <= 0x11FF or 0xD7B0 <= code <= 0xD7FF or code in (0x3164, 0xFFA0)


def _is_selector(c: str) -> bool:
    """Whether the mark chooses between narrow and wide shapes, which terminals do not agree on."""
    return "\ufe00" <= c <= "\ufe0f" or "\U000e0100" <= c <= "\U000e01ef"
