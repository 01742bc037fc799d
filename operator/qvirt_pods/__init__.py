"""Launcher pods: what the controller creates in a cluster, and what `qvirt pod` writes for nodes without one."""
