#!/bin/sh
# The page at /: what this guest is and where it can be reached.
. /lib/qvirt/lib
printf 'Content-Type: text/plain\r\n\r\n'
echo "qvirt demo guest"
echo "hostname: $(hostname)"
echo "instance-id: $(cat "$WWW/instance-id" 2>/dev/null)"
addresses | sed 's/^/address: /'
echo "kernel: $(uname -r) $(uname -m)"
echo "memory: $(awk '/MemTotal/ { print $2 }' /proc/meminfo) KiB"
echo "uptime: $(cut -d' ' -f1 /proc/uptime)"
