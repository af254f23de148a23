"""`bg.generate`: tree search from inside transformers' own `model.generate`."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import AutoTokenizer, MaxTimeCriteria
from transformers.utils import ModelOutput

from babblegraph.api import babble, budget_of
from babblegraph.budget import Budget
from babblegraph.errors import BadInput
from babblegraph.given import need_seed
from babblegraph.graph import NO_PARENT, BabbleGraph
from babblegraph.lm.babbler import Babbler
from babblegraph.lm.constraint import Batch
from babblegraph.scoring import likelihood
from babblegraph.status import Status

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

    from babblegraph.lm.way import Way
    from babblegraph.protocols import Strategy, Task

TEXTS = 8  # whole texts that the default budget pays for each sequence that is returned
HARMLESS = {
    "attention_mask",
    "position_ids",
    "cache_position",
    "logits_to_keep",
    "use_cache",
    "past_key_values",
}
# to draw, that are no processors
OTHER_WAYS = ("penalty_alpha", "dola_layers", "constraints", "force_words_ids")
NOT_KEPT = ("output_scores", "output_logits", "output_attentions", "output_hidden_states")
# what the next call need not find out again, copies of weights included; neither side holds the model
_ways: weakref.WeakKeyDictionary[PreTrainedModel, Way] = weakref.WeakKeyDictionary()


@dataclass
class GenerateOutput(ModelOutput):
    """What `generate` returns with `return_dict_in_generate=True`.

    Args:
        sequences: prompts with what follows, [prompts × num_return_sequences, L].
        sequences_scores: the leaf's score of each; NaN for one that the budget did not let end.
        graph: the whole babble graph; tree i is prompt i.
    """

    sequences: torch.Tensor | None = None
    sequences_scores: torch.Tensor | None = None
    graph: BabbleGraph | None = None


def generate(
    model: PreTrainedModel,
    input_ids: torch.Tensor,
    logits_processor: Sequence[Any],
    stopping_criteria: Sequence[Any],
    generation_config: GenerationConfig,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    value: Callable[..., Any] | None = None,
    task: Task | None = None,
    budget: Budget | int | None = None,
    strategy: Strategy | None = None,
    threshold: float | None = None,
    seed: int = 0,
    span: int | None = None,
    stop: str | Sequence[str] = (),
    **model_kwargs: Any,
) -> torch.Tensor | GenerateOutput:
    """Searches where transformers would sample: `model.generate(**inputs, custom_generate=bg.generate, …)`.

    Returns the best texts of each prompt, best first and all different, in the shape in which `generate` returns
    its samples. The generation config means what it means there: lengths, ids that end a text, `max_time`,
    `num_return_sequences`; every logits processor and stopping criterion is honoured, and must be a function of its
    arguments alone. A search always draws: `do_sample` only says whether temperature, top-k, top-p and the like
    take part (and transformers wants it for more than one sequence), and the seed decides, not torch's generator.
    `num_beams` must be 1, and contrastive search, DoLa and forced words are refused.

    transformers keeps `tokenizer`, `stop_strings`, `streamer` and `assistant_model` from custom functions. Where
    texts are needed, the tokenizer is loaded from the model's folder or cache, never from the network; or give it by
    `custom_generate=functools.partial(bg.generate, tokenizer=tokenizer)`. For stop strings, give transformers'
    `StopStringCriteria`. A streamer would see the prompts only, and never the end: give `TextIteratorStreamer` a
    timeout, or none at all.

    The first call of a model finds out how it is best run; later ones know, also after it has learned. What that keeps
    (copies of weights on a CPU, up to 1 GB) goes when the model does.

    Args:
        model, input_ids, logits_processor, stopping_criteria, generation_config, model_kwargs: by transformers;
            prompts [prompts × num_return_sequences, P], padded on the left where there is an attention mask.
        tokenizer: of the model; needed for `value(texts)`, `task` and `stop`.
        value: `f(texts) -> numbers in [0, 1]`, or a value of `babblegraph.scoring`; the likelihood by default.
        task: has a verifier; see `protocols.Task`. Its `stop` strings end nodes.
        budget: a `Budget`, or sampled tokens for each prompt; by default eight texts of full length for each
            sequence that is returned.
        strategy, threshold, seed: as in `babble`.
        span, stop: tokens of a node at most, and strings that end one; as in `Babbler`.

    Returns:
        Token ids, [prompts × num_return_sequences, L], filled up with `pad_token_id`; or a `GenerateOutput`. Where a
        prompt has too few finished texts, unfinished ones follow, and then all of them again.

    Raises:
        BadInput: what a search cannot do, or texts are needed and there is no tokenizer.

    >>> import babblegraph as bg
    >>> babbler = bg.Babbler.embedded()
    >>> model, tokenizer = babbler.model, babbler.tokenizer  # or from_pretrained as ever
    >>> prompt = tokenizer("3 5 7 11>24\\n", return_tensors="pt")
    >>> asked = {"task": bg.Countdown(), "budget": 4000, "max_new_tokens": 64}
    >>> found = model.generate(**prompt, custom_generate=bg.generate, **asked)
    >>> tokenizer.decode(found[0], skip_special_tokens=True).splitlines()[-1][-3:]
    ':24'
    """
    _refuse(model, input_ids, generation_config, model_kwargs)
    need_seed(seed)
    copies = int(generation_config.num_return_sequences or 1)
    mask = _mask(input_ids, model_kwargs.get("attention_mask"))
    _refuse_positions(model_kwargs.get("position_ids"), mask)
    prompts, mask = input_ids[::copies], mask[::copies]
    new = int(generation_config.max_length) - prompts.shape[1]
    stop = stop or getattr(task, "stop", ())
    if tokenizer is None and (task is not None or stop or value not in (None, likelihood)):
        tokenizer = _own_tokenizer(model)
    with _training_mode_kept(model):
        babbler = Babbler(
            model,
            tokenizer,
            span=span,
            stop=stop,
            end_ids=_ids(generation_config.eos_token_id),
            logits_processor=logits_processor,
            stopping_criteria=stopping_criteria,
            max_new_tokens=new,
            way=_ways.get(model),
        )
        _ways[model] = babbler.way
        babbler.batch = Batch(prompts.cpu().numpy(), copies)
        graph = babbler.start([p[m] for p, m in zip(prompts, mask, strict=True)], seed)
        bounds = _within_time(
            Budget(tokens=TEXTS * copies * new) if budget is None else budget, stopping_criteria
        )
        options: dict[str, Any] = {"task": task, "value": value, "budget": bounds, "strategy": strategy}
        babble(babbler, None, threshold=threshold, graph=graph, **options)
    leaves = [node for tree in range(graph.trees) for node in _best(graph, tree, copies)]
    sequences = _padded(graph, leaves, prompts, generation_config._pad_token_tensor).to(input_ids.device)
    if not generation_config.return_dict_in_generate:
        return sequences
    scores = np.where(graph.is_leaf(leaves), graph.score[leaves], np.nan).astype(np.float32)
    return GenerateOutput(sequences, torch.as_tensor(scores, device=input_ids.device), graph)


def _refuse(
    model: PreTrainedModel, input_ids: torch.Tensor, config: GenerationConfig, more: dict[str, Any]
) -> None:
    """One line for everything that a search cannot do and would otherwise pass over."""
    if model.config.is_encoder_decoder:
        raise BadInput(
            f"the model must be a decoder alone, got {model.config.model_type!r}: take a causal one"
        )
    if (config.num_beams or 1) > 1:
        raise BadInput(f"num_beams must be 1, got {config.num_beams}: the strategy decides what is kept")
    for name in OTHER_WAYS:
        if (given := getattr(config, name, None)) not in (None, 0):
            raise BadInput(
                f"{name} is another way to generate than a search, got {given!r:.40}: leave it out"
            )
    if config.return_dict_in_generate:
        for name in NOT_KEPT:
            if getattr(config, name, None):
                raise BadInput(f"{name} must be off, got True: the graph has log-probabilities of all tokens")
    cache = more.get("past_key_values")
    if cache is not None and getattr(cache, "get_seq_length", lambda: 0)():
        raise BadInput(f"past_key_values must be empty, got {cache.get_seq_length()} tokens: leave them out")
    for name, given in more.items():
        if name not in HARMLESS and given is not None and given is not False:
            raise BadInput(f"a search takes token ids alone, got {name}: leave it out")
    if not input_ids.shape[1]:
        raise BadInput("a prompt must have at least one token, got none: give input_ids")


def _mask(input_ids: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Which tokens of the prompts count, of the shape of `input_ids`; transformers drops a mask of ones."""
    counts = torch.ones_like(input_ids, dtype=torch.bool) if mask is None else mask.bool()
    if (empty := (~counts.any(-1)).nonzero()).numel():
        raise BadInput(
            f"a prompt must have at least one token, got none in row {int(empty[0])}: mend its attention_mask"
        )
    return counts


