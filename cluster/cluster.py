#!/usr/bin/env python3
"""A real single-node Kubernetes on a bare Debian machine; `cluster.py --help` and docs/cluster.md tell how.

Needs nothing but the standard library, so it runs before any virtual environment exists.
"""

import sys

from qvirt_cluster.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
