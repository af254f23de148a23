"""Peers' searches on the same generator, with the same values, counted where the model is called.

Each runs again and again, as it comes, until a text passes the verifier or the budget is spent: what is asked is how
many sampled tokens that takes. Values are legality and, on Countdown, the learned head beside the generator's weights.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

import babblegraph as bg
from babblegraph.scoring.learned import LearnedValue

PACKAGES = ("its-hub", "treequest", "llm-reasoners")
PF, BEAM, ABMCTS, MCTS = (
    "its-hub particle filtering",
    "its-hub beam",
    "treequest AB-MCTS-A",
    "llm-reasoners MCTS",
)
NAMES = (PF, BEAM, ABMCTS, MCTS)
END = "<eos>"
PARTICLES, BEAM_BUDGET, BEAM_WIDTH, ACTIONS = 4, 4, 2, 2
IDLE = 500  # calls in a row without a new token: the search has nothing left to draw


class Solved(Exception):
    """A text has passed."""


class Spent(Exception):
    """The budget is used up, or the search draws nothing more."""


def solve(
    name: str,
    babbler: bg.Babbler,
    values: dict[str, Any],
    task: Any,
    prompts: list[str],
    most: int,
    first: int = 0,
) -> dict[str, Any] | None:
    """Sampled tokens and work until each puzzle was solved, None where it was not; None without the package.

    Args:
        values: `learned`, where the generator has it.
        first: the number of the first puzzle, which seeds it.
    """
    try:
        run = _runner(name)
    except ImportError:
        return None
    size = sum(p.numel() for p in babbler.model.parameters())
    needed: list[int | None] = []
    work: list[int | None] = []
    cut: list[int | None] = []
    for number, prompt in enumerate(prompts, first):
        random.seed(number)
        np.random.seed(number)  # noqa: NPY002 - the peers draw from it
        prompt = getattr(task, "prepare", str)(prompt)
        lines = Lines(babbler, values.get("learned"), task, prompt, most, number)
        try:
            while True:
                run(lines)
                lines.idle += 1
                if lines.idle > IDLE:
                    raise Spent
        except Solved:
            fits = lines.sampled <= most
            needed.append(lines.sampled if fits else None)
            work.append(lines.forwarded * size if fits else None)
        except Spent:
            needed.append(None)
            work.append(None)
        off = needed[-1] is None and lines.sampled >= most
        cut.append(lines.forwarded * size if off else None)
    return {"needed": needed, "work": work, "cut": cut}


class Lines:
    """Draws lines below texts, in one batch, and counts every token; texts that end are verified at once."""

    def __init__(
        self, babbler: bg.Babbler, head: LearnedValue | None, task: Any, prompt: str, most: int, seed: int
    ) -> None:
        self.babbler, self.head, self.task, self.prompt, self.most = babbler, head, task, prompt, most
        self.temperature = babbler.sampling["temperature"]
        self.draws = torch.Generator().manual_seed(seed)
        self.sampled = self.forwarded = self.idle = 0
        self.ends = babbler.span.end_ids
        self.values: dict[str, float] = {"": 1.0}

    def over(self, text: str) -> bool:
        """Whether nothing more can come of a text."""
        return (
            text.endswith(END) or self.task.value(self.prompt, text) == 0 or self.task.done(self.prompt, text)
        )

    @torch.inference_mode()
    def draw(self, texts: list[str]) -> list[str]:
        """One line below each text; `END` where it is the last."""
        if self.sampled >= self.most:
            raise Spent
        self.idle = 0
        tokenizer, model = self.babbler.tokenizer, self.babbler.model
        rows = [tokenizer(self.prompt + text)["input_ids"] for text in texts]
        longest = max(map(len, rows))
        ids = torch.tensor([[0] * (longest - len(r)) + r for r in rows])
        mask = torch.tensor([[0] * (longest - len(r)) + [1] * len(r) for r in rows])
        place, cache = mask.cumsum(1).sub(1).clamp(min=0), DynamicCache(config=model.config)
        self.forwarded += sum(map(len, rows))
        lines, going = [""] * len(rows), list(range(len(rows)))
        while going:
            logits = model(
                ids, attention_mask=mask, position_ids=place, past_key_values=cache, use_cache=True
            )
            token = torch.multinomial(
                (logits.logits[:, -1] / self.temperature).softmax(-1), 1, generator=self.draws
            )
            self.sampled += len(going)
            for row in list(going):
                one = int(token[row])
                lines[row] += END if one in self.ends else tokenizer.decode([one])
                text = texts[row] + lines[row]
                full = len(rows[row]) + len(lines[row]) >= self.babbler.context - 1
                if lines[row].endswith(("\n", END)) or full or self.task.done(self.prompt, text):
                    going.remove(row)
                    if not lines[row].endswith("\n") or self.task.done(self.prompt, text):
                        lines[row] = lines[row].removesuffix(END) + END
            self.forwarded += len(going)
            ids, place = token, place[:, -1:] + 1
            mask = torch.cat([mask, torch.ones_like(token)], 1)
        for text, line in zip(texts, lines, strict=True):
            if self.task.verify(self.prompt, (text + line).removesuffix(END)) >= 1:
                raise Solved
        return lines

    @torch.inference_mode()
    def value(self, text: str) -> float:
        """0 where a text is dead or has failed, else what the head says; 1 without one."""
        if self.over(text):
            return 0.0  # a right one would have ended the run
        if self.head is None:
            return 1.0
        if text not in self.values:
            self.values[text] = self._read(self.head, text)
        return self.values[text]

    def _read(self, head: LearnedValue, text: str) -> float:
        """The head on the states of a text's last line, as `scoring.collect.features_of` has them."""
        ids = torch.tensor(self.babbler.tokenizer(self.prompt + text)["input_ids"])
        self.forwarded += 1  # the text's own keys and values are there
        out = self.babbler.model(ids[None], output_hidden_states=True)
        states = torch.stack([out.hidden_states[layer][0] for layer in head.layers], 1)  # [L, layers, H]
        span = len(text) - text.rstrip("\n").rfind("\n") - 1  # a character is a token
        log_q = (out.logits[0] / self.temperature).log_softmax(-1)[:-1].gather(1, ids[1:, None])
        numbers = torch.tensor([text.count("\n"), log_q[-span:].sum()])
        parts = (states[-1], states[-span:].mean(0), states[len(self.prompt) - 1])
        features = torch.cat([*(part.flatten() for part in parts), numbers])
        return float(head.head(features[None]))


