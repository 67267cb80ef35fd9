"""The names by which a sweep file calls distributions: those of W&B."""

from collections.abc import Mapping

DISTRIBUTIONS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "constant": (("value",), ()),
    "categorical": (("values",), ()),
    "uniform": (("min", "max"), ()),
    "int_uniform": (("min", "max"), ()),
    "log_uniform_values": (("min", "max"), ()),
    "log_uniform": (("min", "max"), ()),
    "q_uniform": (("min", "max"), ("q",)),
    "q_log_uniform_values": (("min", "max"), ("q",)),
    "normal": ((), ("mu", "sigma")),
    "log_normal": ((), ("mu", "sigma")),
    "q_normal": ((), ("mu", "sigma", "q")),
    "q_log_normal": ((), ("mu", "sigma", "q")),
}
"""Distribution -> the keys that it must have, and those that it may have."""
