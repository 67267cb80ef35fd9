"""``python -m segbench VERB``: the ``segbench`` command of this interpreter."""

from segbench.cli import main

if __name__ == "__main__":
    main(program="python -m segbench")
