"""The bytes of token ids: what they spell is what was tokenised, whatever the tokenizer."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import CHARACTERS, STORIES, byte_tokenizer, character_tokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from babblegraph.born import Born
from babblegraph.graph import BabbleGraph
from babblegraph.lm.tokens import TokenBytes

BYTES = [f"<0x{i:02X}>" for i in range(256)]
BPE, WORDS = byte_tokenizer(), character_tokenizer()


def pieces_tokenizer(kind):
    """SentencePiece-like: ▁ for spaces, single bytes for what has no piece; as Llama 2 or as newer converters."""
    special = ["<unk>", "<s>", "</s>"]
    core = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=[*special, *BYTES])
    core.train_from_iterator([s.replace("🙂", "").replace("日本語", "") for s in STORIES], trainer)
    vocabulary = core.get_vocab()
    if kind == "unigram":
        scored = [(piece, -float(i)) for piece, i in sorted(vocabulary.items(), key=lambda x: x[1])]
        core = Tokenizer(models.Unigram(scored, unk_id=0, byte_fallback=True))
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
        core.decoder = decoders.Sequence(
            [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="never", split=False)]
        )
    else:
        # the trainer made the bytes special; here they are plain pieces
        model = json.loads(core.to_str())["model"]
        merges = [tuple(m) for m in model["merges"]]
        core = Tokenizer(
            models.BPE(model["vocab"], merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
        )
        core.normalizer = normalizers.Replace(" ", "▁")
        core.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def spelled(tokenizer, text):
    vocabulary = TokenBytes(tokenizer)
    return b"".join(vocabulary[i] for i in tokenizer(text, add_special_tokens=False)["input_ids"])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.text(max_size=40))
def test_byte_level_tokens_spell_any_text(text):
    assert spelled(BPE, text) == text.encode()


ODD = ["a\n\n b\tc", "naïve café", "漢字かな한국어", "👩‍👩‍👧 🙂🙂", "\x00\x7f", " lead"]


@pytest.mark.parametrize("text", [*STORIES, *ODD])
@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_pieces_and_single_bytes_spell_the_text(kind, text):
    tokenizer = pieces_tokenizer(kind)
    assert spelled(tokenizer, text) == text.encode()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.unk_token_id not in ids


def test_one_piece_can_be_several_bytes_and_one_character_several_tokens():
    ids = pieces_tokenizer("bpe")("🙂", add_special_tokens=False)["input_ids"]
    assert len(ids) == 4
    assert [TokenBytes(pieces_tokenizer("bpe"))[i] for i in ids] == [bytes([b]) for b in "🙂".encode()]


def test_characters_spell_themselves():
    assert spelled(WORDS, CHARACTERS) == CHARACTERS.encode()


@pytest.mark.parametrize("tokenizer", [BPE, WORDS, pieces_tokenizer("bpe"), pieces_tokenizer("unigram")])
def test_special_tokens_have_no_bytes(tokenizer):
    vocabulary = TokenBytes(tokenizer)
    assert tokenizer.all_special_ids
    assert all(vocabulary[i] == b"" for i in tokenizer.all_special_ids)


def test_added_tokens_have_bytes_unless_they_are_special():
    tokenizer = byte_tokenizer()
    core = tokenizer.backend_tokenizer
    core.add_tokens([AddedToken("<plain café>", special=False)])
    core.add_special_tokens([AddedToken("<|reserved_7|>", special=True)])  # as Llama 3 has hundreds of
    plain, reserved = (core.token_to_id(t) for t in ("<plain café>", "<|reserved_7|>"))
    vocabulary = TokenBytes(tokenizer)
    assert vocabulary[plain] == "<plain café>".encode()
    assert vocabulary[reserved] == b""


def test_ids_beyond_the_tokenizer_have_no_bytes():
    """Models round their vocabularies up; such ids can be drawn."""
    assert TokenBytes(BPE)[len(BPE) + 5] == b""


def grown_by_one_token_a_node(text):
    ids = BPE(text)["input_ids"]
    graph = BabbleGraph(["p"], [BPE("p")["input_ids"]], TokenBytes(BPE))
    for parent, token in enumerate(ids):
        graph.add(Born.of_spans([parent], spans=[[token]], log_q=[-1.0]))
    return graph, ids


@pytest.mark.parametrize("text", ["🙂", "a漢🙂b", "é漢字"])
def test_a_character_over_several_nodes_shows_when_it_is_complete(text):
    graph, ids = grown_by_one_token_a_node(text)
    assert len(ids) > len(text)
    texts = [graph.text(i) for i in range(1, graph.size)]
    assert texts[-1] == text
    assert all(text.startswith(t) for t in texts), "never half a character"
    assert "\ufffd" not in "".join(texts)


def test_bytes_that_are_no_character_become_a_replacement():
    stray = BPE("漢")["input_ids"][1]
    graph = BabbleGraph(["p"], [[0]], TokenBytes(BPE))
    graph.add(Born.of_spans([0], spans=[[stray, *BPE("ok")["input_ids"]]], log_q=[-1.0]))
    assert graph.text(1) == "\ufffdok"


def test_nodes_of_any_cut_put_together_the_text():
    text, draw = STORIES[1], np.random.default_rng(0)
    ids = BPE(text)["input_ids"]
    for _ in range(10):
        cuts = np.sort(draw.choice(np.arange(1, len(ids)), 6, replace=False))
        graph = BabbleGraph(["p"], [[0]], TokenBytes(BPE))
        for parent, span in enumerate(np.split(np.array(ids), cuts)):
            graph.add(Born.of_spans([parent], spans=[span.tolist()], log_q=[-1.0]))
        assert graph.text(graph.size - 1) == text
