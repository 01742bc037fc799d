"""One VM, one QEMU: the virt-launcher process, and the `qvirt` command that runs it without a cluster."""
