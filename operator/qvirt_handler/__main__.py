"""``python -m qvirt_handler``."""

import sys

from qvirt_handler.main import main

sys.exit(main())
