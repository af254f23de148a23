"""`python -m babblegraph.cli` is the command `babblegraph`."""

import sys

from babblegraph.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