def _runner(name: str) -> Callable[[Lines], None]:
    return {PF: _its_hub, BEAM: _its_hub, ABMCTS: _treequest, MCTS: _reasoners}[name](name)


def _its_hub(name: str) -> Callable[[Lines], None]:
    from its_hub.api import AbstractLanguageModel, AbstractProcessRewardModel
    from its_hub.core.algorithms.beam_search import BeamSearch
    from its_hub.core.algorithms.particle_gibbs import ParticleFiltering
    from its_hub.core.lms.step_generation import StepGeneration

    class Model(AbstractLanguageModel):
        def __init__(self, lines: Lines) -> None:
            self.lines = lines

        async def agenerate(self, messages: Any, stop: str | None = None, **options: Any) -> Any:
            one = not isinstance(messages[0], list)
            chats = [messages] if one else messages
            texts = ["".join(m.content or "" for m in chat if m.role == "assistant") for chat in chats]
            open_texts = [t for t in texts if not self.lines.over(t)]
            drawn = iter(self.lines.draw(open_texts) if open_texts else [])
            found = [END if self.lines.over(t) else next(drawn).removesuffix("\n") for t in texts]
            replies = [{"role": "assistant", "content": line} for line in found]
            return replies[0] if one else replies

    class Reward(AbstractProcessRewardModel):
        def __init__(self, lines: Lines) -> None:
            self.lines = lines

        async def ascore(self, prompt_or_messages: Any, response_or_responses: Any, **options: Any) -> Any:
            return self.score(prompt_or_messages, response_or_responses)

        def score(self, prompt_or_messages: Any, response_or_responses: Any, **options: Any) -> Any:
            if isinstance(response_or_responses, list):
                return [self.lines.value(t) for t in response_or_responses]
            return self.lines.value(response_or_responses)

    def run(lines: Lines) -> None:
        steps = StepGeneration(max_steps=40, step_token="\n", stop_token=END, temperature=lines.temperature)
        if name == PF:
            ParticleFiltering(steps, Reward(lines)).infer(Model(lines), lines.prompt, PARTICLES)
        else:
            BeamSearch(steps, Reward(lines), beam_width=BEAM_WIDTH).infer(
                Model(lines), lines.prompt, BEAM_BUDGET
            )

    return run


def _treequest(name: str) -> Callable[[Lines], None]:
    from treequest import ABMCTSA

    def run(lines: Lines) -> None:
        algorithm = ABMCTSA()
        state = algorithm.init_tree()

        def generate(parent: str | None) -> tuple[str, float]:
            text = parent or ""
            if lines.over(text):
                text = ""  # it has no word for a finished state: a new start
            text += lines.draw([text])[0]
            return text, lines.value(text)

        while True:
            state = algorithm.step(state, {"line": generate}, inplace=True)

    return run


def _reasoners(name: str) -> Callable[[Lines], None]:
    from reasoners import Reasoner, SearchConfig, WorldModel
    from reasoners.algorithm import MCTS as Search

    class World(WorldModel):
        def __init__(self, lines: Lines) -> None:
            super().__init__()
            self.lines = lines

        def init_state(self) -> str:
            return ""

        def step(self, state: str, action: str) -> Any:
            return state + action, {}

        def is_terminal(self, state: str) -> bool:
            return self.lines.over(state)

    class Config(SearchConfig):
        def __init__(self, lines: Lines) -> None:
            super().__init__()
            self.lines = lines

        def get_actions(self, state: str) -> list[str]:
            return list(dict.fromkeys(self.lines.draw([state] * ACTIONS)))

        def fast_reward(self, state: str, action: str) -> Any:
            return self.lines.value(state + action), {}

        def reward(self, state: str, action: str, **options: Any) -> Any:
            return self.lines.value(state + action), {}

    def run(lines: Lines) -> None:
        search = Search(n_iters=20, depth_limit=40, disable_tqdm=True, cum_reward=np.mean)
        Reasoner(world_model=World(lines), search_config=Config(lines), search_algo=search)(lines.prompt)

    return run
