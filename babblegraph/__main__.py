"""The command `babblegraph`, also as `python -m babblegraph`."""

import signal
import sys

STOPPED = (129, 130, 143)  # by hangup, Ctrl-C, SIGTERM


def main() -> int:
    """Runs the command line; Ctrl-C while it is still being loaded ends it as it does later, in one line.

    Returns:
        The exit status; see `cli.main.main`.
    """
    try:
        from babblegraph.cli.main import main as run

        status = run()
    except KeyboardInterrupt:
        print("babblegraph: interrupted", file=sys.stderr)
        status = 130
    if status in STOPPED:  # that was said: one more Ctrl-C must not break into Python's exit
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return status


if __name__ == "__main__":
    sys.exit(main())
