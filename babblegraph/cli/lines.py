"""The single lines that commands print: a message, a JSON object. A terminal shows all of them and obeys nothing."""

from __future__ import annotations

import json
import math
import re
import sys
from contextlib import suppress
from typing import Any

from babblegraph.clean import visible

# what JSON lets be, though a terminal obeys it or no encoding has it
OBEYED = re.compile("[\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


def complain(message: str) -> None:
    """Prints a message on standard error, whatever texts, names and errors of others are in it."""
    encoding = (sys.stderr.encoding or "").lower()
    line = visible(" ".join(message.split()), ascii_only=not encoding.startswith("utf"))
    with suppress(OSError):  # nobody reads it; the exit status says it all the same
        print(f"babblegraph: {line}", file=sys.stderr)


def one_line(found: dict[str, Any]) -> str:
    """A JSON object, its letters as they are where standard output can show all; null for what JSON has no number for.

    >>> one_line({"answer": "\\x1b[2J\\u202e", "auc": [math.nan, 0.5]})
    '{"answer": "\\\\u001b[2J\\\\u202e", "auc": [null, 0.5]}'
    """
    encoding = (sys.stdout.encoding or "").lower()
    line = json.dumps(_plain(found), ensure_ascii=not encoding.startswith("utf"), allow_nan=False)
    return OBEYED.sub(lambda letter: f"\\u{ord(letter[0]):04x}", line)


def _plain(found: Any) -> Any:
    if isinstance(found, dict):
        return {name: _plain(one) for name, one in found.items()}
    if isinstance(found, list | tuple):
        return [_plain(one) for one in found]
    return None if isinstance(found, float) and not math.isfinite(found) else found
