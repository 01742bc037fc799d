"""``qvirt ssh``: the machine's own OpenSSH client, with a way to the guest."""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import shutil
import subprocess

from qvirt_launcher.cli.port_forward import proxy_command
from qvirt_launcher.cli.ports import address
from qvirt_launcher.cli.where import Remote, locate
from qvirt_launcher.errors import HostError

#: Hosts of clusters have names that other networks may have, too; virtctl's file.
_KNOWN_HOSTS = "~/.ssh/kubevirt_known_hosts"


def run(arguments: argparse.Namespace) -> int:
    """The exit code is ssh's."""
    if shutil.which("ssh") is None:
        raise HostError("ssh: is not installed; apt install openssh-client")
    user, _, arguments.vm = arguments.vm.rpartition("@")
    vm = locate(arguments)
    options = ["-i", arguments.identity] if arguments.identity else []
    if isinstance(vm, Remote):
        host = f"vmi.{vm.name}.{vm.namespace}"
        proxy = shlex.join(proxy_command(arguments, arguments.port)).replace("%", "%%")
        options += ["-o", f"ProxyCommand={proxy}"]
        options += ["-o", f"UserKnownHostsFile={os.path.expanduser(_KNOWN_HOSTS)}"]
        # A guest that was never met has nobody who could vouch for it but the API server, which we have checked.
        options += ["-o", "StrictHostKeyChecking=accept-new"]
    else:
        host, port = asyncio.run(address(vm, arguments.port))
        options += ["-p", str(port), "-o", f"HostKeyAlias={vm.record.namespace}.{vm.record.name}"]
    target = f"{user}@{host}" if user else host
    words = [arguments.line] if arguments.line else []
    return subprocess.run(["ssh", *options, target, *words], check=False).returncode
