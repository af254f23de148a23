"""llama.cpp through llama-cpp-python: the same weights as GGUF, driven by the low-level interface."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from typing import Any, ClassVar

import gguf
import llama_cpp
import numpy as np
import torch

from .machine import Shape
from .work import Peer, Run, Setting, Work, logit_error

MOST = 256  # sequences that it can hold


class LlamaCpp(Peer):
    """One unified cache: a prompt is read once, sequences share its cells, a fork copies no keys and values.

    All in fp32, the cache too; without its flash attention, which rounds to fp16 and is no faster here. Sampling
    is torch's, on its logits. Its cells hold every unique token once, and every row reads all of them; a cache of
    its own for each row (`kv_unified = False`) was slower at every size.
    """

    forks: ClassVar[bool] = True

    def __init__(self, setting: Setting) -> None:
        self.setting, self.kv_bytes = setting, Shape.of(setting.model).kv_bytes
        path = setting.folder / "model.gguf"
        if not path.exists():
            write_gguf(setting.model, path)
        llama_cpp.llama_log_set(_silent, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(
            str(path).encode(), llama_cpp.llama_model_default_params()
        )
        if not self.model:
            raise RuntimeError("llama.cpp could not load the model")
        self.vocabulary = setting.model.config.vocab_size

    def run(self, work: Work, check: bool) -> Run:
        draw = torch.Generator().manual_seed(work.seed)
        context = self._context(work)
        memory = llama_cpp.llama_get_memory(context)
        batch = llama_cpp.llama_batch_init(max(512, work.rows), 0, 1)
        try:
            start, before, rows = time.perf_counter(), len(work.prompt), np.arange(work.rows)
            logits = self._prefill(context, batch, work.prompt).expand(work.rows, -1)
            for row in rows[1:]:
                llama_cpp.llama_memory_seq_cp(memory, 0, int(row), -1, -1)
            prefill, texts = time.perf_counter() - start, np.zeros((work.rows, 0), np.int64)
            for level in range(work.levels):
                if level:
                    origins = work.origins(level)
                    rows = _fork(memory, rows, origins)
                    texts, logits = texts[origins], logits[torch.as_tensor(origins)]
                for step in range(work.span):
                    tokens = torch.multinomial(logits.softmax(-1), 1, generator=draw)[:, 0].numpy()
                    texts = np.c_[texts, tokens]
                    last = (level, step) == (work.levels - 1, work.span - 1)
                    if check or not last:  # nobody asks for what follows the last token
                        logits = self._step(context, batch, tokens, rows, before + texts.shape[1] - 1)
            seconds = time.perf_counter() - start
            error = None
            if check:
                whole = [[*work.prompt, *text] for text in texts[:4].tolist()]
                error = logit_error(self.setting.model, whole, logits[:4])
        finally:
            llama_cpp.llama_batch_free(batch)
            llama_cpp.llama_free(context)
        return Run(
            sampled=texts.size if work.levels == 1 else work.tokens,
            seconds=seconds,
            prefill=prefill,
            steps=work.levels * work.span - (not check),
            kv_bytes=work.unique_tokens() * self.kv_bytes,
            error=error,
        )

    def _context(self, work: Work) -> Any:
        options = llama_cpp.llama_context_default_params()
        cells = work.unique_tokens() + work.rows
        options.n_ctx = cells + -cells % 256
        options.n_batch = options.n_ubatch = max(512, work.rows)
        options.n_seq_max = min(MOST, 2 * work.rows)
        options.n_threads = options.n_threads_batch = self.setting.threads
        options.kv_unified, options.flash_attn_type = True, 0
        options.type_k = options.type_v = 0  # fp32, as all others
        context = llama_cpp.llama_init_from_model(self.model, options)
        if not context:
            raise RuntimeError("llama.cpp could not make room for this work")
        return context

    def _prefill(self, context: Any, batch: Any, prompt: tuple[int, ...]) -> torch.Tensor:
        for first in range(0, len(prompt), 512):
            part = prompt[first : first + 512]
            last = first + len(part) == len(prompt)
            _fill(batch, part, [0] * len(part), range(first, first + len(part)), only_last=True)
            logits = self._decode(context, batch, 1)
        if not last:
            raise RuntimeError("an empty prompt")
        return logits

    def _step(self, context: Any, batch: Any, tokens: Any, rows: Any, position: int) -> torch.Tensor:
        _fill(batch, tokens.tolist(), rows.tolist(), [position] * len(rows), only_last=False)
        return self._decode(context, batch, len(rows))

    def _decode(self, context: Any, batch: Any, rows: int) -> torch.Tensor:
        if status := llama_cpp.llama_decode(context, batch):
            raise RuntimeError(f"llama_decode gave {status}")
        flat = np.ctypeslib.as_array(llama_cpp.llama_get_logits(context), (rows * self.vocabulary,))
        return torch.from_numpy(flat.reshape(rows, -1).copy())


def _fork(memory: Any, rows: np.ndarray, origins: np.ndarray) -> np.ndarray:
    """Children take the half of the sequence numbers that is free; the parents' numbers are given up."""
    free = np.arange(len(rows)) + (0 if rows[0] >= len(rows) else len(rows))
    for child, parent in zip(free.tolist(), rows[origins].tolist(), strict=True):
        llama_cpp.llama_memory_seq_cp(memory, parent, child, -1, -1)
    for row in rows.tolist():
        llama_cpp.llama_memory_seq_rm(memory, row, -1, -1)
    return free


def _fill(batch: Any, tokens: Any, rows: Any, positions: Any, only_last: bool) -> None:
    batch.n_tokens = len(tokens)
    for i, (token, row, position) in enumerate(zip(tokens, rows, positions, strict=True)):
        batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, position, 1
        batch.seq_id[i][0] = row
        batch.logits[i] = not only_last or i == len(tokens) - 1


@llama_cpp.llama_log_callback
def _silent(_level: int, _text: bytes, _data: Any) -> None:
    """It logs every tensor that it loads."""


def write_gguf(model: Any, path: Path) -> None:
    """A transformers Llama as fp32 GGUF, without a tokenizer: tokens go in and out as ids."""
    c = model.config
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_block_count(c.num_hidden_layers)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_key_length(c.head_dim)
    writer.add_value_length(c.head_dim)
    writer.add_rope_dimension_count(c.head_dim)
    writer.add_rope_freq_base(c.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    writer.add_vocab_size(c.vocab_size)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("none")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, c.num_hidden_layers)
    for name, weight in model.named_parameters():
        data = weight.detach().numpy()
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = c.num_attention_heads if "q_proj" in name else c.num_key_value_heads
            data = _interleaved(data, heads)
        writer.add_tensor(names.get_name(name, (".weight",)), np.ascontiguousarray(data))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """GGUF rotates neighbouring dimensions, transformers rotates halves."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)
