r"""Problems with known answers: the last answer of a text is compared with the one that was expected."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from babblegraph.errors import BadInput
from babblegraph.extract import boxed, final_answer, same


class Answers:
    r"""Word problems, sums, quizzes: whatever has one right answer, which is a number or a few words.

    Two answers are the same if they are equal numbers, exactly (`1,000`, `1000.0` and `$1000` are; `0.33` and `1/3` are
    not), or else equal texts but for spaces and case. Nothing is evaluated or simplified: where `x + 1` and `1 + x` are
    both right, give a task of your own, a class with `verify(prompt, text)`.

    The prompt that a model reads may be longer than the question: instructions before or behind it, a chat template
    around it. The question that is meant is the one that ends last in the prompt, the longest of those that end there;
    how much white space is between words does not matter.

    No partial text is worth more than another, and no two are the same state: what looks like one would be a guess.

    Args:
        expected: question -> answer, or pairs of both. Of an answer with a solution before it (`… #### 42`) only the
            answer counts.
        extract: text -> its answer as it is written, None where there is none; see `babblegraph.extract`.
        stop: where a step ends; "\n\n" for paragraphs.
        ends: whether a text is over with the line on which `#### 42` or a closed `\boxed{42}` stands, so that a
            generator that would go on with a question of its own does not. Otherwise a text ends where the
            generator ends it. Leave it out for generators that think aloud and box what they try.

    Raises:
        BadInput: no question, an empty question or answer, an answer that is neither text nor number, or one question
            with two answers.

    >>> task = Answers({"What is 6 times 7?": "42", "Half of a half?": "1/4"})
    >>> task.verify("Q: What is 6 times 7?\nA:", "6*7 = 42, so the answer is 42.")
    1.0
    >>> task.verify("<|user|>Half of a half?<|assistant|>", r"It is \boxed{0.5}.")
    0.0
    >>> task.done("Half of a half?", "1/2/2 = 1/4\n#### 1/4\n")
    True
    """

    name = "answers"

    def __init__(
        self,
        expected: Mapping[str, str | float] | Iterable[tuple[str, str | float]],
        *,
        extract: Callable[[str], str | None] = final_answer,
        stop: str | Sequence[str] = "\n",
        ends: bool = True,
    ) -> None:
        self.extract, self.ends = extract, ends
        self.stop: tuple[str, ...] = (stop,) if isinstance(stop, str) else tuple(stop)
        pairs = list(expected.items() if isinstance(expected, Mapping) else expected)
        self.prompts: Sequence[str] = list(dict.fromkeys(question for question, _ in pairs))
        self.answers: dict[str, str] = {}  # question, its white space single -> answer
        self._known: dict[str, str | None] = {}  # prompt -> its question
        for question, answer in pairs:
            if answer is None or isinstance(answer, bool) or answer != answer:
                raise BadInput(
                    f"an answer must be a text or a number, got {answer!r} for {question!r:.60}: fill it in"
                )
            self._add(question, f"{Decimal(str(answer)):f}" if isinstance(answer, float) else str(answer))
        if not self.answers:
            raise BadInput("answers need a question, got none: give {question: answer}")

    def prepare(self, prompt: str) -> str:
        """The prompt itself, if it contains a question.

        Raises:
            BadInput: it does not.
        """
        self.expected(prompt)
        return prompt

    def verify(self, prompt: str, text: str) -> float:
        """1.0 where the text's answer is the one that was expected, else 0.0.

        Raises:
            BadInput: the prompt contains no question.
        """
        return float(same(self.extract(text), self.expected(prompt)))

    def done(self, prompt: str, text: str) -> bool:
        """Whether a whole line has given an answer, where texts end there."""
        return self.ends and any(map(_answers, text.split("\n")[:-1]))

    def expected(self, prompt: str) -> str:
        """The answer to the question that a prompt contains.

        Raises:
            BadInput: it contains none.
        """
        if prompt not in self._known:
            self._known[prompt] = self._question(_single_spaced(prompt))
        question = self._known[prompt]
        if question is None:
            raise BadInput(
                f"a prompt must contain one of the {len(self.answers)} questions, got {prompt!r:.80}: add its answer"
            )
        return self.answers[question]

    def _question(self, prompt: str) -> str | None:
        ends = [(at + len(q), len(q), q) for q in self.answers if (at := prompt.rfind(q)) >= 0]
        return max(ends)[2] if ends else None

    def _add(self, question: str, answer: str) -> None:
        key, given = _single_spaced(question), answer.strip()
        given = (final_answer(given) or given) if "####" in given or "\\boxed{" in given else given
        if not key or not given:
            what = "a question" if not key else "an answer"
            raise BadInput(f"{what} must not be empty, got {question!r:.60} with {answer!r:.20}: fill it in")
        if not same(self.answers.setdefault(key, given), given):
            both = f"{self.answers[key]!r:.20} and {given!r:.20}"
            raise BadInput(f"a question has one answer, got {both} for {question!r:.60}: keep one of them")


def _answers(line: str) -> bool:
    """Whether a line has a ####, with something behind it, or a closed box."""
    return bool(line.partition("####")[2].strip()) or boxed(line) is not None


def _single_spaced(text: Any) -> str:
    return " ".join(str(text).split())
