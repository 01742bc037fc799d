"""Where volumes lie in a pod: mounts, sidecars, devices, Secrets; and what is said when they are not there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import pytest

from qvirt_crds import pod_layout
from qvirt_crds.report import KernelFiles, LocalVolume
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_launcher.errors import ClaimError, ImageError
from qvirt_launcher.holders import find_holders
from qvirt_launcher.podvolumes import Found, Pod, find

SECTOR = b"\0" * 512


def vmi(*volumes: Mapping[str, object], **more: object) -> VirtualMachineInstance:
    return msgspec.convert(
        {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstance",
            "metadata": {"name": "tiny"},
            "spec": {"domain": {"devices": {}}, "volumes": list(volumes)},
        }
        | more,
        VirtualMachineInstance,
    )


def disk(path: str = "") -> dict[str, object]:
    return {"name": "root", "containerDisk": {"image": "demo", "path": path}}


CLAIM = {"name": "data", "persistentVolumeClaim": {"claimName": "mine"}}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The pod's file system."""
    (tmp_path / "pod").mkdir()
    return tmp_path / "pod"


@pytest.fixture
def image(root: Path) -> Path:
    """A containerDisk's image where the kubelet mounts it."""
    mounted = root / pod_layout.image_dir("root").removeprefix("/")
    (mounted / "disk").mkdir(parents=True)
    return mounted


def look(root: Path, spec: VirtualMachineInstance) -> Found:
    proc = root.parent / "proc"
    proc.mkdir(exist_ok=True)
    return find(spec, str(root / "own"), Pod(root=root, proc=proc, patience=0.3))


def only(found: Found) -> LocalVolume:
    (volume,) = found.volumes
    return volume


def test_the_one_file_of_a_mounted_image_is_the_disk(root: Path, image: Path) -> None:
    (image / "disk/any.name").write_bytes(SECTOR)
    assert only(look(root, vmi(disk()))) == LocalVolume(
        volume="root", path=str(image / "disk/any.name"), format="raw", read_only=True
    )


def test_the_format_is_what_the_image_begins_with(root: Path, image: Path) -> None:
    path = image / "disk/disk.img"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "1M"], check=True)
    assert only(look(root, vmi(disk()))).format == "qcow2"


def test_a_path_names_any_file_of_the_image(root: Path, image: Path) -> None:
    (image / "os").mkdir()
    (image / "os/disk.raw").write_bytes(SECTOR)
    assert only(look(root, vmi(disk("/os/disk.raw")))).path == str(image / "os/disk.raw")


@pytest.mark.parametrize("target", ["/os/real", "../os/real", "/../../os/real", "/link/real"])
def test_links_of_an_image_stay_in_the_image(root: Path, image: Path, target: str) -> None:
    (image / "os").mkdir()
    (image / "os/real").write_bytes(SECTOR)
    (image / "link").symlink_to("/os")
    (image / "disk/disk.img").symlink_to(target)
    assert only(look(root, vmi(disk()))).path == str(image / "os/real")


def test_links_in_a_circle_are_refused(root: Path, image: Path) -> None:
    (image / "disk/disk.img").symlink_to("disk.img")
    with pytest.raises(ImageError, match="too many symbolic links"):
        look(root, vmi(disk()))


def test_no_disk_in_the_image(root: Path, image: Path) -> None:
    with pytest.raises(ImageError, match="no file found in folder /disk, no disk present"):
        look(root, vmi(disk()))
    (image / "disk").rmdir()
    with pytest.raises(ImageError, match="no file found in folder /disk, no disk present"):
        look(root, vmi(disk()))


def test_two_disks_in_the_image(root: Path, image: Path) -> None:
    for name in ("a", "b"):
        (image / "disk" / name).write_bytes(SECTOR)
    wanted = "more than one file found in folder /disk, only one disk is allowed"
    with pytest.raises(ImageError, match=wanted):
        look(root, vmi(disk()))


def test_a_path_that_the_image_lacks(root: Path, image: Path) -> None:
    with pytest.raises(ImageError, match=r"/os/disk\.raw: not in the image"):
        look(root, vmi(disk("/os/disk.raw")))


