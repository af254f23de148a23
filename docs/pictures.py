"""Draws the README's picture anew: `python docs/pictures.py`. It is a real search, with a fixed seed."""

from pathlib import Path

import babblegraph as bg
from babblegraph.scoring import JudgeValue
from babblegraph.view.svg import to_svg

HERE = Path(__file__).parent


def main() -> None:
    babbler = bg.Babbler.embedded()
    result = bg.babble(babbler, "3 5 7 11>24", task=bg.Countdown(), value=JudgeValue(babbler), seed=1)
    result.graph.meta |= {"task": "countdown"}
    for name, width, height in (("search", 100, 32), ("search-narrow", 60, 24)):
        (HERE / f"{name}.svg").write_text(to_svg(result.graph, width=width, height=height), encoding="utf-8")


if __name__ == "__main__":
    main()
