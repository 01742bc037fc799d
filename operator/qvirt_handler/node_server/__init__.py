"""What virt-api asks of a node about its guests: consoles, screens and buttons, over HTTPS with certificates on both sides.

The way of a console: client -> kube-apiserver -> virt-api -> here -> the launcher's socket. No port of QEMU is on the network.
"""
