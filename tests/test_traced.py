"""A step that is one program gives what the model's modules give, bit for bit, and only where it does."""

from __future__ import annotations

import gc
import itertools
import weakref

import numpy as np
import pytest
import torch
from marks import slow_but
from test_attention import LIMIT, grown, worst_error
from tiny_models import FAMILIES, SIZES, family_model, plain_logits, tiny_model
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from babblegraph.budget import Budget, Meter
from babblegraph.lm import Babbler, pools, traced
from babblegraph.lm.pace import AGAIN, Pace
from babblegraph.lm.traced import Program, Traced
from babblegraph.lm.trie_rows import TrieRows
from babblegraph.protocols import Chosen, Draws
from babblegraph.randomness import Rng

# peft itself
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
SAMPLE = (
    "llama",
    "gemma2",
    "gemma3_text",
    "gemma3n_text",
    "gemma4_text",
    "gpt_oss",
    "deepseek_v3",
    "qwen3_moe",
    "gpt_neox",
    "opt",
)


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(traced, "WAIT", 0)
    monkeypatch.setattr("babblegraph.lm.pace.PATIENCE", 60.0)  # however slow the machine is


def babbler_of(model, characters, **options):
    return Babbler(model, characters, span=4, max_new_tokens=40, **options)


def programs(babbler):
    """What was traced, and why not where it was not."""
    traced = babbler._engines.packed.traced
    return traced and (sum(p is not None for p in traced._programs.values()), traced.reason)


def told(graph):
    return [graph.tokens[: graph.stop[graph.size - 1]], graph.log_p_f, graph.log_q]


def same(one, two):
    return all(np.array_equal(a, b) for a, b in zip(told(one), told(two), strict=True))


@pytest.mark.parametrize(
    "family", slow_but(["llama", "gpt_oss"], [name for name in SAMPLE if name in FAMILIES])
)
def test_a_program_gives_the_same_graph_bit_for_bit(family, characters):
    model = family_model(family, characters)
    babblers = [babbler_of(model, characters, trace=trace) for trace in (True, False)]
    traced, plain = (grown(babbler, seed=1)[0] for babbler in babblers)
    assert babblers[0].engine == "cascade"
    assert programs(babblers[0]) == (1, None)
    assert babblers[0].traced is True
    assert programs(babblers[1]) is None
    assert babblers[1].traced is None
    assert same(traced, plain)
    assert worst_error(babblers[0], seed=2) < LIMIT


@pytest.mark.slow
@pytest.mark.parametrize("bytes_", [1 << 10, 1 << 22])
@pytest.mark.parametrize("least", [2, 1 << 30])
def test_with_every_segment_shared_or_none_and_tails_in_blocks(least, bytes_, characters, monkeypatch):
    monkeypatch.setattr("babblegraph.lm.forward.LEAST", {"cpu": least, "cuda": least})
    monkeypatch.setattr(pools, "BLOCK", bytes_)
    model = family_model("gemma3_text", characters)  # windows of 6 tokens and whole texts
    babblers = [babbler_of(model, characters, trace=trace) for trace in (True, False)]
    assert same(*(grown(babbler, seed=3)[0] for babbler in babblers))
    assert programs(babblers[0]) == (1, None)
    assert worst_error(babblers[0], seed=4) < LIMIT


def test_in_half_precision(characters):
    model = family_model("llama", characters).to(torch.bfloat16)
    babblers = [babbler_of(model, characters, trace=trace) for trace in (True, False)]
    assert same(*(grown(babbler, seed=5)[0] for babbler in babblers))
    assert programs(babblers[0]) == (1, None)


def test_hidden_states_are_those_of_the_modules(characters):
    model = family_model("llama", characters)
    found = []
    for trace in (True, False):
        babbler = babbler_of(model, characters, trace=trace)
        babbler.record([0, 2])
        graph, meter = grown(babbler, seed=6)
        found.append(babbler.hidden(graph, np.arange(graph.size), [0, 2], meter))
        assert programs(babbler) == ((1, None) if trace else None)
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours, theirs)


