"""The task `Answers` and what it is for: whose answer counts, who passes, votes, marks and blindness."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import babblegraph as bg
from babblegraph.born import Born
from babblegraph.errors import BadInput
from babblegraph.extract import BALLOTS, last_line
from babblegraph.graph import BabbleGraph
from babblegraph.outcome import chosen, elect, mark, settled
from babblegraph.scoring import Score
from babblegraph.status import Status
from babblegraph.tasks import Answers, Blind

BYTES = {i: bytes([i]) for i in range(256)}
TEXTS = ["so 41", "it is 42", "thus 42.0", "41 is it", "42"]
SCORES = [0.9, 0.2, 0.3, 0.8, 0.1]


def forest(texts=TEXTS, scores=SCORES, prompts=("6 * 7?",)):
    graph = BabbleGraph(list(prompts), [list(p.encode()) for p in prompts], BYTES)
    spans = [list(t.encode()) for t in texts]
    log_p = [-1.0 - i for i in range(len(texts))]
    ids = graph.add(Born.of_spans([0] * len(texts), spans, log_p, Status.LEAF_END))
    graph.score[ids] = scores
    return graph


@pytest.mark.parametrize(
    "prompt",
    [
        "What is 6 times 7?",
        "Answer briefly.\n\nWhat is  6\ntimes 7?\nA:",
        "<|im_start|>system\nWhat is half of 2? is no question of yours.<|im_end|>\n"
        "<|im_start|>user\nWhat is 6 times 7?<|im_end|>\n<|im_start|>assistant\n",
        "Q: What is half of 2?\nA: 1\n\nQ: What is 6 times 7?\nA:",
    ],
)
def test_the_question_is_the_last_one_in_the_prompt_however_it_is_set(prompt):
    task = Answers({"What is half of 2?": "1", "What is 6 times 7?": "42", "6 times 7?": "0"})
    assert task.verify(prompt, "#### 42") == 1.0
    assert task.verify(prompt, "#### 1") == 0.0
    assert task.expected(prompt) == "42"


def test_a_prompt_without_a_question_is_refused_before_anything_is_drawn():
    task = Answers({"a?": "1"})
    for call in (task.prepare, task.expected, lambda prompt: task.verify(prompt, "1")):
        with pytest.raises(BadInput, match="must contain one of the 1 questions, got 'b"):
            call("b?")
    assert task.prepare("Q: a?") == "Q: a?"


@pytest.mark.parametrize(
    ("expected", "rule"),
    [
        ({}, "need a question"),
        ({" ": "1"}, "a question must not be empty"),
        ({"a?": " "}, "an answer must not be empty"),
        ({"a?": None}, "an answer must be a text or a number, got None"),
        ({"a?": float("nan")}, "an answer must be a text or a number, got nan"),
        ({"a b?": "1", "a  b?": "2"}, "has one answer, got '1' and '2'"),
        ([("a?", "1"), ("a?", "one")], "has one answer"),
    ],
)
def test_answers_that_cannot_be_told_apart_are_refused(expected, rule):
    with pytest.raises(BadInput, match=rule) as caught:
        Answers(expected)
    assert "\n" not in str(caught.value)


def test_one_question_may_be_there_twice_and_of_a_solution_only_the_answer_counts():
    task = Answers([("a?", "half of 4 is 2\n#### 2"), ("a?", 2), ("a  ?", "\\boxed{2.0}"), ("b?", 0.25)])
    assert task.prompts == ["a?", "a  ?", "b?"]
    assert task.verify("a?", "2") == 1.0
    assert task.verify("b?", "1/4") == 1.0
    assert Answers({"a?": 1e-7}).verify("a?", "0.0000001") == 1.0


@pytest.mark.parametrize(
    ("text", "is_over"),
    [
        ("6*7=42\n#### 42\n", True),
        ("so \\boxed{42}.\nAnd", True),
        ("#### 42", False),  # more digits may follow
        ("\\boxed{42}", False),
        ("####\n", False),
        ("\\boxed{4\n", False),
        ("\\boxed{\\frac{1}{2}\n", False),  # a brace of its own is closed, the box is not
        ("#### " * 3000, False),
        ("the answer is 42\n", False),  # it may be taken back
    ],
)
def test_a_text_is_over_with_the_line_that_gives_its_answer(text, is_over):
    assert Answers({"a?": "1"}).done("a?", text) is is_over
    assert Answers({"a?": "1"}, ends=False).done("a?", text) is False


def test_answers_may_be_found_in_a_way_of_ones_own():
    task = Answers({"a?": "x = 1"}, extract=last_line, stop=("\n\n", ";"))
    assert task.verify("a?", "y\nx=1\n") == 1.0
    assert task.stop == ("\n\n", ";")


def test_a_search_with_answers_stops_at_the_first_that_passes():
    babbler = bg.Babbler.embedded()
    task = Answers({"2 3 4>24": "24"}, extract=lambda text: text.rstrip("ny\n").rpartition(":")[2])
    found = bg.babble(babbler, "2 3 4>24\n", task=task, budget=3000)
    assert found.passed == [True]
    assert found.text.rstrip("ny\n").endswith(":24")
    assert found.spent.sampled < 3000


# ------------------------------------------------------------------------------------------- votes and marks


def test_the_vote_and_the_score_choose_differently():
    graph = forest()
    assert graph.text(chosen(graph, 0)) == "so 41"
    elect(graph, BALLOTS["answer"])
    assert graph.text(chosen(graph, 0)) == "thus 42.0"  # of the winner's texts the best
    assert (graph.meta["vote"]["answer"], graph.meta["vote"]["share"]) == (["42"], [0.6])
    elect(graph, BALLOTS["answer"], weighted=True)  # 1.7 against 0.6
    assert graph.text(chosen(graph, 0)) == "so 41"
    assert graph.meta["vote"]["share"][0] == pytest.approx(1.7 / 2.3, abs=1e-6)


def test_without_a_vote_the_best_leaf_answers_as_graph_best_says():
    graph = forest(scores=[0.5, float("nan"), 0.7, 0.7, 0.1], prompts=("6 * 7?", "else?"))
    assert [chosen(graph, 0)] == graph.best(1, tree=0)
    assert chosen(graph, 1) is None
    elect(graph, lambda text: None)  # all abstain
    assert [chosen(graph, 0)] == graph.best(1, tree=0)


def test_marks_are_of_the_chosen_text_and_no_answer_is_not_right():
    graph = forest(prompts=("6 * 7?", "1 + 1?", "later?"))
    graph.add(Born.of_spans([1], [[50]], [-1.0]))  # begun, not finished
    task = Answers({"6 * 7?": "42", "1 + 1?": "2", "later?": "3"})
    assert mark(graph, task).hits == 0
    assert mark(BabbleGraph(["later?"], [[0]], BYTES), task) is None
    elect(graph, BALLOTS["answer"])
    found = mark(graph, task)
    assert graph.meta["right"] == [True, False, None]
    assert (found.hits, found.of, found.share) == (1, 2, 0.5)
    assert (found.low, found.high) == pytest.approx((0.0945, 0.9055), abs=1e-4)  # Wilson's, by hand
    assert settled(graph) == ("right", found)


def test_what_counts_as_well_is_marks_before_thresholds_before_nothing():
    graph = forest()
    assert settled(graph) == ("passed", None)
    graph.meta["threshold"] = 0.95
    assert settled(graph)[1].hits == 0
    graph.meta["threshold"] = 0.5
    assert settled(graph)[1].hits == 1
    mark(graph, Answers({"6 * 7?": "42"}))
    assert settled(graph)[0] == "right"


def test_who_cannot_mark_is_told_so():
    graph = forest()

    class Raises:
        def verify(self, prompt, text):
            raise KeyError("x")

    with pytest.raises(BadInput, match="verifier"):
        mark(graph, Blind(Raises()))
    with pytest.raises(BadInput, match="KeyError"):
        mark(graph, Raises())


@pytest.mark.slow
def test_a_blind_task_lets_the_value_score_its_leaves_and_keeps_the_rest():
    task = bg.Countdown()
    blind = Blind(task)
    babbler = bg.Babbler.embedded()
    found = bg.babble(
        babbler, "2 3 4>24", task=blind, value=lambda texts: [0.5] * len(texts), budget=600, seed=2
    )
    graph = found.graph
    leaves = graph.is_leaf() & (graph.status != Status.LEAF_DEAD)
    assert set(graph.score[leaves].tolist()) == {0.5}
    assert (graph.status == Status.LEAF_DEAD).any()  # the rules still hold
    assert (graph.status == Status.LEAF_STOP).any()  # and the end is still seen
    assert found.threshold is None
    assert copy.deepcopy(blind).name == "countdown"


def test_without_a_value_a_blind_search_goes_by_likelihood():
    found = bg.babble(bg.Babbler.embedded(), "2 3 4>24", task=Blind(bg.Countdown()), budget=200)
    assert 0 < found.best(1)[0].score < 1


def test_a_score_without_a_verifier_scores_like_one_without_a_task():
    graph, other = forest(), forest()
    value = lambda graph, ids, meter: [0.25] * len(ids)  # noqa: E731
    for one, task in ((graph, None), (other, Blind(Answers({"6 * 7?": "42"})))):
        Score(task, value)(one, one.frontier().astype("int32"), None)
        Score(task, value)(one, np.arange(1, 6, dtype="int32"), None)
    assert graph.score.tolist()[1:] == other.score.tolist()[1:] == [0.25] * 5
