"""Vega, Vega-Lite and vega-embed as one script: it lies beside this file, so that a page needs nothing else.

    python -m segbench.report.library     # make it again, with the vl-convert of the extra [figures]

All three are BSD 3-Clause (vega_license.txt).
"""

import gzip
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

FILE = "vega.js.gz"


@lru_cache(maxsize=1)
def library() -> str:
    """Return the script; it sets ``window.vegaEmbed``."""
    return gzip.decompress((files("segbench.report") / FILE).read_bytes()).decode()


def bundle() -> str:
    """Return the script as the installed vl-convert makes it, fit to stand within a page; takes seconds."""
    import vl_convert

    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")).replace("</script", "<\\/script")


if __name__ == "__main__":
    Path(__file__).with_name(FILE).write_bytes(gzip.compress(bundle().encode(), 9, mtime=0))
