"""``python -m qvirt_api``"""

import sys

from qvirt_api.main import main

sys.exit(main())
