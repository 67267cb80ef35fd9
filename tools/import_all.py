"""Import every module of the installed segbench; those that need torch are counted where there is none.

    python tools/import_all.py [package that may be missing ...]      # default: torch

Exits with 1 if a module cannot be imported for another reason.
"""

import importlib
import pkgutil
import sys

import segbench

MAY_BE_MISSING = set(sys.argv[1:]) or {"torch"}


def main() -> int:
    """Return the exit code."""
    done, needing = 0, 0
    names = [module.name for module in pkgutil.walk_packages(segbench.__path__, "segbench.", onerror=lambda _: None)]
    for name in names:
        if name.endswith("__main__"):
            continue  # runs the command
        try:
            importlib.import_module(name)
            done += 1
        except ModuleNotFoundError as error:
            if error.name is None or error.name.split(".")[0] not in MAY_BE_MISSING:
                print(f"{name}: {error}", file=sys.stderr)
                return 1
            needing += 1
    print(f"{done} modules imported, {needing} need {' or '.join(sorted(MAY_BE_MISSING))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
