"""Babbler: any transformers causal language model as a generator of babble graphs."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from transformers import AutoModelForCausalLM

from babblegraph.errors import BadInput, NoRoom
from babblegraph.given import is_whole
from babblegraph.graph import BabbleGraph
from babblegraph.lm.ahead import Pauses
from babblegraph.lm.attention import around_attention
from babblegraph.lm.base import Base, context_of, moved
from babblegraph.lm.constraint import Batch, Constraint, Criterion, Processor, describe
from babblegraph.lm.engines import Engines
from babblegraph.lm.expand import Rules, expand
from babblegraph.lm.fly import fly, may_fly
from babblegraph.lm.hidden import SpanStates, computed, unhooked
from babblegraph.lm.packed import PACK_BYTES
from babblegraph.lm.parts import Nodes, Parts
from babblegraph.lm.pretrained import load
from babblegraph.lm.prompts import encoded, end_ids_of, one_or_more
from babblegraph.lm.spans import SpanRule
from babblegraph.lm.tokens import TokenBytes, TokenNumbers
from babblegraph.lm.turn import turn_of
from babblegraph.lm.warp import warper
from babblegraph.lm.way import Way
from babblegraph.protocols import Draws

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from babblegraph.born import Born
    from babblegraph.budget import Meter
    from babblegraph.lm.engine import Engine
    from babblegraph.lm.mixture import Pair
    from babblegraph.lm.parts import Earlier
    from babblegraph.protocols import Chosen
    from babblegraph.randomness import Rng

DEFAULT_SPAN = 16
LAND = "no memory for all draws of a round side by side: going on with those that agree as one"
Ints = NDArray[np.integer[Any]]
EMBEDDED = Path(__file__).parent.parent / "embedded" / "model"
SHIPPED = {  # generators that come with the package, by the task that they know
    "countdown": EMBEDDED,
    "chain": EMBEDDED.parent / "chain",
    "queens": EMBEDDED.parent / "queens",
}


class Babbler:
    """A model, its tokenizer, and the keys and values of the graphs that grow from it.

    Args:
        model: a causal language model; the fastest engine that it can take is found out here, see `engine`.
        tokenizer: its tokenizer; without one prompts are token ids, and texts show the numbers of tokens.
        temperature, top_k, top_p: what is sampled from; see `lm.warp`.
        span: tokens of a node at most; by default 16, or no bound where there are `stop` strings.
        stop: strings that end a node (one step of reasoning, one line).
        until: strings that end the text.
        end_ids: token ids that end the text; those of the model and its tokenizer by default.
        logits_processor, stopping_criteria: transformers' own, or functions that are called like them; a text is
            sampled as they say, and ends where they say. See `lm.constraint`.
        max_new_tokens: of a whole text; up to the model's context by default, at most 1,024.
        cache_bytes: memory of a graph's pools below which keys and values that were given up stay findable, so
            that no token has to be computed twice; 0 for the smallest pools, as an estimate has them, which asks
            for nothing twice. The dense engine, whose texts share nothing, may take 16 times as much, and gives up
            what exceeds that.
        memory_limit: bytes that a graph's keys, values and remembered logits may take in all; None for no bound but a
            GPU's free memory. When they are used up, the paths that were used longest ago are given up, and computed
            again (counted as prefilled) if they are needed; what a round needs together is then done in parts.
        pack_bytes: memory for copies of a model's weights in the layout that few rows are multiplied fastest in, so
            that steps on a CPU take two thirds of the time; by default up to 1 GB, 0 for no copies. On a GPU small
            layers have copies, of up to a sixteenth of its memory. See `lm.packed`.
        trace: whether decoding steps on a CPU run as one TorchScript program, where the model can be written down as
            one: a step of a small model takes two thirds of the time. False for a model whose modules are changed
            between searches (but for weights, adapters and hooks, which are looked at). See `lm.traced`.
        base: f, a frozen model of the same tokenizer that estimates are about, where the model (g) has moved away
            from it; the model itself if its adapters are what has moved it. Both run: log_p_f is the base's.
        mixture: ε, above 0 and below 1: texts are sampled from ε f + (1−ε) g, so that no weight f/q exceeds 1/ε.
            It takes a base, temperature 1 and no truncation; see `lm.mixture`.
        engine: "cascade", "dense" or "recompute"; by default the first of them that passes the check.
        compile: whether the model of decoding steps on a GPU goes through `torch.compile` first: half a minute at the
            first search, and up to a seventh less time a step from then on.
        name: what to call the model in files and reports.
        way: of another babbler of this model: its check and its copies of weights serve this one too, unless the model
            has changed in kind since, or these options ask for another one. See `lm.way`.

    Attributes:
        engine: how the model runs, "cascade" (one trie of keys and values), "dense" (a cache for every text) or
            "recompute" (no cache).
        error: of that engine against plain forward passes, in the check at load.
        way: that engine and the copies of the model's weights, for other babblers of this model.

    Raises:
        BadInput: no engine passes the check against plain forward passes, or a bad option (a base of another
            vocabulary or without adapters, a mixture without a base).

    >>> babbler = Babbler.embedded(stop="\\n")
    >>> graph = babbler.start(["3 5 7 11>24\\n"])
    >>> graph.size, graph.length.tolist()
    (1, [12])
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        span: int | None = None,
        stop: str | Sequence[str] = (),
        until: str | Sequence[str] = (),
        end_ids: Collection[int] | None = None,
        logits_processor: Sequence[Processor] = (),
        stopping_criteria: Sequence[Criterion] = (),
        max_new_tokens: int | None = None,
        cache_bytes: int = 1 << 26,
        memory_limit: int | None = None,
        pack_bytes: int = PACK_BYTES,
        trace: bool = True,
        base: PreTrainedModel | None = None,
        mixture: float | None = None,
        engine: str | None = None,
        compile: bool = False,
        name: str | None = None,
        way: Way | None = None,
    ) -> None:
        self._given: dict[str, Any] = {
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "span": span,
            "stop": stop,
            "until": until,
            "end_ids": end_ids,
            "logits_processor": logits_processor,
            "stopping_criteria": stopping_criteria,
            "max_new_tokens": max_new_tokens,
            "cache_bytes": cache_bytes,
            "memory_limit": memory_limit,
            "pack_bytes": pack_bytes,
            "trace": trace,
            "compile": compile,
        }
        if compile and model.device.type != "cuda":
            raise BadInput(f"compile needs a model on a GPU, got one on {model.device.type}: leave it out")
        self.model = model.eval()
        compiled = around_attention(model) if compile else None
        self.tokenizer: Any = tokenizer
        self.name = name or model.name_or_path or model.config.model_type
        self.context = context_of(model)
        if max_new_tokens is not None and not (is_whole(max_new_tokens) and max_new_tokens >= 1):
            raise BadInput(
                f"max_new_tokens must be a whole number of at least 1, got {max_new_tokens!r:.80}: leave it out"
            )
        self.max_new_tokens = max_new_tokens
        self._sampling: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        self.warp = warper(temperature, top_k, top_p)
        self.logits_processor, self.stopping_criteria = list(logits_processor), list(stopping_criteria)
        self.batch: Batch | None = None
        if self.logits_processor:
            self._sampling |= describe(self.logits_processor)
        span = DEFAULT_SPAN if span is None and not stop else span
        ends = end_ids_of(model, tokenizer) if end_ids is None else frozenset(end_ids)
        self.span = SpanRule(span, _tuple(stop), _tuple(until), ends)
        self.vocabulary: dict[int, bytes] = TokenNumbers() if tokenizer is None else TokenBytes(tokenizer)
        how = engine, pack_bytes, trace
        self.way = way if way is not None and way.fits(model, *how) else Way(model, *how)
        choice = self.way.choice
        self.engine, self.error = choice.rung.name, choice.error
        self.context = min(self.context, choice.reach or self.context)
        self.mixture = mixture
        beside = None
        if base is not None:
            beside = Base(base, model, memory_limit, cache_bytes, engine, pack_bytes, trace)
            self.context = min(self.context, beside.context)
        self._engines = Engines(model, choice, memory_limit, cache_bytes, self.way.packed, beside, compiled)
        self._sampling |= moved(beside, mixture, self.warp is not None or bool(self.logits_processor))
        self._parts, self._nodes = Parts(), Nodes()
        self._pauses = Pauses(self.span, self.vocabulary)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        trust_remote_code: bool = False,
        **options: Any,
    ) -> Babbler:
        """Loads any Hugging Face causal language model; weights from safetensors only.

        Args:
            name_or_path: a folder, or a name on the hub.
            device: "cpu", "cuda", …; a GPU if there is one by default.
            dtype: float32 on CPU, bfloat16 on a GPU by default.
            trust_remote_code: whether code from the model's repository may run here; never by default.
            options: of `Babbler`.

        Raises:
            BadInput: there is no such model, or it cannot be loaded this way.
        """
        if str(name_or_path).startswith(("/", ".", "~")) and not Path(name_or_path).expanduser().is_dir():
            raise BadInput(
                f"a model must be a folder or a hub name, got {str(name_or_path)!r}: no such folder"
            )
        how: dict[str, Any] = {"device": device, "dtype": dtype, "trust_remote_code": trust_remote_code}
        rule = "a model must be a folder or hub name"
        model, tokenizer = load(AutoModelForCausalLM, rule, name_or_path, **how)
        return cls(model, tokenizer, name=str(name_or_path), **options)

    @classmethod
    def embedded(cls, *, task: str = "countdown", **options: Any) -> Babbler:
        """A small generator that ships with the package: it babbles solutions of its task, one step a line.

        Args:
            task: "countdown" (which is that of `Game24` too), "chain" or "queens".
            options: of `Babbler`.

        Raises:
            BadInput: no generator is shipped for this task.
        """
        if task not in SHIPPED:
            raise BadInput(
                f"an embedded generator knows {', '.join(SHIPPED)}, got {task!r}: choose one of them"
            )
        babbler = cls.from_pretrained(SHIPPED[task], **{"device": "cpu", "stop": "\n", **options})
        babbler.name = "embedded"
        return babbler

    def again(self, model: PreTrainedModel | None = None, **changed: Any) -> Babbler:
        """The same with another model of the same tokenizer, or with other options.

        The engine of another model, or of one that has changed in kind, is checked anew, and limits of memory count
        from here. A model whose weights have changed needs no new babbler: what was computed from them before is
        dropped, and graphs that they began are refused.

        Args:
            model: this one's by default.
            changed: options of `Babbler`.

        >>> greedy = Babbler.embedded().again(top_k=1)
        >>> greedy.sampling["top_k"], greedy.span.stop
        (1, ('\\n',))
        """
        options = self._options | {"way": self.way} | changed
        return type(self)(self.model if model is None else model, self.tokenizer, **options)

    @property
    def _options(self) -> dict[str, Any]:
        """What it was made with, besides its model and tokenizer."""
        base = None if self._engines.base is None else self._engines.base.model
        own = {"engine": self.engine, "name": self.name, "base": base, "mixture": self.mixture}
        return self._given | own

    def __reduce__(self) -> tuple[Any, ...]:
        """How it is pickled and copied: made anew, so that the engine is checked where it is to run.

        Keys and values stay behind; a graph that goes on with the copy has them computed again.
        """
        engines = self._engines
        with turn_of(*engines.models):
            for model in engines.models:
                unhooked(model)
        return partial(type(self), self.model, self.tokenizer, **self._options), (), self._state

    def __setstate__(self, state: tuple[Batch | None, tuple[int, ...]]) -> None:
        self.batch, layers = state
        self.record(layers)

    @property
    def _state(self) -> tuple[Batch | None, tuple[int, ...]]:
        """What has been told to it since it was made."""
        return self.batch, self._engines.recorded

    @property
    def fingerprint(self) -> str:
        """Of the model's weights, as they were at the last round or start."""
        return self._engines.fingerprint

    @property
    def sampling(self) -> dict[str, Any]:
        """What graphs remember of how their texts were drawn."""
        base = self._engines.base_fingerprint
        return self._sampling | ({} if base is None else {"base": base})

    def start(self, prompts: Sequence[Any], seed: int = 0) -> BabbleGraph:
        """A graph with one root a prompt; nothing is computed yet.

        Args:
            prompts: texts, chats as lists of messages (`{"role": …, "content": …}`), or token ids (tensors, arrays
                or lists of numbers).
            seed: of everything random.

        Raises:
            BadInput: no prompt, an empty one, or one that leaves no room in the model's context.
        """
        with turn_of(*self._engines.models):
            self._engines.look()
        texts, tokens, known = [], [], int(self.model.get_input_embeddings().num_embeddings)
        for prompt in one_or_more(prompts):
            text, ids = encoded(prompt, self.tokenizer, self.vocabulary)
            if len(ids) >= self.context:
                raise BadInput(
                    f"a prompt must leave room in the model's context of {self.context} tokens, got one of "
                    f"{len(ids)}: shorten it"
                )
            if max(ids) >= known:
                raise BadInput(
                    f"token ids must be below {known}, which the model knows, got {max(ids)}: is the tokenizer its own?"
                )
            texts.append(text)
            tokens.append(ids)
        meta = {
            "model": self.name,
            "fingerprint": self.fingerprint,
            "engine": self.engine,
            "sampling": self.sampling,
            "span": self.span.tokens,
        }
        return BabbleGraph(texts, tokens, self.vocabulary, seed, meta | {"stop": list(self.span.stop)})

    def expand(
        self,
        graph: BabbleGraph,
        chosen: Chosen,
        rng: Rng,
        meter: Meter,
        draws: Draws = Draws.MULTINOMIAL,
    ) -> Born:
        """Draws spans below the chosen nodes; see `lm.expand.expand`, and `lm.parts` for where memory lacks.

        Raises:
            NoRoom: the memory does not hold a single draw, or those that depend on each other.
            BadInput: no node is chosen.
        """
        _some(chosen.ids)
        graph.vocabulary = self.vocabulary  # a loaded graph knows only the tokens that it has
        sampled = meter.counts["sampled"].copy()
        try:
            with self._engines.running(graph) as trie:
                rules = self._rules(graph)

                def expanded(some: Chosen, earlier: Earlier) -> Born:
                    if may_fly(trie, graph, some, rules, draws):
                        try:
                            return fly(trie, graph, some, rng, meter, rules, draws, earlier)
                        except NoRoom:  # draws that agree take less as one row
                            trie.restore(graph.size + earlier.nodes)
                        except torch.OutOfMemoryError:
                            trie.restore(graph.size + earlier.nodes)
                            warnings.warn(LAND, RuntimeWarning, stacklevel=2)
                    return expand(trie, graph, some, rng, meter, rules, draws, earlier)

                return self._parts.expand(expanded, trie, graph, chosen, meter, draws)
        except BaseException:
            meter.counts["sampled"][:] = sampled  # nothing of it comes into the graph
            raise

    def release(self, graph: BabbleGraph, ids: ArrayLike) -> None:
        """Gives up the keys and values of nodes; when no node holds any, their memory is free again."""
        self._engines.release(graph, np.asarray(ids, np.int64))

    def next_logits(self, graph: BabbleGraph, ids: ArrayLike, meter: Meter) -> torch.Tensor:
        """Logits of the token after each node, [F, V]; what is computed for this is not computed again.

        Raises:
            BadInput: no node.
        """
        nodes = _some(ids)
        with self._engines.running(graph) as trie:
            return _one(
                self._nodes.asked(trie, graph, nodes, lambda some: trie.next_logits(graph, some, meter))
            )

    def logits_after(
        self,
        graph: BabbleGraph,
        ids: ArrayLike,
        after: Sequence[int],
        meter: Meter,
        before: Sequence[int] = (),
    ) -> torch.Tensor:
        """Logits of the token after each node's text and some more words (token ids), [F, V].

        A token that ended the text is left out. With words before the text the keys and values of the search are of no
        use: what is read so is a trie of its own, in which texts that have been read before are found as long as
        `cache_bytes` has room for them. All that is computed for this is counted as scored.

        Raises:
            BadInput: no node, no word, or a text and the words are longer than the model's context.
        """
        nodes = _some(ids)
        if not len(after) and not len(before):
            raise BadInput("words around a text must be at least one token, got none: ask next_logits")
        longest = int(graph.length[nodes].max(initial=0)) + len(before) + len(after)
        if longest > self.context:
            raise BadInput(
                f"a text and the words around it must fit into the model's {self.context} tokens, got {longest}: "
                "use fewer words, or set max_new_tokens so that they fit"
            )
        with self._engines.running(graph) as trie:

            def asked(some: Ints) -> torch.Tensor:
                if before:
                    return trie.around(graph, some, before, after, meter, self._first)
                return trie.after(graph, some, after, meter)

            return _one(self._nodes.asked(trie, graph, nodes, asked))

    @property
    def _first(self) -> int | None:
        """The token that texts begin with, where there is one."""
        return None if self.tokenizer is None else self.tokenizer.bos_token_id

    def record(self, layers: Sequence[int]) -> None:
        """From now on keeps hidden states of some layers (0 is the embedding), for `hidden`.

        They lie beside the keys and values of a token, as long as these; graphs that start from now on count
        them in the memory limit.

        Raises:
            BadInput: a layer that the model does not have.
        """
        most = int(self.model.config.get_text_config().num_hidden_layers)
        if wrong := [layer for layer in layers if not 0 <= layer <= most]:
            raise BadInput(f"a layer must be 0 (the embedding) to {most}, got {wrong[0]}: choose one of them")
        self._engines.record(layers)

    def hidden(self, graph: BabbleGraph, ids: ArrayLike, layers: Sequence[int], meter: Meter) -> SpanStates:
        """Hidden states at the ends of nodes and their means over the nodes' spans, [F, layers, H] each.

        They come from the forward passes that ran, where `record` has named the layers before: a node's last
        token is pushed through the model now instead of when the node is expanded. What was not kept, as for
        tokens computed earlier and in the dense engine, is computed from the beginning, counted as scored.

        Raises:
            BadInput: no node, or a model whose hidden states are not one vector a token.
        """
        nodes = _some(ids)
        with self._engines.running(graph) as trie:
            parts = self._nodes.asked(trie, graph, nodes, lambda some: trie.hidden(graph, some, meter))
        known = np.concatenate([k for k, _ in parts])
        found = [
            states.of([self._engines.recorded.index(i) for i in layers]) for _, states in parts if states
        ]
        if not known.all():
            lost = nodes[~known]
            with turn_of(self.model):
                anew = self._nodes.parts(
                    lambda some: computed(self.model, graph, lost[some], layers, meter), len(lost)
                )
                found += [states for states, _ in anew]
        return SpanStates.joined(found, np.r_[np.flatnonzero(known), np.flatnonzero(~known)])

    @property
    def traced(self) -> bool | None:
        """Whether decoding steps are one program; None as long as none was wanted."""
        traced = self._engines.packed.traced
        return None if traced is None else traced.made

    def trie(self, graph: BabbleGraph) -> Engine | Pair:
        """The keys and values that a graph holds now, to measure them."""
        return self._engines.of(graph)

    def _rules(self, graph: BabbleGraph) -> Rules:
        longest = np.minimum(graph.length[: graph.trees] + (self.max_new_tokens or 1024), self.context)
        rules = Rules(self.span, longest.astype(np.int64), self.vocabulary, self.warp, mixture=self.mixture)
        rules = rules._replace(pauses=self._pauses)
        if not self.logits_processor and not self.stopping_criteria:
            return rules
        constraint = Constraint(graph, self.logits_processor, self.stopping_criteria, self.batch)
        return rules._replace(constraint=constraint)


def _some(ids: ArrayLike) -> Ints:
    """Nodes, [F], at least one."""
    nodes = np.asarray(ids, np.int64)
    if not len(nodes):
        raise BadInput("there must be at least one node, got none: give the ids of some")
    return nodes


def _tuple(strings: str | Sequence[str]) -> tuple[str, ...]:
    return (strings,) if isinstance(strings, str) else tuple(strings)


def _one(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Parts as one; a single one is not copied."""
    return torch.cat(list(parts)) if len(parts) > 1 else parts[0]
