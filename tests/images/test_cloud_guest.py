"""The full Debian guest on the real QEMU: cloud-init, ssh, guest agent."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.images.conftest import Boot, disk, iso, nic, seed

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.guest,
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.timeout(1500),
]

SLOW = 600.0


def _agent(path: Path, command: str, **arguments: Any) -> Any:
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(60)
        channel.connect(str(path))
        channel.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        with channel.makefile("rb") as lines:
            return json.loads(lines.readline())["return"]


@pytest.mark.skipif(shutil.which("ssh") is None, reason="ssh is not installed")
@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_cloud_init_ssh_and_agent(
    boot: Boot, cloud_guest: Path, tmp_path: Path, firmware: str
) -> None:
    private = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", private], check=True)
    public = private.with_suffix(".pub").read_text().strip()
    user_data = f"#cloud-config\nssh_authorized_keys:\n  - {public}\nruncmd:\n  - touch /run/made\n"
    meta_data = '{"instance-id": "one", "local-hostname": "cloudy"}'
    image = iso(tmp_path, "cidata", {"meta-data": meta_data, "user-data": user_data})
    pflash = []
    if firmware == "uefi":
        shutil.copy("/usr/share/OVMF/OVMF_VARS_4M.fd", tmp_path / "vars.fd")
        code = "if=pflash,unit=0,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd"
        variables = f"if=pflash,unit=1,format=raw,file={tmp_path / 'vars.fd'}"
        pflash = ["-drive", code, "-drive", variables]
    agent = tmp_path / "agent.sock"
    guest = boot(
        *("-machine", "q35", "-smp", "2", "-m", "size=1G", *pflash),
        *disk(cloud_guest / "cloud-guest.qcow2"),
        *seed(image),
        *nic(),
        *("-device", "virtio-serial-pci"),
        *("-chardev", f"socket,id=agent,path={agent},server=on,wait=off"),
        *("-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"),
    )
    guest.wait_for("cloudy login: ", SLOW)
    guest.wait_for(r"Cloud-init .* finished at .* Datasource DataSourceNoCloud", SLOW)
    options = ["-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={tmp_path / 'known'}"]
    command = ["ssh", *options, "-o", "BatchMode=yes", "-i", str(private), "-p"]
    done = subprocess.run(
        [*command, str(guest.port(22)), "debian@127.0.0.1", "hostname && ls /run/made"],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.stdout == "cloudy\n/run/made\n", done.stderr
    assert _agent(agent, "guest-get-host-name") == {"host-name": "cloudy"}
    interfaces = _agent(agent, "guest-network-get-interfaces")
    addresses = [a["ip-address"] for nic in interfaces for a in nic.get("ip-addresses", [])]
    assert "10.0.2.15" in addresses
    guest.qmp("system_powerdown")
    assert guest.ended(SLOW) == 0
