"""Errors as a user reads them: one line each with object, cause and remedy, and the exit code that goes with it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Final

from qvirt_crds.errors import QvirtError, SpecError
from qvirt_launcher import errors
from qvirt_launcher.cli import exits
from qvirt_netsetup.errors import NetworkError
from qvirt_qmp.errors import QmpError

#: The first class that fits decides.
_CODES: Final[Mapping[type[Exception], int]] = {
    SpecError: exits.REFUSED,
    errors.UsageError: exits.USAGE,
    errors.NotRunning: exits.FAILED,
    errors.HostError: exits.HOST,
    NetworkError: exits.HOST,
}


def exit_code(error: QvirtError | QmpError) -> int:
    """The code for an error that ended the command."""
    for kind, code in _CODES.items():
        if isinstance(error, kind):
            return code
    return exits.FAILED


def show(error: QvirtError | QmpError) -> None:
    """Print the error on standard error."""
    print("\n".join(lines(error)), file=sys.stderr, flush=True)


def lines(error: QvirtError | QmpError) -> list[str]:
    """One line; of a manifest with several problems, a headline and one line each."""
    if isinstance(error, SpecError) and len(error.causes) > 1:
        listed = [f"  {cause}" for cause in error.causes]
        return [f"qvirt: error: the manifest has {len(error.causes)} problems:", *listed]
    return [f"qvirt: error: {' '.join(str(error).split(chr(10)))}"]