def _refuse_positions(given: torch.Tensor | None, mask: torch.Tensor) -> None:
    """Positions of one's own, which a search does not take: it counts the tokens of each prompt from 0."""
    if given is None:
        return
    ours = mask.long().cumsum(-1) - 1
    if bool(((given == ours) | ~mask).all()):
        return
    raise BadInput(
        f"position_ids must count the tokens of a prompt from 0, got {given.reshape(-1, mask.shape[1])[0].tolist()}: "
        "leave them out"
    )


def _own_tokenizer(model: PreTrainedModel) -> PreTrainedTokenizerBase:
    """The tokenizer in the model's own folder, or in the cache."""
    name = model.name_or_path
    try:
        if not name:
            raise OSError("the model has no name")
        return AutoTokenizer.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as problem:
        raise BadInput(
            f"values, tasks and stop strings need the tokenizer, got none with {name!r}: give "
            "custom_generate=functools.partial(bg.generate, tokenizer=tokenizer)"
        ) from problem


@contextmanager
def _training_mode_kept(model: PreTrainedModel) -> Iterator[None]:
    training = model.training
    try:
        yield
    finally:
        model.train(training)


def _ids(ids: int | Iterable[int] | None) -> list[int]:
    if isinstance(ids, torch.Tensor):
        ids = ids.reshape(-1).tolist()
    return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)


