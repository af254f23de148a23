"""Babbler from a folder to a graph: loading, prompts, and leaving the user's model as it was."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import threading
import weakref
from collections import Counter
from contextlib import nullcontext
from itertools import pairwise

import numpy as np
import pytest
import torch
from tiny_models import byte_tokenizer, plain_logits, tiny_llama, tiny_model
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, LlamaForSequenceClassification

from babblegraph.budget import Budget, Meter
from babblegraph.errors import BadInput
from babblegraph.graph import BabbleGraph
from babblegraph.lm import Babbler, pretrained, selfcheck
from babblegraph.lm.frozen import Frozen
from babblegraph.loop import search
from babblegraph.protocols import Chosen, Generator
from babblegraph.randomness import Rng
from babblegraph.scoring import Score
from babblegraph.status import Status
from babblegraph.strategies import babble

TEMPLATE = (
    "{% for m in messages %}<turn>{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant:{% endif %}"
)
CHAT = [{"role": "user", "content": "Tell a story."}]
PROMPTS = ["Once upon a time", "This is", "The numbers are 1 2 3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved model with a byte-level BPE tokenizer, as a hub model would come."""
    path, tokenizer = tmp_path_factory.mktemp("model"), byte_tokenizer()
    tiny_llama(tokenizer).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def babbler(folder):
    return Babbler.from_pretrained(folder, device="cpu", span=6, max_new_tokens=18)


def grow(babbler, prompts, rounds=2, draws=6, seed=0):
    graph = babbler.start(prompts, seed)
    for _ in range(rounds):
        ids = graph.frontier()[:8]
        if not len(ids):
            break
        meter = Meter(Budget(tokens=10**6), graph.trees)
        graph.add(babbler.expand(graph, Chosen(ids, np.full(len(ids), draws)), Rng(seed), meter))
    return graph


def refused(message, function, *arguments, **options):
    with pytest.raises(BadInput, match=message) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_babbler_is_a_generator(babbler):
    assert isinstance(babbler, Generator)


def test_a_saved_folder_gives_the_model_that_was_saved(babbler, folder):
    graph = babbler.start(PROMPTS)
    assert babbler.name == str(folder)
    assert graph.meta["model"] == str(folder)
    assert babbler.model.dtype == torch.float32
    assert babbler.error < 1e-4
    assert graph.prompts == PROMPTS
    logits = babbler.next_logits(graph, np.arange(3), Meter(Budget(tokens=1), 3))
    same = tiny_llama(byte_tokenizer())
    plain = torch.stack([plain_logits(same, byte_tokenizer()(p)["input_ids"])[-1] for p in PROMPTS])
    torch.testing.assert_close(logits, plain, atol=1e-4, rtol=0)


def test_several_prompts_are_searched_together(babbler):
    budget = Budget(tokens=60)
    options = {"score": Score(value=halves), "strategy": babble(threshold=None), "budget": budget}
    *_, last = search(babbler, PROMPTS, **options)
    assert (np.bincount(last.graph.root) > 1).all()
    assert last.spent.sampled <= 180
    for i in range(3, last.graph.size):
        assert last.graph.prompt(i) == PROMPTS[last.graph.root[i]]


def halves(graph, ids, meter):
    return np.full(len(ids), 0.5)


def test_one_text_may_come_without_a_list(babbler):
    assert babbler.start("This is").prompts == ["This is"]


def test_a_stop_string_that_lies_across_tokens_ends_the_node(folder):
    stop = "e t"  # no token has all of it
    babbler = Babbler.from_pretrained(folder, stop=stop)
    assert all(stop.encode() not in babbler.vocabulary[i] for i in range(len(babbler.tokenizer)))
    tail, text = b"", b""
    for token in babbler.tokenizer("The time is")["input_ids"]:
        tail = babbler.span.tail(tail, token, babbler.vocabulary)
        text += babbler.vocabulary[token]
        (end,) = babbler.span.ends([token], [tail], 1, [99])
        assert end == (Status.FRONTIER if stop.encode() in text else None)
        if end is not None:
            return
    pytest.fail("the stop string was not found")


