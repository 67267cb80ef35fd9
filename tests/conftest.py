"""Settings of all tests."""

from hypothesis import settings

# the same examples every time, and no test depends on how fast the machine is
settings.register_profile("segbench", deadline=None, derandomize=True)
settings.load_profile("segbench")
