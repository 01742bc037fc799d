"""``python -m qvirt_netsetup``"""

from __future__ import annotations

import sys

from qvirt_netsetup.main import main

sys.exit(main())
