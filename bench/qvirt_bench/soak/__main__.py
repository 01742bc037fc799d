"""`python -m qvirt_bench.soak`."""

from __future__ import annotations

import sys

from qvirt_bench.soak.cli import main

sys.exit(main())
