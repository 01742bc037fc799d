"""Brings up, inspects and removes a real single-node Kubernetes (not part of what qvirt installs)."""