def test_a_disk_that_names_another_file_is_refused(root: Path, image: Path) -> None:
    (root / "base").write_bytes(SECTOR)
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(root / "base"), "-F", "raw"]
    subprocess.run([*create, image / "disk/disk.img"], check=True)
    with pytest.raises(ImageError, match=r"invalid image in containerDisk root: .*backing file"):
        look(root, vmi(disk()))


def test_neither_mount_nor_sidecar(root: Path) -> None:
    with pytest.raises(ImageError, match=r"containerDisk root: neither .* within 0\.3 s"):
        look(root, vmi(disk()))


# --- sidecars --------------------------------------------------------------------------------------------------------


def pretend(proc: Path, pid: int, *arguments: str) -> Path:
    """A process as /proc shows it; returns its root."""
    (proc / str(pid) / "root/disk").mkdir(parents=True)
    (proc / str(pid) / "cmdline").write_bytes(b"".join(a.encode() + b"\0" for a in arguments))
    return proc / str(pid) / "root"


def test_the_disk_that_a_sidecar_holds(root: Path) -> None:
    proc = root.parent / "proc"
    (pretend(proc, 7, *pod_layout.holder_command("other")) / "disk/d").write_bytes(SECTOR)
    held = pretend(proc, 12, *pod_layout.holder_command("root"))
    (held / "disk/d").write_bytes(SECTOR)
    assert only(look(root, vmi(disk()))).path == str(held / "disk/d")


def test_a_sidecar_that_starts_late_is_waited_for(root: Path) -> None:
    proc = root.parent / "proc"
    proc.mkdir()
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            held = pretend(proc, 12, *pod_layout.holder_command("root"))
            (held / "disk/d").write_bytes(SECTOR)

    found = find(vmi(disk()), str(root / "own"), Pod(root=root, proc=proc, sleep=nap))
    assert only(found).path.endswith("/12/root/disk/d")
    assert len(naps) == 3


def test_only_the_holders_own_command_line_counts(tmp_path: Path) -> None:
    command = pod_layout.holder_command("root")
    pretend(tmp_path, 3, "sh", "-c", " ".join(command))
    pretend(tmp_path, 4, *command, "more")
    pretend(tmp_path, 5, *command)
    (tmp_path / "self").mkdir()
    (tmp_path / "6").mkdir()  # gone already: no cmdline
    assert [holder.pid for holder in find_holders(tmp_path)] == [5]


@pytest.mark.root
def test_another_users_process_is_no_holder(tmp_path: Path) -> None:
    pretend(tmp_path, 5, *pod_layout.holder_command("root"))
    os.chown(tmp_path / "5", 12345, 12345)
    assert find_holders(tmp_path) == ()


def test_the_kernel_of_kernel_boot_is_a_held_image(root: Path) -> None:
    held = pretend(root.parent / "proc", 9, *pod_layout.holder_command(pod_layout.KERNEL_BOOT))
    (held / "boot").mkdir()
    (held / "boot/vmlinuz").write_bytes(b"kernel")
    boot = {"container": {"image": "demo", "kernelPath": "/boot/vmlinuz"}}
    domain = {"devices": {}, "firmware": {"kernelBoot": boot}}
    found = look(root, vmi(spec={"domain": domain}))
    assert found.kernel == KernelFiles(kernel=str(held / "boot/vmlinuz"))


# --- claims ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def claim(root: Path) -> Path:
    """The mount of a claim in Filesystem mode."""
    mounted = root / pod_layout.claim_dir("data").removeprefix("/")
    mounted.mkdir(parents=True)
    return mounted


def promised(requests: str, capacity: str) -> dict[str, object]:
    info = {"requests": {"storage": requests}, "capacity": {"storage": capacity}}
    return {"volumeStatus": [{"name": "data", "persistentVolumeClaimInfo": info}]}


def test_the_disk_of_a_claim(root: Path, claim: Path) -> None:
    (claim / "disk.img").write_bytes(SECTOR)
    assert only(look(root, vmi(CLAIM))) == LocalVolume(
        volume="data", path=str(claim / "disk.img"), format="raw"
    )


