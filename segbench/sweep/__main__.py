"""``python -m segbench.sweep FILE``: the same as ``segbench sweep FILE``."""

import sys

from segbench.cli import main

if __name__ == "__main__":
    main(["sweep", *sys.argv[1:]], program="python -m segbench.sweep")