def common_pairs(babbler, how_many):
    """The commonest two characters on either side of a token border, in what the model writes."""
    pairs, graph = Counter(), grow(babbler, PROMPTS, rounds=3, draws=8)
    for i in range(graph.trees, graph.size):
        data = [babbler.vocabulary[int(t)] for t in graph.span(i)]
        for one, two in pairwise(data):
            if (pair := one[-1:] + two[:1]).isascii() and len(pair) == 2:
                pairs[pair.decode()] += 1
    return [pair for pair, _ in pairs.most_common(how_many)]


@pytest.mark.slow
def test_a_node_ends_with_the_token_that_completes_its_stop_string(folder):
    plain = Babbler.from_pretrained(folder, span=30, max_new_tokens=60)
    crossed = 0
    for stop in common_pairs(plain, 5):
        babbler = Babbler.from_pretrained(folder, stop=stop, max_new_tokens=60)
        graph = grow(babbler, PROMPTS, rounds=3, draws=8)
        for i in range(graph.trees, graph.size):
            data = [babbler.vocabulary[int(t)] for t in graph.span(i)]
            whole, but_last = b"".join(data), b"".join(data[:-1])
            assert stop.encode() not in but_last, "no span goes on after its stop string"
            crossed += stop.encode() in whole and stop.encode() not in data[-1]
            if graph.status[i] in (Status.FRONTIER, Status.EXPANDED):
                assert stop.encode() in whole
    assert crossed > 0, "some of them lie across two tokens"


def test_a_chat_is_a_prompt_by_the_models_own_template(babbler):
    babbler.tokenizer.chat_template = TEMPLATE
    try:
        graph = babbler.start([CHAT, "This is", CHAT])
        text = "<turn>user: Tell a story.\n<turn>assistant:"
        assert graph.prompts == [text, "This is", text]
        turn = babbler.tokenizer.convert_tokens_to_ids("<turn>")
        assert graph.tokens[0] == turn, "a special token of the template is one token"
        assert (graph.span(0) == turn).sum() == 2
        assert babbler.start(CHAT).prompts == [text], "one chat may come without a list"
        refused("messages", babbler.start, [[{"rôle": 1}, 3]])
    finally:
        babbler.tokenizer.chat_template = None


def test_the_template_does_not_add_the_beginning_of_text_twice(folder):
    babbler = Babbler.from_pretrained(folder)
    babbler.tokenizer.bos_token = "<pad>"
    babbler.tokenizer.chat_template = "{{ bos_token }}" + TEMPLATE
    graph = babbler.start([CHAT])
    assert (graph.span(0) == babbler.tokenizer.bos_token_id).sum() == 1


def test_a_chat_that_a_graph_has_written_out_is_read_as_the_chat_was(folder):
    """A tokenizer that begins every text with a token of its own must not begin this one."""
    babbler = Babbler.from_pretrained(folder)
    babbler.tokenizer.chat_template = TEMPLATE
    begin = TemplateProcessing("<pad> $A", "<pad> $A $B", [("<pad>", 0)])
    babbler.tokenizer.backend_tokenizer.post_processor = begin
    graph = babbler.start([CHAT])
    assert graph.span(0)[0] != 0
    assert (babbler.start(graph.prompts).span(0) == graph.span(0)).all()
    assert babbler.start([str(graph.prompts[0])]).span(0)[0] == 0, "of a plain text it is the first token"


