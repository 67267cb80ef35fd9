"""Imported by the worker processes of a Ray on this machine: brings what a trial needs before there is one.

Importing torch and transformers makes a million objects that stay. The garbage collector would look at them again and
again, a fifth of the time that the imports take; afterwards it need not look at them at all.
"""

import gc
import importlib
import os
from contextlib import suppress

gc.disable()
for _name in os.environ.get("SEGBENCH_PRELOAD", "").split(","):
    with suppress(Exception):  # a module that cannot be imported is told by the trial that needs it
        importlib.import_module(_name)
gc.freeze()
gc.enable()
