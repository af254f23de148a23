"""CTranslate2: the same weights in its own format, run by its own kernels."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import ClassVar

import ctranslate2
import numpy as np
import torch
from ctranslate2.converters import TransformersConverter

from .machine import Shape
from .models import END
from .work import CHILDREN, Peer, Run, Setting, Work, logit_error


class CTranslate(Peer):
    """`generate_batch` in fp32; a prompt is read once for all of its rows, a fork starts again.

    The end of text is forbidden by a minimum length. It shows no logits on the way and no cache; each row has
    its own, so its size is the arithmetic of rows × length.
    """

    forks: ClassVar[bool] = True

    def __init__(self, setting: Setting) -> None:
        self.setting, self.kv_bytes = setting, Shape.of(setting.model).kv_bytes
        folder = setting.folder / "ctranslate2"
        if not folder.exists():
            TransformersConverter(str(setting.folder)).convert(str(folder))
            _fill_nulls(folder / "config.json")
        self.generator = ctranslate2.Generator(
            str(folder), compute_type="float32", inter_threads=1, intra_threads=setting.threads
        )
        tokenizer = type(setting.tokenizer).from_pretrained(setting.folder)
        self.pieces = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        self.ids = {piece: i for i, piece in enumerate(self.pieces)}

    def run(self, work: Work, check: bool) -> Run:
        ctranslate2.set_random_seed(work.seed + 1)
        start, prefill = time.perf_counter(), 0.0
        texts, copies = [[self.pieces[i] for i in work.prompt]], work.rows
        for level in range(work.levels):
            if level:
                texts, copies = [texts[i] for i in work.survivors(level - 1)], CHILDREN
            begun = time.perf_counter()
            self._sample(texts, copies, 1)  # once more for the clock alone, and taken off below
            prefill += time.perf_counter() - begun
            texts = self._sample(texts, copies, work.span)
        seconds = time.perf_counter() - start - prefill
        longest = len(work.prompt) + work.levels * work.span
        if [len(text) for text in texts] != [longest] * work.rows:
            raise RuntimeError(f"{work.rows} rows of {longest} tokens were wanted, got {len(texts)}")
        return Run(
            sampled=work.tokens,
            seconds=seconds,
            prefill=prefill,
            steps=work.levels * (work.span - 1),
            kv_bytes=work.rows * (longest - 1) * self.kv_bytes,
            error=self._error(texts[:2]) if check else None,
            restarts=True,
        )

    def _sample(self, texts: list[list[str]], copies: int, span: int) -> list[list[str]]:
        found = self.generator.generate_batch(
            texts, num_hypotheses=copies, max_length=span, min_length=span, sampling_topk=0,
            sampling_temperature=1.0, include_prompt_in_result=False,
        )  # fmt: skip
        return [text + row for text, each in zip(texts, found, strict=True) for row in each.sequences]

    def _error(self, texts: list[list[str]]) -> float:
        """Of its plain forward pass, the only logits that it shows."""
        logits = np.array(self.generator.forward_batch(texts))[:, -1]
        ids = [[self.ids[piece] for piece in text] for text in texts]
        return logit_error(self.setting.model, ids, torch.as_tensor(logits))


def _fill_nulls(path: Path) -> None:
    """It wants a name for every special token; this tokenizer has only two."""
    config = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({k: END if v is None else v for k, v in config.items()}), "utf-8")
