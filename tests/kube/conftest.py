"""An API server with nothing in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.control_plane import ApiServer, control_plane


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """For the administrator alone."""
    with control_plane(tmp_path_factory.mktemp("apiserver")) as server:
        yield server
