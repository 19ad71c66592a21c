"""What `prepare` and `init` have to say."""

import sys


def say(text: str) -> None:
    """Write a line for whoever reads the container's log, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
