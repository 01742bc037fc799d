#!/usr/bin/env python3
"""Build guest disks and their container images; see `build.py --help`."""

from __future__ import annotations

import sys

from qvirt_images.cli import main

if __name__ == "__main__":
    sys.exit(main())
