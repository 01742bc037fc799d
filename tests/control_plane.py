"""`qvirt_cluster.control_plane` for tests: skipped where there are no programs for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from qvirt_cluster import control_plane as alone
from qvirt_cluster.control_plane import ApiServer, NoPrograms, free_ports

__all__ = ["ApiServer", "control_plane", "free_ports"]


@contextmanager
def control_plane(state: Path, service_accounts: Sequence[str] = ()) -> Iterator[ApiServer]:
    """See there."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(alone.control_plane(state, service_accounts))
        except NoPrograms as error:
            pytest.skip(str(error))
        yield server
