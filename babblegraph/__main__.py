"""`python -m babblegraph`: the command."""

import sys

from babblegraph.cli.main import main

sys.exit(main())