def test_a_hub_that_does_not_answer_is_asked_once_and_said_in_one_line(monkeypatch):
    asked, told = [], []

    class Silence:
        def head(self, url, timeout):
            asked.append(url)
            raise ConnectionError("no route")

    def nothing_here(name, **how):
        told.append(how["local_files_only"])
        raise OSError("not in the cache")

    monkeypatch.setattr(pretrained.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(pretrained, "get_session", Silence)
    monkeypatch.setattr(pretrained.AutoTokenizer, "from_pretrained", nothing_here)
    refused("not on this machine, and the hub does not answer", Babbler.from_pretrained, "some/model")
    assert len(asked) == 1
    assert told == [True], "what was downloaded before is all there is to look at"


def test_bad_prompts_are_refused_in_one_line(babbler):
    refused("empty", babbler.start, [""])
    refused("empty", babbler.start, ["fine", " \n"])
    refused("at least one prompt", babbler.start, [])
    refused("128 tokens", babbler.start, ["x" * 400])
    refused("chat template", babbler.start, [CHAT])
    refused("valid Unicode", babbler.start, ["\ud800"])


def test_token_ids_must_be_the_models_and_nodes_at_least_one(llama):
    babbler = Babbler(llama)
    refused("token ids must be below 23.*got 999", babbler.start, [[1, 2, 999]])
    graph, meter = babbler.start([[1, 2]]), Meter(Budget(tokens=9), 1)
    refused("at least one node", babbler.next_logits, graph, [], meter)
    refused("at least one node", babbler.logits_after, graph, [], [1], meter)
    refused("at least one token", babbler.logits_after, graph, [0], [], meter)
    refused("at least one node", babbler.hidden, graph, [], [0], meter)
    none = Chosen(np.zeros(0, np.int64), np.zeros(0, np.int64))
    refused("at least one node", babbler.expand, graph, none, Rng(1), meter)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"temperature": 0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 2.0}, "top_p"),
        ({"span": 0}, "span"),
        ({"stop": ["a", ""]}, "stop"),
        ({"until": ""}, "until"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_new_tokens": "3"}, "max_new_tokens"),
        ({"max_new_tokens": 2.5}, "max_new_tokens"),
    ],
)
def test_bad_options_are_refused_in_one_line(folder, options, name):
    if options == {"until": ""}:
        options = {"until": [""]}
    refused(name, Babbler.from_pretrained, folder, **options)


def test_a_folder_that_is_no_causal_model_is_refused_in_one_line(tmp_path):
    assert "nowhere" in refused("a model must be", Babbler.from_pretrained, tmp_path / "nowhere")
    refused("a model must be", Babbler.from_pretrained, tmp_path)
    (tmp_path / "config.json").write_text("{}")
    refused("a model must be", Babbler.from_pretrained, tmp_path)


def test_weights_that_are_missing_are_refused_and_not_made_up(tmp_path):
    tokenizer = byte_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    refused(r"lm_head\.weight", Babbler.from_pretrained, tmp_path)


def test_tied_weights_are_not_missing(tmp_path):
    tokenizer = byte_tokenizer()
    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 32}
    tiny_model("gpt2", vocab_size=len(tokenizer), tie_word_embeddings=True, **sizes).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert Babbler.from_pretrained(tmp_path).context == 32


def test_weights_in_pickles_are_not_loaded(folder, tmp_path):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    torch.save(tiny_llama(byte_tokenizer()).state_dict(), tmp_path / "pytorch_model.bin")
    refused("safetensors", Babbler.from_pretrained, tmp_path)


