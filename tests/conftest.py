"""Settings of all tests, and what several folders of them share."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

# the same examples every time, and no test depends on how fast the machine is
settings.register_profile("segbench", deadline=None, derandomize=True)
settings.load_profile("segbench")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread: bit-exact, and faster for models this small."""
    import torch  # seconds, which most tests need not wait for

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
