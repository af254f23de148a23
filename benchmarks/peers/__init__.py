"""One small adapter for every decoder that `throughput.py` compares, and the work that all of them do."""

from __future__ import annotations

from importlib import import_module

from .work import Peer, Setting, failure

HOMES = {  # name in the table: module and class; the order is that of the table
    "babblegraph": "ours.Ours",
    "babblegraph unpacked": "ours.Unpacked",
    "babblegraph untraced": "ours.Untraced",
    "babblegraph, compiled": "ours.Compiled",  # on a GPU only
    "generate": "generate.Generate",
    "generate+cache": "generate.CacheKept",
    "generate+beams": "generate.Beams",
    "generate_batch": "continuous.GenerateBatch",
    "genlm-control": "genlm_control.GenlmControl",
    "its-hub": "its_hub.ItsHub",
    "llm-reasoners": "llm_reasoners.LLMReasoners",
    "CTranslate2": "ctranslate.CTranslate",
    "llama.cpp": "llama_cpp.LlamaCpp",
}


def load(name: str, setting: Setting) -> Peer | str:
    """The adapter of a decoder, ready to run; or the reason why there is none."""
    module, kind = HOMES[name].split(".")
    try:
        made: Peer = getattr(import_module(f".{module}", __name__), kind)(setting)
    except ImportError as problem:
        return f"not installed ({problem.name or problem})"
    except Exception as problem:  # a peer that cannot take this model must not end the benchmark
        return failure(problem, setting.folder, 200)
    return made