CHANGES = {
    "in place": lambda weight: weight.mul_(1.5),
    "through .data": lambda weight: weight.data.mul_(1.5),
    "another .data": lambda weight: setattr(weight, "data", weight * 1.5),
}


@torch.no_grad()
@pytest.mark.parametrize("change", CHANGES)
def test_weights_that_have_changed_are_those_of_the_next_program(change, characters):
    model = family_model("llama", characters)
    babbler = babbler_of(model, characters)
    grown(babbler, seed=7)
    traced = babbler._engines.packed.traced
    CHANGES[change](model.model.layers[1].mlp.up_proj.weight)
    CHANGES[change](model.model.norm.weight)
    assert worst_error(babbler, seed=7) < LIMIT
    assert babbler._engines.packed.traced is traced  # it takes no other program
    model.model.norm.weight = nn.Parameter(model.model.norm.weight * 2)
    assert worst_error(babbler, seed=7) < LIMIT
    assert programs(babbler) == (1, None)


def test_adapters_are_those_at_work(characters):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    model = peft.get_peft_model(family_model("llama", characters), config).eval()
    babbler = babbler_of(model, characters)
    learning = [p.requires_grad for p in model.parameters()]
    assert worst_error(babbler, seed=8) < LIMIT
    with model.disable_adapter():
        assert worst_error(babbler, seed=8) < LIMIT
    for module in model.modules():
        if isinstance(getattr(module, "scaling", None), dict):
            module.scaling["default"] *= 3
    assert worst_error(babbler, seed=8) < LIMIT
    assert programs(babbler)[1] is None
    assert [p.requires_grad for p in model.parameters()] == learning


def test_a_base_and_its_adapters_have_programs_of_their_own(characters):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    model = peft.get_peft_model(family_model("llama", characters), config).eval()
    with_base = [babbler_of(model, characters, base=model, trace=trace) for trace in (True, False)]
    one, two = (grown(babbler, seed=9)[0] for babbler in with_base)
    assert same(one, two)
    assert np.array_equal(one.log_p_g, two.log_p_g)
    assert programs(with_base[0]) == (2, None)


def test_a_model_with_hooks_keeps_its_modules(characters):
    model = family_model("llama", characters)
    babbler = babbler_of(model, characters)
    grown(babbler, seed=10)
    steer = torch.linspace(-1, 1, model.config.hidden_size)
    handle = model.model.layers[1].register_forward_hook(lambda module, args, output: output + steer)
    assert worst_error(babbler, seed=11) < LIMIT
    handle.remove()
    assert worst_error(babbler, seed=11) < LIMIT


class Branching(nn.Module):
    """A layer that looks at its numbers."""

    def forward(self, x):
        return x if float(x.abs().sum()) >= 0 else 2 * x


class Counting(nn.Module):
    """A layer that remembers how often it was called."""

    def __init__(self):
        super().__init__()
        self.calls = itertools.count()

    def forward(self, x):
        return x * (1 + next(self.calls) % 3)


class Equal(nn.Module):
    """A layer that asks whether a number of its own is one of its sizes."""

    def forward(self, x):
        return x if x.sum() != x.shape[0] else 2 * x


class Sizes(nn.Module):
    """A layer that asks whether sizes are equal, as gemma3n's and gemma4's do."""

    def forward(self, x):
        other = x[..., :1]
        if other.shape != x.shape and other.shape[0] == x.shape[0]:
            return x
        return 2 * x


def test_a_model_may_ask_whether_sizes_are_equal(characters):
    model = family_model("llama", characters)
    model.model.layers[0].mlp.act_fn = Sizes()
    babbler = babbler_of(model, characters)
    assert worst_error(babbler, seed=18) < LIMIT
    assert programs(babbler) == (1, None)


@pytest.mark.parametrize(
    ("layer", "reason"), [(Branching, "Python"), (Equal, "Python"), (Counting, "depend on the numbers")]
)
def test_what_cannot_be_written_down_is_not(layer, reason, characters):
    model = family_model("llama", characters)
    model.model.layers[0].mlp.act_fn = nn.Identity()
    babbler = babbler_of(model, characters)  # the check at load knows nothing of the layer
    model.model.layers[0].mlp.act_fn = layer()
    babbler.release(grown(babbler, seed=12)[0], np.arange(1))
    made, why = programs(babbler)
    assert made == 0
    assert reason in why
    assert babbler.traced is False


