"""One Chromium for all tests of a file."""

from collections.abc import Iterator

import pytest
from browsing import open_browser


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with open_browser() as browser:
        yield browser
