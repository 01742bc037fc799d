"""The contract: every type that two qvirt processes must agree on.

Pure data, no I/O. The rooms above (`qvirt_qmp` excepted, which knows no VM) decode and encode these
structs and nothing else.
"""
