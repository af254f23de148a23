"""The command `babblegraph`, also as `python -m babblegraph`."""

import sys


def main() -> int:
    """Runs the command line; Ctrl-C while it is still being loaded ends it as it does later, in one line.

    Returns:
        The exit status; see `cli.main.main`.
    """
    try:
        from babblegraph.cli.main import main as run

        return run()
    except KeyboardInterrupt:
        print("babblegraph: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
