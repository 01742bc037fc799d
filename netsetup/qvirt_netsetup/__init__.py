"""Pod network -> bridge -> tap, NAT for a bare host, and DHCP. Knows no QEMU and no API server."""