def test_code_from_a_folder_does_not_run(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {
        "model_type": "evil",
        "auto_map": dict.fromkeys(("AutoConfig", "AutoModelForCausalLM"), "evil.E"),
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass E: pass\n")
    refused("a model must be", Babbler.from_pretrained, tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("before", ["sdpa", "eager"])
def test_the_model_is_left_as_it_was(before):
    tokenizer = byte_tokenizer()
    model = tiny_llama(tokenizer)
    model.set_attn_implementation(before)
    inputs = tokenizer("Once upon", return_tensors="pt")
    options = {"max_new_tokens": 6, "do_sample": False}
    config, written = copy.deepcopy(model.config.to_dict()), model.generate(**inputs, **options)
    babbler = Babbler(model, tokenizer, span=4)
    graph = grow(babbler, ["This is"])
    babbler.next_logits(graph, graph.frontier(), Meter(Budget(tokens=1), 1))
    assert model.config._attn_implementation == before
    assert model.config.to_dict() == config
    assert torch.equal(model.generate(**inputs, **options), written)


def test_the_model_is_left_as_it_was_after_an_error_too(monkeypatch):
    tokenizer = byte_tokenizer()
    model = tiny_llama(tokenizer)
    babbler, before = Babbler(model, tokenizer), model.config._attn_implementation
    monkeypatch.setattr(model.model.norm, "forward", lambda x: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        grow(babbler, ["This is"])
    monkeypatch.undo()
    assert model.config._attn_implementation == before
    assert grow(babbler, ["This is"]).size > 1


def test_a_forgotten_graph_gives_its_memory_back(babbler):
    graph = grow(babbler, PROMPTS)
    trie, store = weakref.ref(babbler.trie(graph)), weakref.ref(babbler.trie(graph).store)
    known = len(babbler._engines._of)
    del graph
    gc.collect()
    assert trie() is None
    assert store() is None
    assert len(babbler._engines._of) < known


def test_graphs_of_one_babbler_do_not_share_keys(babbler):
    one, two = grow(babbler, ["This is"], rounds=1), grow(babbler, ["The end of"], rounds=1)
    for graph in (one, two):
        ids = np.arange(graph.size)
        ours = babbler.next_logits(graph, ids, Meter(Budget(tokens=1), 1))
        plain = torch.stack([plain_logits(babbler.model, graph.path_tokens(int(i)))[-1] for i in ids])
        torch.testing.assert_close(ours, plain, atol=1e-3, rtol=0)


def test_a_saved_graph_goes_on_as_if_it_had_not_been_saved(babbler, tmp_path):
    whole, saved = grow(babbler, PROMPTS, rounds=2), grow(babbler, PROMPTS, rounds=1)
    saved.save(tmp_path / "graph.safetensors")
    graph = BabbleGraph.load(tmp_path / "graph.safetensors")
    ids, meter = graph.frontier()[:8], Meter(Budget(tokens=10**6), 3)
    graph.add(babbler.expand(graph, Chosen(ids, np.full(len(ids), 6)), Rng(0), meter))
    assert np.array_equal(graph.tokens, whole.tokens)
    assert np.array_equal(graph.parent, whole.parent)
    assert [graph.text(i) for i in range(graph.size)] == [whole.text(i) for i in range(whole.size)]
    np.testing.assert_allclose(graph.log_q, whole.log_q, atol=1e-4)


def test_a_graph_does_not_go_on_with_another_model(babbler):
    graph = grow(babbler, PROMPTS, rounds=1)
    other = Babbler(tiny_llama(babbler.tokenizer, seed=1), babbler.tokenizer)
    chosen, meter = Chosen(np.array([0]), np.array([1])), Meter(Budget(tokens=9), 3)
    refused("the model that began it", other.expand, graph, chosen, Rng(0), meter)


@torch.no_grad()
def test_what_was_computed_from_weights_that_have_changed_is_not_used():
    model = tiny_llama(byte_tokenizer())
    babbler = Babbler(model, byte_tokenizer(), span=4)
    old, first = grow(babbler, PROMPTS, rounds=1), babbler.fingerprint
    babbler.release(old, [3])
    model.load_state_dict(tiny_llama(byte_tokenizer(), seed=1).state_dict())
    meter = Meter(Budget(tokens=1), 3)
    refused("the model that began it", babbler.next_logits, old, [0], meter)
    babbler.release(old, [0, 1])  # of nothing
    new = babbler.start(PROMPTS)
    assert new.meta["fingerprint"] == Babbler(model).fingerprint != first
    check_frontier(babbler, new)
    for weight in model.parameters():
        weight.data.mul_(1.3)  # which no count of torch's tells
    refused("the model that began it", babbler.next_logits, new, [0], meter)
    check_frontier(babbler, babbler.start(PROMPTS))


def check_frontier(babbler, graph):
    """The logits after the frontier are those of plain passes now."""
    ids = graph.frontier()
    ours = babbler.next_logits(graph, ids, Meter(Budget(tokens=1), graph.trees))
    plain = torch.stack([plain_logits(babbler.model, graph.path_tokens(int(i)))[-1] for i in ids])
    torch.testing.assert_close(ours, plain, atol=1e-3, rtol=0)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # by peft itself
def test_a_graph_goes_on_with_the_adapters_that_are_at_work_now():
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model = peft.get_peft_model(tiny_llama(byte_tokenizer()), config)
    model.add_adapter("other", config)
    babbler = Babbler(model.eval(), byte_tokenizer(), span=4)
    graph = grow(babbler, PROMPTS, rounds=1)
    before = plain_logits(model, graph.path_tokens(0))
    model.set_adapter("other")
    assert float((plain_logits(model, graph.path_tokens(0)) - before).abs().max()) > 0.1
    check_frontier(babbler, graph)
    model.merge_adapter()
    check_frontier(babbler, babbler.start(PROMPTS))


def test_a_model_in_training_mode_searches_without_dropout_and_is_left_in_it():
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}
    model = tiny_model("gpt2", vocab_size=300, **sizes)
    babbler = Babbler(model, byte_tokenizer(), span=4)
    model.train()
    model.transformer.h[1].eval()
    graph = grow(babbler, PROMPTS)
    assert model.transformer.h[0].training
    assert not model.transformer.h[1].mlp.training
    model.eval()
    check_frontier(babbler, graph)


def test_a_model_in_two_threads_takes_turns():
    model = tiny_llama(byte_tokenizer())
    one, two = (Babbler(model, byte_tokenizer(), span=4) for _ in range(2))
    first, second, found = one.start(PROMPTS), grow(two, PROMPTS), []
    other = threading.Thread(target=lambda: found.append(check_frontier(two, second)))
    with one._engines.running(first):
        other.start()
        other.join(0.2)
        assert other.is_alive(), "it waits for the model"
        with two._engines.running(second):
            pass  # what one thread does within its turn does not wait
    other.join(60)
    assert found == [None]


@pytest.mark.parametrize("around", [torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_rounds_in_inference_mode_or_autocast_go_with_rounds_outside(around):
    babbler = Babbler(tiny_llama(byte_tokenizer()), byte_tokenizer(), span=4)
    for outer in (around, nullcontext), (nullcontext, around):
        graph = babbler.start(PROMPTS)
        for context in outer:
            with context():
                ids, meter = graph.frontier(), Meter(Budget(tokens=10**6), 3)
                graph.add(babbler.expand(graph, Chosen(ids, np.full(len(ids), 2)), Rng(0), meter))
        check_frontier(babbler, graph)


def test_words_go_before_texts_also_without_a_tokenizer():
    babbler = Babbler(tiny_llama(byte_tokenizer()))
    graph, meter = babbler.start([[5, 6, 7]]), Meter(Budget(tokens=1), 1)
    ours = babbler.logits_after(graph, [0], [8], meter, before=[9])
    plain = plain_logits(babbler.model, [9, 5, 6, 7, 8])[-1:]
    torch.testing.assert_close(ours, plain, atol=1e-3, rtol=0)


def test_a_model_with_more_ids_than_its_tokenizer_babbles():
    tokenizer = byte_tokenizer()
    model = tiny_llama(tokenizer)
    model.resize_token_embeddings(len(tokenizer) + 20, mean_resizing=False)
    graph = grow(Babbler(model, tokenizer, temperature=5.0, span=8), ["This is"], draws=40)
    assert (graph.tokens >= len(tokenizer)).any()
    assert all(isinstance(graph.text(i), str) for i in range(graph.size))


def test_a_pickled_babbler_grows_the_same_graphs_and_leaves_keys_and_values_behind(folder):
    options = {"device": "cpu", "span": 4, "max_new_tokens": 12, "temperature": 0.8, "top_k": 9}
    here = Babbler.from_pretrained(folder, **options)
    here.record([1])
    graph = grow(here, PROMPTS)
    assert here.trie(graph).store.in_use > 0
    states = here.hidden(graph, [1, 2], [1], Meter(Budget(tokens=1), 3))
    data = pickle.dumps(here)
    there = pickle.loads(data)
    assert len(data) < 1.5 * sum(w.numel() * w.element_size() for w in here.model.parameters()) + 2**20
    assert (there.engine, there.name, there.fingerprint) == (here.engine, here.name, here.fingerprint)
    twin = grow(there, PROMPTS)
    assert np.array_equal(twin.tokens, graph.tokens)
    np.testing.assert_allclose(twin.log_q, graph.log_q, atol=1e-5)
    for babbler, grown in ((here, graph), (there, twin)):  # transformers notes hidden states again
        found = babbler.hidden(grown, [1, 2], [1], Meter(Budget(tokens=1), 3))
        torch.testing.assert_close(found.last, states.last, atol=1e-5, rtol=0)


def test_again_keeps_the_base_and_the_mixture_unless_they_are_changed(folder):
    mixed = Babbler.from_pretrained(
        folder, device="cpu", base=tiny_llama(byte_tokenizer(), seed=5), mixture=0.25
    )
    shorter = mixed.again(max_new_tokens=3)
    assert shorter.sampling == mixed.sampling
    assert (shorter.mixture, shorter.max_new_tokens) == (0.25, 3)
    alone = mixed.again(base=None, mixture=None)
    assert ["base" in one.sampling for one in (mixed, shorter, alone)] == [True, True, False]


def test_a_pickled_babbler_has_its_base_and_its_frozen_judge_the_same_model(folder):
    model = tiny_llama(byte_tokenizer(), seed=5)
    mixed = Babbler.from_pretrained(folder, device="cpu").again(base=model, mixture=0.25)
    copied = pickle.loads(pickle.dumps(mixed))
    assert copied.sampling == mixed.sampling
    assert copied.mixture == 0.25
    both = Babbler(model, byte_tokenizer())
    pair = pickle.loads(pickle.dumps((both, Frozen(both))))
    assert pair[0].model is pair[1].model
    assert type(pair[1]) is Frozen


@pytest.mark.parametrize(
    "message", [{"role": "user", "content": None}, {"rol": "user", "content": "x"}, {}, "x"]
)
def test_a_message_that_says_nothing_is_refused(message, llama, characters):
    characters.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    try:
        babbler = Babbler(llama, characters)
        assert babbler.start([[{"role": "user", "content": "7"}]]).prompts == ["7"]
        with pytest.raises(BadInput, match="messages must have a role and a content"):
            babbler.start([[{"role": "user", "content": "7"}, message]])
    finally:
        characters.chat_template = None


def test_the_same_model_with_other_options_is_not_checked_again_unless_it_has_changed_in_kind(
    llama, monkeypatch
):
    done, check = [], selfcheck.check
    monkeypatch.setattr(selfcheck, "check", lambda model, *how: done.append(model) or check(model, *how))
    babbler = Babbler(llama, span=4)
    greedy = babbler.again(top_k=1, max_new_tokens=40)
    assert greedy.again(engine=greedy.engine).way is greedy.way is babbler.way
    assert done == [llama]
    assert greedy.error == babbler.error
    grown = [grow(each, [[5, 6, 7]], rounds=9, draws=2) for each in (babbler, greedy)]
    assert [babbler.traced, greedy.traced] == [True, True]  # one program for both
    alone = grow(Babbler(llama, span=4, top_k=1, max_new_tokens=40), [[5, 6, 7]], rounds=9, draws=2)
    assert grown[1].tokens.tolist() == alone.tokens.tolist() != grown[0].tokens.tolist()
    done.clear()
    other = copy.deepcopy(llama)
    for changed in ({"model": other}, {"engine": "dense"}, {"pack_bytes": 0}, {"trace": False}):
        assert babbler.again(**changed).way is not babbler.way
    assert done == [other, llama, llama, llama]
    llama.double()
    done.clear()
    assert babbler.again().way is not babbler.way
    assert done == [llama]


def test_weights_that_have_learned_are_seen_through_a_shared_check(llama):
    babbler = Babbler(llama, span=4, max_new_tokens=8)
    again = babbler.again(temperature=0.5)
    grow(again, [[5, 6, 7]])
    with torch.no_grad():
        llama.lm_head.weight.mul_(-1)
    fresh = Babbler(copy.deepcopy(llama), span=4, max_new_tokens=8, temperature=0.5)
    ours, plain = (grow(each, [[5, 6, 7]], seed=3) for each in (again, fresh))
    assert ours.tokens.tolist() == plain.tokens.tolist()
    assert np.allclose(ours.log_p_g, plain.log_p_g, atol=1e-5)