def test_a_branching_model_is_right_all_the_same(characters):
    model = family_model("llama", characters)
    model.model.layers[0].mlp.act_fn = Branching()
    babbler = babbler_of(model, characters)
    assert worst_error(babbler, seed=13) < LIMIT
    assert babbler.traced is False


def test_a_program_that_is_wrong_is_not_taken(characters, monkeypatch):
    plain = Program.__call__
    monkeypatch.setattr(Program, "__call__", lambda *given: tuple(t * (1 + 1e-5) for t in plain(*given)))
    babbler = babbler_of(family_model("llama", characters), characters)
    assert worst_error(babbler, seed=14) < LIMIT
    assert programs(babbler) == (0, "its operators depend on the numbers of the step")


def test_nothing_of_it_stays_in_the_model_or_keeps_it_alive(characters):
    model = family_model("llama", characters)
    before = [dict(module.__dict__) for module in model.modules()]
    babbler = babbler_of(model, characters)
    grown(babbler, seed=15)
    assert [dict(module.__dict__) for module in model.modules()] == before
    assert isinstance(babbler._engines.packed.traced, Traced)
    gone = weakref.ref(model)
    weights = [StorageWeakRef(weight.untyped_storage()) for weight in model.parameters()]
    del babbler, model, before
    gc.collect()
    assert gone() is None
    assert all(weight.expired() for weight in weights)


def test_a_lack_of_memory_in_a_program_is_one(characters, monkeypatch):
    babbler = babbler_of(family_model("llama", characters), characters)
    grown(babbler, seed=16)
    plain, failed = Program.__call__, []

    def scarce(program, plan, ids, *rest):
        if len(ids) > 1:
            failed.append(len(ids))
            raise RuntimeError(
                "The following operation failed in the TorchScript interpreter. can't allocate memory"
            )
        return plain(program, plan, ids, *rest)

    monkeypatch.setattr(Program, "__call__", scarce)
    with pytest.warns(RuntimeWarning, match="no memory for"):
        graph, _ = grown(babbler, seed=16)
    assert failed
    tokens = graph.path_tokens(graph.size - 1)
    logits = babbler.next_logits(graph, [graph.size - 1], Meter(Budget(tokens=1), graph.trees))[0]
    assert (logits - plain_logits(babbler.model, tokens)[-1]).abs().max() < LIMIT * logits.abs().max()


# --- rows that go on by themselves ---


def counted(monkeypatch):
    """How many tokens rows have gone by themselves, call after call."""
    plain, asked, steps = TrieRows.coast, TrieRows.may_coast, []

    def coast(rows, *given):
        found = plain(rows, *given)
        steps.append(0 if found is None else len(found.tokens))
        return found

    def may_coast(rows, wanted):
        if not (most := asked(rows, wanted)):
            steps.append(0)
        return most

    monkeypatch.setattr(TrieRows, "coast", coast)
    monkeypatch.setattr(TrieRows, "may_coast", may_coast)
    return steps


def searched(trace, monkeypatch, **options):
    """A forest in which rows split, end by strings, by length and by the budget, and are drawn again below children."""
    return searched_by(Babbler.embedded(trace=trace, **options), monkeypatch)


def searched_by(babbler, monkeypatch):
    steps = counted(monkeypatch)
    graph, rng = babbler.start(["3 5 7 11>24\n", "2 3 4>24\n", "25 50 75>100\n"], seed=1), Rng(1)
    meter = Meter(Budget(tokens=700), graph.trees)
    for round_ in range(8):
        fits = np.flatnonzero(~graph.is_leaf())[-4:]
        draws = np.array([1, 2, 1, 3][: len(fits)]) + round_ % 2
        way = (Draws.FRESH, Draws.MULTINOMIAL, Draws.SYSTEMATIC)[round_ % 3]
        graph.add(babbler.expand(graph, Chosen(fits, draws), rng, meter, way))
        babbler.release(graph, np.arange(1, graph.size, 5))
    logits = babbler.next_logits(graph, np.flatnonzero(~graph.is_leaf()), meter)
    return babbler, graph, meter, logits, sum(steps)


