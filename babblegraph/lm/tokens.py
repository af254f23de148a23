"""The bytes of tokens, so that a graph can be read without its tokenizer and stop strings can cross tokens."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TokenBytes(dict[int, bytes]):
    """The bytes of every token id of a tokenizer, worked out when first asked for.

    Byte-level BPE (GPT-2, Llama 3, Qwen), SentencePiece pieces with byte fallback (Llama 2, Mistral, Gemma) and
    plain pieces are told apart by the tokenizer's own decoder; special tokens have no bytes.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder
        self._special = {*tokenizer.all_special_ids, *(i for i, token in added.items() if token.special)}
        backend = getattr(tokenizer, "backend_tokenizer", None)
        decoder = json.loads(backend.to_str())["decoder"] if backend is not None else None
        self._decoder = json.dumps(decoder, ensure_ascii=False)

    def __missing__(self, token: int) -> bytes:
        self[token] = data = b"" if token in self._special else self._bytes(token)
        return data

    def _bytes(self, token: int) -> bytes:
        piece = self._tokenizer.convert_ids_to_tokens(token)
        if piece is None:  # the model's vocabulary is larger than the tokenizer's
            return b""
        if token in self._tokenizer.added_tokens_decoder:
            return piece.encode()
        if '"ByteLevel"' in self._decoder:
            return b"".join(bytes([_BYTE_OF[c]]) if c in _BYTE_OF else c.encode() for c in piece)
        if "▁" in self._decoder or '"Metaspace"' in self._decoder:
            if byte := re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", piece):
                return bytes([int(byte[1], 16)])
            return piece.replace("▁", " ").encode()
        if '"Fuse"' in self._decoder or self._decoder == "null":
            return piece.encode()
        return self._tokenizer.decode([token]).encode()


class TokenNumbers(dict[int, bytes]):
    """What stands for tokens where there is no tokenizer: their numbers, each with a space behind it.

    >>> TokenNumbers()[17]
    b'17 '
    """

    def __missing__(self, token: int) -> bytes:
        self[token] = data = f"{token} ".encode()
        return data


def _bytes_of_characters() -> dict[str, int]:
    """GPT-2's table: printable bytes stand for themselves, the others for characters from U+0100 on."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


_BYTE_OF = _bytes_of_characters()
