"""How long until the first token: imports, the embedded model, and its first forward pass.

Every row is the median over fresh processes with warm file caches; the seconds are those between the two marks that
the row names. Beside ours stands what torch and transformers take for themselves. Left out: models that have to be
fetched or are large.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from common import claim, parser, report

CLOCK = "import time; start = time.perf_counter()\n"
STOP = "\nprint(time.perf_counter() - start)"
THEIRS = "from transformers import AttentionInterface, AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM"
FORWARD = (
    "babbler = Babbler.embedded(); graph = babbler.start(['3 5 7 11>24']); "
    "babbler.next_logits(graph, [0], Meter(Budget(tokens=1), 1))"
)
METER = "from babblegraph.budget import Budget, Meter\n"
PROGRAMS = {
    "torch": CLOCK + "import torch",
    "torch → transformers, as a Llama needs it": "import torch\n" + CLOCK + THEIRS,
    "→ babblegraph": CLOCK + "import babblegraph",
    "→ babblegraph.babble, BabbleGraph": CLOCK + "from babblegraph import BabbleGraph, babble",
    "torch → Babbler": "import torch\n" + CLOCK + "from babblegraph import Babbler",
    "torch, transformers → Babbler": THEIRS + "\n" + CLOCK + "from babblegraph import Babbler",
    "Babbler → first forward": "from babblegraph import Babbler\n" + METER + CLOCK + FORWARD,
    "torch → first forward": "import torch\n" + CLOCK + "from babblegraph import Babbler\n" + METER + FORWARD,
}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--repeats", type=int, default=5)
    chosen = options.parse_args()
    chosen.repeats = 1 if chosen.quick else chosen.repeats
    for program in list(PROGRAMS.values())[-1:]:
        seconds(program)  # warms the file cache
    rows = []
    for name, program in PROGRAMS.items():
        took = [seconds(program) for _ in range(chosen.repeats)]
        rows.append(
            {"from → to": name, "seconds": statistics.median(took), "least": min(took), "most": max(took)}
        )
    found = {row["from → to"]: row["seconds"] for row in rows}
    package, ours = found["→ babblegraph"], found["torch, transformers → Babbler"]
    forward, whole = found["Babbler → first forward"], found["torch → first forward"]
    claims = [
        claim("seconds of import babblegraph", package, "< 0.3", package < 0.3),
        claim("seconds of Babbler beyond torch and transformers", ours, "< 0.3", ours < 0.3),
        claim("seconds from Babbler to the first forward", forward, "< 1", forward < 1),
        claim(
            "seconds from torch to the first forward, transformers' imports included", whole, "< 1", whole < 1
        ),
    ]
    report("Startup, seconds in fresh processes", rows, claims, chosen)


def seconds(program):
    """What one fresh process says that it took."""
    done = subprocess.run([sys.executable, "-c", program + STOP], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    main()
