"""The one kind of console: what users named is printed as it is, never taken for rich's markup or emoji."""

from typing import IO

from rich.console import Console


def plain_console(file: IO[str] | None = None, width: int | None = None) -> Console:
    """Return a console that changes nothing in what it prints; in a notebook it writes lines, as to a file.

    Args:
        file: where to; None: standard output as it is when something is printed.
        width: in characters; None: the terminal's, else 80.
    """
    return Console(file=file, width=width, markup=False, emoji=False, highlight=False, force_jupyter=False)
