"""The exception tree of segbench.

    SegbenchError               anything that segbench raises on purpose; exit code 1
    ├── DiskFullError           nothing more can be written; what was written is whole
    │   └── StorageError        the bucket refuses, or does not answer
    ├── UserError               the user can mend it: message without traceback; exit code 2
    │   ├── SpecError           the sweep file: names file, line and key
    │   ├── DataError           the data set: names the file that is wrong
    │   ├── CheckpointError     a checkpoint that is missing, damaged or of another model
    │   └── StateError          the output folder holds something else
    └── TrialError              a trial ends as FAIL; the sweep goes on
        └── NonFiniteError      loss or metric is NaN or infinite

Every message says what was given, what is allowed, and what to do next.
"""


class SegbenchError(Exception):
    """Base of everything that segbench raises on purpose."""

    exit_code = 1


class DiskFullError(SegbenchError):
    """Nothing more can be written; what was written is whole, and the same command continues."""


class StorageError(DiskFullError):
    """The bucket refuses or does not answer; what is in it is whole, and the same command continues."""


class UserError(SegbenchError):
    """A mistake the user can mend; shown without traceback."""

    exit_code = 2


class SpecError(UserError):
    """The sweep file is wrong; the message begins with ``file:line key:``."""


class DataError(UserError):
    """The data set is missing, empty or damaged."""


class CheckpointError(UserError):
    """A checkpoint cannot be read, or belongs to another model."""


class StateError(UserError):
    """The output folder holds another sweep, or is in use."""


class TrialError(SegbenchError):
    """A trial cannot go on; it is recorded as FAIL and the sweep continues."""


class NonFiniteError(TrialError):
    """The loss or the searched metric became NaN or infinite."""
