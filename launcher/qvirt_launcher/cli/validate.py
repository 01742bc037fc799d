"""``qvirt validate``: every problem of every file."""

from __future__ import annotations

import argparse
import sys

from qvirt_crds.errors import SpecError
from qvirt_launcher.cli import exits
from qvirt_launcher.cli.manifest import read_manifests


def run(arguments: argparse.Namespace) -> int:
    """Print a line a file that is right, and a line a problem on standard error."""
    code = exits.OK
    for file in arguments.files:
        try:
            manifests = read_manifests(file)
        except SpecError as error:
            for cause in error.causes:
                print(f"qvirt: error: {cause}", file=sys.stderr)
            code = exits.REFUSED
            continue
        found = [
            f"{vm.metadata.namespace or 'default'}/{vm.metadata.name}" for vm in manifests.instances
        ]
        print(f"{file}: valid: {', '.join(found) or 'no VM in it'}")
    return code
