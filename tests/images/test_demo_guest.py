"""The demo guest on the real QEMU: boots, answers, obeys its seed and its power button."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from tests.images.conftest import SEED_MEMORY, Boot, Guest, disk, iso, nic, seed

pytestmark = [pytest.mark.qemu, pytest.mark.guest]

KEY = "ssh-rsa AAAAB3NzaK8L93bWxnyp test@test.com"
# As the article has it: misspelt, and without the #cloud-config header.
SEED_USER_DATA = f"ssh-authorized-keys:\n  - {KEY}\n"
META_DATA = '{"instance-id": "5d307ca9-b3ef-428c-8861-06e72d69f223", "local-hostname": "myvm"}'
OVMF = Path("/usr/share/OVMF")


def _seed_iso(directory: Path, user_data: str, meta_data: str = META_DATA) -> list[str]:
    return seed(iso(directory, "cidata", {"meta-data": meta_data, "user-data": user_data}))


def _booted(boot: Boot, built: Path, *arguments: str) -> Guest:
    return boot(
        *("-machine", "q35", "-m", f"size={SEED_MEMORY}", *disk(built / "demo-guest.qcow2")),
        *nic(),
        *arguments,
    )


def test_the_seeds_manifest_in_64_million_bytes(
    boot: Boot, demo_guest: Path, tmp_path: Path
) -> None:
    guest = _booted(boot, demo_guest, *_seed_iso(tmp_path, SEED_USER_DATA))
    guest.wait_for("Linux version 6")
    guest.wait_for(r"seed: NoCloud on /dev/vdb, instance 5d307ca9-\S+, host myvm, 1 ssh key")
    guest.wait_for("myvm login: ")
    guest.wait_for(r"eth0: address 10\.0\.2\.15/24 gateway 10\.0\.2\.2 mtu 1500")
    guest.wait_for(r"data: /dev/vda2 on /data, boot 1")
    page = guest.http("/")
    assert "hostname: myvm\n" in page
    assert "address: eth0 10.0.2.15/24\n" in page
    assert guest.http("/authorized_keys") == KEY + "\n"
    assert guest.http("/user-data") == SEED_USER_DATA
    assert guest.http("/meta-data") == META_DATA
    assert guest.http("/hostname") == "myvm\n"
    assert float(guest.http("/uptime")) > 0
    with socket.create_connection(("127.0.0.1", guest.port(7)), timeout=20) as echo:
        echo.sendall(b"hello\n")
        assert echo.recv(100) == b"hello\n"
    guest.qmp("system_powerdown")
    guest.wait_for(r"power button pressed \(power off\)")
    assert guest.ended() == 0


def test_the_console_is_a_root_shell_and_poweroff_ends_it(boot: Boot, demo_guest: Path) -> None:
    guest = _booted(boot, demo_guest)
    guest.wait_for("boot 1 of this disk")
    guest.login()
    assert guest.command("id -u") == "0\n"
    assert int(re.findall(r"\d+", guest.command("grep MemTotal /proc/meminfo"))[0]) < 62500
    assert guest.command("cat /data/boots") == "1\n"
    guest.type("poweroff")
    assert guest.ended() == 0


def test_reboot_keeps_data(boot: Boot, demo_guest: Path) -> None:
    guest = _booted(boot, demo_guest)
    guest.wait_for("boot 1 of this disk")
    guest.login()
    guest.type("reboot")
    guest.wait_for("boot 2 of this disk")


@pytest.mark.parametrize(
    ("machine", "bus"),
    [("q35", "sata"), ("pc", "ide"), ("q35", "scsi"), ("q35", "usb")],
)
def test_other_buses(boot: Boot, demo_guest: Path, tmp_path: Path, machine: str, bus: str) -> None:
    """The boot disk and the seed, as a CD-ROM, on each bus; a NIC model with each."""
    controller, hard_disk, cdrom, model = {
        "sata": ([], "ide-hd,bus=ide.0", "ide-cd,bus=ide.1", "e1000e"),
        "ide": ([], "ide-hd", "ide-cd", "e1000"),
        "scsi": (["-device", "virtio-scsi-pci"], "scsi-hd", "scsi-cd", "rtl8139"),
        "usb": (["-device", "qemu-xhci"], "usb-storage", "usb-storage", "virtio-net-pci"),
    }[bus]
    image = iso(tmp_path, "cidata", {"meta-data": META_DATA, "user-data": SEED_USER_DATA})
    guest = boot(
        *("-machine", machine, "-m", f"size={SEED_MEMORY}", *controller),
        *disk(demo_guest / "demo-guest.qcow2", hard_disk),
        *seed(image, cdrom),
        *nic(model),
    )
    guest.wait_for(r"seed: NoCloud on /dev/s\S+, instance \S+, host myvm, 1 ssh key")
    guest.wait_for(r"eth0: address 10\.0\.2\.15/24")
    guest.wait_for(r"data: /dev/sd[ab]2 on /data")


def test_config_drive_script_and_keys(boot: Boot, demo_guest: Path, tmp_path: Path) -> None:
    metadata = (
        '{"instance_id": "myvm.default", "hostname": "drive", "uuid": "1", '
        '"public_keys": {"0": "ssh-ed25519 AAAAC3 one@example", "1": "ssh-rsa AAAAB3 two@example"}}'
    )
    files = {
        "openstack/latest/meta_data.json": metadata,
        "openstack/latest/user_data": "#!/bin/sh\necho from the script >/run/www/made\n",
    }
    guest = _booted(boot, demo_guest, *seed(iso(tmp_path, "config-2", files)))
    guest.wait_for("seed: ConfigDrive on /dev/vdb, instance myvm.default, host drive, 2 ssh key")
    guest.wait_for("user-data: done with status 0")
    keys = "ssh-ed25519 AAAAC3 one@example\nssh-rsa AAAAB3 two@example\n"
    assert guest.http("/authorized_keys") == keys
    assert guest.http("/made") == "from the script\n"


@pytest.mark.skipif(shutil.which("ssh") is None, reason="ssh is not installed")
def test_ssh_with_the_seeds_key(boot: Boot, demo_guest: Path, tmp_path: Path) -> None:
    private = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", private], check=True)
    public = private.with_suffix(".pub").read_text()
    user_data = f"#cloud-config\nssh_authorized_keys:\n  - {public}"
    guest = _booted(boot, demo_guest, *_seed_iso(tmp_path, user_data))
    guest.wait_for("ssh: ready")
    options = ["-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={tmp_path / 'known'}"]
    command = ["ssh", *options, "-o", "BatchMode=yes", "-i", str(private), "-p"]
    done = subprocess.run(
        [*command, str(guest.port(22)), "root@127.0.0.1", "hostname"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "myvm\n", done.stderr
    wrong = [*command[:-3], "-o", "IdentitiesOnly=yes", "-i", "/dev/null", "-p"]
    refused = subprocess.run(
        [*wrong, str(guest.port(22)), "root@127.0.0.1", "hostname"],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode == 255


def test_a_deaf_and_a_slow_power_button(boot: Boot, demo_guest: Path, tmp_path: Path) -> None:
    user_data = "#cloud-config\nruncmd:\n  - echo ignore > /etc/qvirt/powerbutton\n"
    guest = _booted(boot, demo_guest, *_seed_iso(tmp_path, user_data))
    guest.wait_for("user-data: done with status 0")
    guest.qmp("system_powerdown")
    guest.wait_for(r"power button pressed \(ignore\)")
    guest.login()
    guest.command("echo delay 3 > /etc/qvirt/powerbutton")
    guest.qmp("system_powerdown")
    guest.wait_for(r"power button pressed \(delay 3\)")
    assert guest.command("echo alive") == "alive\n"
    assert guest.ended() == 0


def test_a_panic_is_reported(boot: Boot, demo_guest: Path) -> None:
    guest = _booted(boot, demo_guest, "-device", "pvpanic-pci", "-action", "panic=pause")
    guest.login()
    guest.type("echo c > /proc/sysrq-trigger")
    guest.wait_for("Kernel panic")
    assert guest.event("GUEST_PANICKED")["data"]["action"] == "pause"


def test_devices_that_come_later(boot: Boot, demo_guest: Path, tmp_path: Path) -> None:
    port = ["-device", "pcie-root-port,id=port0,chassis=1"]
    guest = _booted(boot, demo_guest, *port, "-netdev", "user,id=later,net=10.9.0.0/24")
    guest.login()
    guest.qmp("device_add", driver="virtio-net-pci", netdev="later", bus="port0", id="nic2")
    guest.wait_for(r"eth1: address 10\.9\.0\.15/24")
    guest.qmp("device_del", id="nic2")
    guest.event("DEVICE_DELETED")
    assert "eth1" not in guest.command("ls /sys/class/net")


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_amd64_boots_by(boot: Boot, demo_guest_amd64: Path, tmp_path: Path, firmware: str) -> None:
    arguments, memory = [], "128M"
    if firmware == "uefi":
        variables = tmp_path / "vars.fd"
        shutil.copy(OVMF / "OVMF_VARS_4M.fd", variables)
        code = f"if=pflash,unit=0,format=raw,readonly=on,file={OVMF / 'OVMF_CODE_4M.fd'}"
        memory = "256M"  # the firmware keeps a part
        arguments = ["-drive", code, "-drive", f"if=pflash,unit=1,format=raw,file={variables}"]
    guest = boot(
        *("-machine", "q35", "-m", f"size={memory}", *arguments),
        *disk(demo_guest_amd64 / "demo-guest-amd64.qcow2"),
        *nic(),
        *_seed_iso(tmp_path, SEED_USER_DATA),
    )
    guest.wait_for("myvm login: ")
    guest.wait_for("data: /dev/vda2 on /data")
    guest.login()
    assert "x86_64" in guest.http("/")
    has_efi = "yes" if firmware == "uefi" else "no"
    assert guest.command("[ -d /sys/firmware/efi ] && echo yes || echo no") == f"{has_efi}\n"
    guest.qmp("system_powerdown")
    assert guest.ended() == 0


def test_amd64_boots_with_secure_boot(boot: Boot, demo_guest_amd64: Path, tmp_path: Path) -> None:
    variables = tmp_path / "vars.fd"
    shutil.copy(OVMF / "OVMF_VARS_4M.ms.fd", variables)
    guest = boot(
        *("-machine", "q35,smm=on", "-cpu", "max", "-m", "size=512M"),
        *("-global", "driver=cfi.pflash01,property=secure,value=on"),
        *("-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={OVMF / 'OVMF_CODE_4M.ms.fd'}"),
        *("-drive", f"if=pflash,unit=1,format=raw,file={variables}"),
        *disk(demo_guest_amd64 / "demo-guest-amd64.qcow2"),
    )
    guest.wait_for("UEFI Secure Boot is enabled")
    guest.wait_for("login: ")


def test_amd64_boots_on_microvm(boot: Boot, demo_guest_amd64: Path, tmp_path: Path) -> None:
    """The devices of a Debian kernel on microvm are found through ACPI alone."""
    guest = boot(
        *("-machine", "microvm,acpi=on", "-m", "size=128M"),
        # Without HPET and ACPI timer Linux may hang while it measures an emulated CPU (qvirt_launcher.clock).
        *("-icount", "shift=auto"),
        *("-kernel", str(demo_guest_amd64 / "demo-guest-amd64.vmlinuz")),
        *("-initrd", str(demo_guest_amd64 / "demo-guest-amd64.initrd")),
        *("-append", "console=ttyS0 loglevel=4"),
        *nic("virtio-net-device"),
        *seed(
            iso(tmp_path, "cidata", {"meta-data": META_DATA, "user-data": SEED_USER_DATA}),
            "virtio-blk-device",
        ),
    )
    guest.wait_for("host myvm, 1 ssh key")
    guest.wait_for(r"eth0: address 10\.0\.2\.15/24")
    assert guest.http("/authorized_keys") == KEY + "\n"
    guest.qmp("system_powerdown")
    assert guest.ended() == 0


def test_the_oci_archive_has_the_same_disk(demo_guest: Path, tmp_path: Path) -> None:
    image = demo_guest / "demo-guest.oci.tar"
    assert (demo_guest / "demo-guest.qcow2").read_bytes() in image.read_bytes()
    if shutil.which("skopeo"):
        command = ["skopeo", "inspect", f"oci-archive:{image}"]
        subprocess.run(
            command, check=True, capture_output=True, env={**os.environ, "TMPDIR": str(tmp_path)}
        )