OPTIONS = {
    "lines": {"stop": "\n"},
    "spans of 6": {"span": 6, "stop": ()},
    "strings of two": {"stop": ("\n", "=1"), "until": (":24",)},
    "warm": {"temperature": 0.7},
    "short texts": {"max_new_tokens": 9, "stop": ()},
    "top-k": {"top_k": 3},
    "no end": {"stop": (), "span": 40, "end_ids": ()},
}


@pytest.mark.parametrize("name", slow_but(list(OPTIONS)[:2], OPTIONS))
def test_rows_that_go_by_themselves_give_the_same_graph(name, monkeypatch):
    found = [searched(trace, monkeypatch, **OPTIONS[name]) for trace in (True, False)]
    (_, ours, meter, logits, steps), (_, theirs, plain_meter, plain_logits_, none) = found
    assert (steps > 0) == (name != "top-k")
    assert none == 0
    assert ours.size == theirs.size > 20
    assert same(ours, theirs)
    for column in ("status", "flags", "parent", "key", "count", "log_p_g"):
        assert np.array_equal(getattr(ours, column), getattr(theirs, column))
    for count in ("sampled", "forwarded", "prefilled"):
        assert np.array_equal(meter.counts[count], plain_meter.counts[count]), count
    assert torch.equal(logits, plain_logits_)
    assert ours.meta.get("token_gate") == theirs.meta.get("token_gate")


def test_their_logits_and_keys_are_those_of_plain_forward_passes(monkeypatch):
    babbler, graph, meter, _, steps = searched(True, monkeypatch, span=12, stop=())
    assert steps > 20
    for node in range(0, graph.size, 3):
        text = graph.path_tokens(node)
        ours, plain = babbler.next_logits(graph, [node], meter)[0], plain_logits(babbler.model, text)[-1]
        assert (ours - plain).abs().max() < LIMIT * plain.abs().max()


def test_they_keep_hidden_states(monkeypatch):
    found = []
    for trace in (True, False):
        steps = counted(monkeypatch)
        babbler = Babbler.embedded(trace=trace, span=12, stop=())
        babbler.record([1, 3])
        graph, meter = babbler.start(["3 5 7 11>24\n"], seed=2), Meter(Budget(tokens=200), 1)
        for _ in range(3):
            nodes = graph.frontier()[:2]
            graph.add(babbler.expand(graph, Chosen(nodes, np.array([2, 1])[: len(nodes)]), Rng(2), meter))
        assert (sum(steps) > 5) == trace
        prefilled = meter.counts["scored"].sum()
        found.append(babbler.hidden(graph, np.arange(graph.size), [1, 3], meter))
        assert meter.counts["scored"].sum() == prefilled  # all were kept
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours, theirs)


def test_windows_and_slow_models_are_seen_to_at_every_step(characters, monkeypatch):
    steps = counted(monkeypatch)
    grown(babbler_of(family_model("gemma3_text", characters), characters), seed=17)
    assert steps
    assert not any(steps)
    monkeypatch.setattr("babblegraph.lm.pace.PATIENCE", 1e-6)
    steps = counted(monkeypatch)
    babbler = Babbler(family_model("llama", characters), characters, span=30, end_ids=())
    graph, meter = babbler.start(["3 5>8\n"]), Meter(Budget(tokens=500), 1)
    for _ in range(3):
        graph.add(babbler.expand(graph, Chosen(graph.frontier()[:1], np.array([1])), Rng(3), meter))
    assert sum(map(bool, steps)) == 1  # once it was found out how long they take


