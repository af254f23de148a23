"""What the tests share: one thread, small models made here, and a language model small enough to enumerate."""

from __future__ import annotations

import os
import shutil

if shutil.which("nvidia-smi") is None:
    os.environ.setdefault(
        "TRITON_INTERPRET", "1"
    )  # before anything imports triton, where it is installed at all


import numpy as np
import pytest
import torch
from hypothesis import settings
from table_lm import TableLM
from tiny_models import byte_tokenizer, character_tokenizer, tiny_llama

settings.register_profile("fixed", deadline=None, derandomize=True)  # machines are noisy, seeds are not
settings.load_profile("fixed")
torch.set_num_threads(1)  # tiny models: threads only wait for each other, badly so on a busy machine


@pytest.fixture(scope="session")
def characters():
    """A fast character-level tokenizer, without spaces between decoded tokens."""
    return character_tokenizer()


@pytest.fixture(scope="session")
def bpe():
    """A small byte-level BPE tokenizer, trained here."""
    return byte_tokenizer()


@pytest.fixture
def llama(characters):
    """A small random Llama over the character tokenizer."""
    return tiny_llama(characters)


@pytest.fixture
def table():
    """A random table language model: 3 tokens, texts of 4."""
    return TableLM(vocabulary=3, length=4, seed=5)


@pytest.fixture
def rng():
    return np.random.default_rng(0)
