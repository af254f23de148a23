"""The single lines that commands print: a message, a JSON object. A terminal shows all of them and obeys nothing."""

from __future__ import annotations

import json
import re
import sys
from contextlib import suppress
from typing import Any

from babblegraph.clean import visible

OBEYED = re.compile("[\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")  # JSON lets them be


def complain(message: str) -> None:
    """Prints a message on standard error, whatever texts, names and errors of others are in it."""
    encoding = (sys.stderr.encoding or "").lower()
    line = visible(" ".join(message.split()), ascii_only=not encoding.startswith("utf"))
    with suppress(OSError):  # nobody reads it; the exit status says it all the same
        print(f"babblegraph: {line}", file=sys.stderr)


def one_line(found: dict[str, Any]) -> str:
    """A JSON object, its letters as they are where standard output can show all.

    >>> one_line({"answer": "\\x1b[2J\\u202e"})
    '{"answer": "\\\\u001b[2J\\\\u202e"}'
    """
    encoding = (sys.stdout.encoding or "").lower()
    line = json.dumps(found, ensure_ascii=not encoding.startswith("utf"), allow_nan=False)
    return OBEYED.sub(lambda letter: f"\\u{ord(letter[0]):04x}", line)
