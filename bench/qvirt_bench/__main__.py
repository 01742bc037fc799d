"""`python -m qvirt_bench`."""

from __future__ import annotations

import sys

from qvirt_bench.cli import main

sys.exit(main())
