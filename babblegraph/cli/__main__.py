"""`python -m babblegraph.cli` is the command `babblegraph`."""

import sys

from babblegraph.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
