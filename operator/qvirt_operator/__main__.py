"""``python -m qvirt_operator``."""

from qvirt_operator.main import main

if __name__ == "__main__":
    raise SystemExit(main())