@pytest.mark.parametrize("window", [30, 90])
def test_rows_go_by_themselves_until_they_outgrow_a_window(window, characters, monkeypatch):
    sizes = SIZES | FAMILIES["gemma3_text"] | {"sliding_window": window}
    model, found = tiny_model("gemma3_text", 0, vocab_size=len(characters), **sizes), []
    for trace in (True, False):
        steps = counted(monkeypatch)
        babbler = Babbler(model, characters, span=16, max_new_tokens=60, end_ids=(), trace=trace)
        graph, meter = babbler.start(["3 5>8\n"]), Meter(Budget(tokens=500), 1)
        for _ in range(3):
            graph.add(babbler.expand(graph, Chosen(graph.frontier()[-1:], np.array([2])), Rng(3), meter))
        found.append((graph, sum(steps)))
    (ours, alone), (theirs, none) = found
    assert ours.length.max() == 6 + 3 * 16
    assert none == 0
    assert alone > (24 if window == 90 else 8)
    assert window == 90 or alone < 24
    assert same(ours, theirs)


def test_a_model_that_gives_no_numbers_after_a_token_is_looked_at(characters):
    model, found = family_model("llama", characters), []
    babblers = [Babbler(model, characters, span=30, trace=trace) for trace in (True, False)]
    with torch.no_grad():
        model.model.embed_tokens.weight[5] = float("nan")
    for babbler in babblers:
        babbler._engines.look()
        graph, meter = babbler.start(["3 5>8\n"]), Meter(Budget(tokens=300), 1)
        chosen = Chosen(np.array([0]), np.array([24]))
        with pytest.warns(RuntimeWarning, match="a model must give numbers"):
            graph.add(babbler.expand(graph, chosen, Rng(3), meter))
        found.append(graph)
    assert found[0].meta["not_numbers"] > 0
    assert same(*found)


def test_slots_that_were_not_needed_are_free_again(monkeypatch):
    babbler, graph, meter, _, _ = searched(True, monkeypatch, stop="\n")
    _, plain, plain_meter, _, _ = searched(False, monkeypatch, stop="\n")
    assert meter.peak_slots <= plain_meter.peak_slots
    store = babbler.trie(graph).store
    babbler.release(graph, np.arange(graph.size))
    assert store.in_use == 0
    assert plain.size == graph.size


def test_ctrl_c_in_between_loses_nothing(monkeypatch):
    babbler, graph, _, _, _ = searched(True, monkeypatch, span=20, stop=())
    size, in_use = graph.size, babbler.trie(graph).store.in_use

    def interrupted(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(Program, "coast", interrupted)
    monkeypatch.setattr(Pace, "steps", lambda pace, wanted, rows: wanted)
    with pytest.raises(KeyboardInterrupt):
        babbler.expand(
            graph, Chosen(np.array([0]), np.array([3])), Rng(4), Meter(Budget(tokens=500), graph.trees)
        )
    assert (graph.size, babbler.trie(graph).store.in_use) == (size, in_use)


def test_babblers_that_share_a_program_draw_what_each_draws_with_its_own(monkeypatch):
    first, *others = ({"stop": ()}, {"stop": (), "temperature": 0.7}, {"stop": (), "top_k": 3})
    shared = searched(True, monkeypatch, **first)[0]
    for options in others:
        babbler = shared.again(**options)
        assert babbler.traced is True
        alone, ours = searched(True, monkeypatch, **options)[1], searched_by(babbler, monkeypatch)[1]
        assert same(alone, ours)


def test_a_moment_in_which_the_machine_was_slow_is_not_held_against_a_model(monkeypatch):
    monkeypatch.setattr("babblegraph.lm.pace.PATIENCE", 0.1)
    pace = Pace()
    assert pace.steps(30, rows=4) == 2  # as long as nobody knows how long one takes
    pace.note(2, rows=4, seconds=0.004)
    assert pace.steps(30, rows=4) == 30
    pace.note(30, rows=4, seconds=30.0)
    asked = [pace.steps(30, rows=4) for _ in range(AGAIN + 2)]
    assert asked == [0] * (AGAIN + 1) + [2]
    pace.note(2, rows=4, seconds=0.004)
    assert pace.steps(30, rows=4) == 30