def _within_time(budget: Budget | int, criteria: Sequence[Any]) -> Budget:
    """The budget, ended too by the time that `max_time` allows."""
    budget = budget_of(budget)
    ends = [c.initial_timestamp + c.max_time for c in criteria if isinstance(c, MaxTimeCriteria)]
    if not ends:
        return budget
    left = max(min(ends) - time.time(), 1e-3)
    return replace(budget, seconds=min(left, budget.seconds or left))


def _best(graph: BabbleGraph, tree: int, k: int) -> list[int]:
    """k nodes of a tree whose texts differ: finished ones by score, others that nothing follows, then all again."""
    ends = np.flatnonzero((graph.root == tree) & (graph.first_child == NO_PARENT) & (graph.depth > 0))
    dead = graph.status[ends] == Status.LEAF_DEAD
    worth = np.nan_to_num(graph.value[ends], nan=-1.0)
    others = ends[np.lexsort((-graph.log_p_g[ends], -worth, dead))].tolist()
    seen: dict[bytes, int] = {}
    for node in [*graph.best(graph.size, tree), *others]:
        seen.setdefault(graph.path_tokens(node).tobytes(), node)
        if len(seen) == k:
            break
    if not seen:
        raise BadInput(
            f"the budget must allow at least one token, nothing was drawn for prompt {tree}: raise it"
        )
    found = list(seen.values())
    return [found[i % len(found)] for i in range(k)]


def _padded(graph: BabbleGraph, nodes: Sequence[int], prompts: torch.Tensor, pad: Any) -> torch.Tensor:
    """Prompts as they were given, and what each node generated, [len(nodes), L]."""
    new = [graph.path_tokens(node)[graph.length[graph.root[node]] :] for node in nodes]
    longest = max(map(len, new))
    fill = _ids(pad)
    if not fill and any(len(n) < longest for n in new):
        raise BadInput(
            "texts of several lengths need a pad_token_id, got None: set it in the generation config"
        )
    filled = torch.full((len(nodes), longest), fill[0] if fill else 0, dtype=prompts.dtype)
    for row, tokens in zip(filled, new, strict=True):
        row[: len(tokens)] = torch.as_tensor(tokens)
    roots = torch.as_tensor(graph.root[list(nodes)].astype(np.int64))
    return torch.cat([prompts.cpu()[roots], filled], 1)