def test_a_guest_cannot_make_its_claim_another_format(root: Path, claim: Path) -> None:
    (claim / "disk.img").write_bytes(b"QFI\xfb" + SECTOR)
    assert only(look(root, vmi(CLAIM))).format == "raw"


def test_an_empty_claim_gets_a_sparse_disk_of_the_promised_size(root: Path, claim: Path) -> None:
    found = look(root, vmi(CLAIM, status=promised("5000000", "1Gi")))
    made = os.stat(only(found).path)
    assert made.st_size == 4 << 20
    assert made.st_blocks == 0


def test_a_claim_of_unknown_size_is_filled(root: Path, claim: Path) -> None:
    try:
        size = os.stat(only(look(root, vmi(CLAIM))).path).st_size
    except ClaimError as error:
        # File systems have a largest file, too.
        assert "File too large" in str(error)  # noqa: PT017
    else:
        assert 0 < size < os.statvfs(claim).f_blocks * os.statvfs(claim).f_frsize


def test_a_claim_that_has_less_room_than_promised(root: Path, claim: Path) -> None:
    with pytest.raises(ClaimError, match="not enough space, demanded size"):
        look(root, vmi(CLAIM, status=promised("8Ei", "8Ei")))
    assert not (claim / "disk.img").exists()


@pytest.mark.parametrize(
    "volume",
    [
        {"name": "data", "persistentVolumeClaim": {"claimName": "mine", "readOnly": True}},
        {"name": "data", "ephemeral": {"persistentVolumeClaim": {"claimName": "mine"}}},
    ],
)
def test_a_claim_that_is_only_read_is_not_filled(
    root: Path, claim: Path, volume: Mapping[str, object]
) -> None:
    with pytest.raises(ClaimError, match=r"claim mine has no disk\.img, and it is only read"):
        look(root, vmi(volume))
    (claim / "disk.img").write_bytes(SECTOR)
    assert only(look(root, vmi(volume))).read_only


def test_a_claim_that_is_not_in_the_pod(root: Path) -> None:
    with pytest.raises(ClaimError, match="claim mine is neither a device nor mounted"):
        look(root, vmi(CLAIM))


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    """A loop device of 1 MiB."""
    (tmp_path / "bytes").write_bytes(SECTOR * 2048)
    attach = ["losetup", "--find", "--show", str(tmp_path / "bytes")]
    done = subprocess.run(attach, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no loop devices here: {done.stderr.strip()}")
    yield done.stdout.strip()
    subprocess.run(["losetup", "--detach", done.stdout.strip()], check=True)


@pytest.mark.root
def test_the_device_of_a_claim_in_block_mode(root: Path, device: str) -> None:
    (root / "dev").mkdir()
    (root / "dev/data").symlink_to(device)
    assert only(look(root, vmi(CLAIM))) == LocalVolume(volume="data", path=str(root / "dev/data"))


# --- Secrets ---------------------------------------------------------------------------------------------------------


def test_two_secrets_of_one_seed_come_together(root: Path) -> None:
    seed = {
        "name": "seed",
        "cloudInitNoCloud": {
            "secretRef": {"name": "user"},
            "networkDataSecretRef": {"name": "net"},
        },
    }
    for suffix, content in (
        ("udata", {"userData": "u", "networkdata": "not this"}),
        ("ndata", {"networkdata": "n", "userdata": "nor this"}),
    ):
        folder = root / f"var/run/kubevirt-private/secret/seed-{suffix}"
        folder.mkdir(parents=True)
        for key, value in content.items():
            (folder / key).write_text(value)
    together = Path(only(look(root, vmi(seed))).path)
    assert {path.name: path.read_text() for path in together.iterdir()} == {
        "userData": "u",
        "networkdata": "n",
    }


def test_a_seed_without_secrets_needs_no_place(root: Path) -> None:
    assert look(root, vmi({"name": "seed", "cloudInitNoCloud": {"userData": "x"}})) == Found()
