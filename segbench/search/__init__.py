"""Which configuration next, which trial stops: no ray, no torch."""
