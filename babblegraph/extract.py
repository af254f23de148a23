r"""Where the answer stands in a finished text, and when two answers are the same.

Every function takes the text that was generated, without its prompt. Nothing is evaluated: `1/2` and `0.5` are one
number and so one answer, `2\pi` and `6.28` are not, nor are `x + 1` and `1 + x`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction

MOST_DIGITS = 400  # of a number; a longer row of digits is no number
UNITS = "mghsL"  # of one letter; any other letter behind a number is a variable

_NUMBER = re.compile(
    r"(?:(?<![\w.)\]}])[-+−])?(?<![A-Za-z_\d.])"  # a minus between two things is no sign, x2 no number
    r"(?:\d+[^\S\n\r]+\d+/\d+|(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:\s?/\s?\d+)?)"
)
_BEHIND = re.compile(rf"(?:\s*+(?:[-/]\s*+)?(?:[^\W\d_]{{2,}}|[{UNITS}])\b\.?)*+[\s.]*")  # units and words
_ANSWER = re.compile(r"\banswer\b(?:[^.\n]{0,60}?\bis\b|[\s*]*[:=])[\s:*`]*", re.IGNORECASE)
# behind a number that is only the beginning of an answer, such as 2x, 3:30, 2 + 3i, 1.5e3
_GOES_ON = re.compile(
    rf"\s*(?:[+*×·^/]|\\)|[:(]|[-−](?:\d|[^\W\d_]\b)|[eE][-+−]?\d|(?![{UNITS}]\b)(?![A-Z])[^\W\d_]\b"
)
_BRACES = re.compile(r"\\boxed\s*\{|\\[{}]|[{}]")
_WRAPPED = re.compile(r"\\(?:text|mathrm|textbf|mathbf|mbox)\s*\{([^{}]*)\}")
_FRACTION = re.compile(r"\\[dtc]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_OF_UNITS = re.compile(
    r"(?<=[A-Za-z])\^\{?[23]\}?"
)  # square metres; behind a letter that is no unit it counts
_MARKS = " .,;:?\"'*"  # around an answer
_DROPPED = re.compile(
    r"\\(?:left|right|displaystyle)(?![A-Za-z])|\^\{?\\circ\}?|\\[()\[\]!%$]|[$%€£¥°`]|\*\*"
)


def final_answer(text: str) -> str | None:
    r"""The answer that a text ends with, as it is written; None where there is none.

    What the last closed \boxed{…} holds; else the line behind the last ####; else what follows the last "answer is"
    or "answer:"; else the last number.

    >>> [final_answer(t) for t in (r"so \boxed{\frac{1}{2}}.", "6*7=42\n#### 42", "The answer is 42 apples.", "Hm.")]
    ['\\frac{1}{2}', '42', '42', None]
    """
    if (found := boxed(text)) is not None:
        return found
    _, marked, behind = text.rpartition("####")
    if marked and (line := behind.strip().partition("\n")[0].strip()):
        return line
    if said := list(_ANSWER.finditer(text)):
        behind = text[said[-1].end() :].strip()
        phrase = re.split(r"\n|\.(?=\s|$)|,? because\b", behind, maxsplit=1)[0].strip()
        result = plain(phrase.rpartition("=")[2]).strip()
        number = _NUMBER.match(result)
        if phrase:
            return number[0] if number and not _GOES_ON.match(result, number.end()) else phrase
    return last_number(text)


def boxed(text: str) -> str | None:
    r"""What the last closed \boxed{…} holds, its braces balanced; None where no box is closed.

    >>> boxed(r"\boxed{1} and \boxed{\frac{2}{3}} and \boxed{4")
    '\\frac{2}{3}'
    """
    opened: list[int] = []  # where the contents of open braces begin; negative for those of no box
    last, found = -1, None
    for brace in _BRACES.finditer(text):
        if brace[0] == "}":
            start = opened.pop() if opened else -1
            if start > last:
                last, found = start, text[start : brace.start()].strip()
        elif brace[0] == "{":
            opened.append(-1)
        elif brace[0].startswith("\\boxed"):
            opened.append(brace.end())
    return found


def last_number(text: str) -> str | None:
    """The last number of a text, as it is written.

    >>> last_number("He pays $1,250.50."), last_number("none")
    ('1,250.50', None)
    """
    found = _NUMBER.findall(_OF_UNITS.sub("", plain(text)))
    return found[-1] if found else None


def last_line(text: str) -> str | None:
    r"""The last line of a text that is not empty.

    >>> last_line("3+4=7\n7*2=14 \n\n")
    '7*2=14'
    """
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else None


def same(given: str | None, expected: str) -> bool:
    r"""Whether two answers are the same: equal numbers, exactly, or else equal texts but for spaces, case and marks.

    >>> same("1,000.0 dollars", "1000"), same(r"\frac{1}{2}", "0.5"), same("0.33", "1/3"), same("(B)", "b")
    (True, True, False, True)
    """
    return given is not None and canonical(given) == canonical(expected)


def canonical(answer: str) -> str:
    r"""One way to write an answer, so that those that are the same can be counted together.

    >>> [canonical(a) for a in ("$1,000.00", "x = -3/6", "50\\%", "20 km/h", r"2\pi", "Paris.")]
    ['1000', '-0.5', '50', '20', '2\\pi', 'paris']
    """
    number = as_number(answer)
    if number is not None:
        return _written(number)
    text = " ".join(plain(answer).casefold().split()).lstrip(f"{_MARKS}!").rstrip(_MARKS)
    if re.search(r"[^\W\d_]{2}\s*!+$", text):  # behind a word; behind a number or a letter it is a factorial
        text = text.rstrip("! ")
    text = re.sub(r"\s*([^\w\s])\s*", r"\1", text)
    alone = re.fullmatch(r"\((\w+)\)", text)
    return alone[1] if alone else text


def as_number(answer: str) -> Fraction | None:
    r"""The number that an answer is, words behind it and what stands before = left out; None where it is none.

    A number may have commas between thousands, a sign, decimals, a denominator, $ or %: `50%` is 50. It must be the
    only one.

    >>> as_number("x = 1 1/2"), as_number("3,000 apples"), as_number("2x"), as_number("3 and 4")
    (Fraction(3, 2), Fraction(3000, 1), None, None)
    """
    text = _OF_UNITS.sub("", plain(answer.rpartition("=")[2])).strip()
    found = _NUMBER.match(text)
    if found is None or len(found[0]) > MOST_DIGITS or not _BEHIND.fullmatch(text, found.end()):
        return None
    digits = found[0].replace(",", "").replace("−", "-").lstrip("+")
    over, _, under = digits.partition("/")
    *whole, over = over.split()
    if under and not int(under):
        return None
    part = Fraction(over) / (int(under) if under else 1)
    if not whole:
        return part
    return Fraction(whole[0]) + (-part if whole[0].startswith("-") else part)


def plain(text: str) -> str:
    r"""A text without what only says how it is set: dollars, per cent, bold, \text, \frac{a}{b} as a/b.

    >>> plain(r"$2\frac{1}{2}\text{ m}^2$ **and** 1{,}000")
    '2 1/2 m^2 and 1,000'
    """
    text = text.replace("{,}", ",").replace("\\,", "").replace("\\ ", " ").replace("\\;", " ")
    text = _WRAPPED.sub(r"\1", text)
    text = _FRACTION.sub(_one_line, re.sub(r"(?<=\d)(?=\\[dtc]?frac)", " ", text))
    return _DROPPED.sub("", text)


def _one_line(fraction: re.Match[str]) -> str:
    r"""`a/b`, with brackets where it would mean something else without: `(x+1)/2`, `1/(2x)`."""
    above, below = (part.strip() for part in fraction.groups())
    one = re.fullmatch(r"\([^()]*\)|[-+−]?(?:[\d.,]+|\\?[^\W\d_]+)", below)
    sum_of_some = re.search(r".[-+−±]", re.sub(r"\([^()]*\)", "x", above))
    return f"{f'({above})' if sum_of_some else above}/{below if one else f'({below})'}"


def _written(number: Fraction) -> str:
    """As a whole number or a decimal, where it has an end; else as a fraction."""
    places = next((k for k in range(MOST_DIGITS) if 10**k % number.denominator == 0), None)
    if not places:
        return str(number)
    digits = str(abs(int(number * 10**places))).zfill(places + 1)
    return f"{'-' if number < 0 else ''}{digits[:-places]}.{digits[-places:]}"


def _counted(extract: Callable[[str], str | None]) -> Callable[[str], str | None]:
    def ballot(text: str) -> str | None:
        found = extract(text)
        return None if found is None else canonical(found)

    return ballot


BALLOTS: dict[str, Callable[[str], str | None]] = {  # what votes compare: equal answers are equal strings
    "answer": _counted(final_answer),
    "boxed": _counted(boxed),
    "last-line": last_line,
    "last-number": _counted(last_number),
}
