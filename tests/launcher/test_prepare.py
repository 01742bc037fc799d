"""Images on a real file system, looked at with the real qemu-img: what is made, what is refused, and why."""

from __future__ import annotations

import base64
import io
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pycdlib
import pytest

from qvirt_launcher import iso, prepare
from qvirt_launcher.backing import (
    Backing,
    CopyFile,
    CreateEmpty,
    CreateOverlay,
    CreateSeed,
    CreateSeedFromDirectory,
    DiskPlan,
    Format,
    Image,
)
from qvirt_launcher.errors import PrepareError
from qvirt_launcher.prepare import carry_out

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")

SECTOR = b"\0" * 512


def qemu_img(*arguments: str) -> str:
    done = subprocess.run(["qemu-img", *arguments], check=True, capture_output=True, text=True)
    return done.stdout


def image(path: Path, size: str = "8M", *options: str) -> Image:
    qemu_img("create", "-q", "-f", "qcow2", *options, str(path), *([size] if size else []))
    return Image(path=str(path), format="qcow2")


def overlay_plan(directory: Path, base: Image) -> DiskPlan:
    path = str(directory / "disks" / "root.qcow2")
    backing = Backing(volume="root", image=Image(path=path, format="qcow2"), base=base)
    return DiskPlan(steps=(CreateOverlay(path=path, base=base),), backings=(backing,))


def claim_plan(path: Path, format: Format = "raw", read_only: bool = False) -> DiskPlan:
    disk = Image(path=str(path), format=format)
    return DiskPlan(backings=(Backing(volume="d", image=disk, read_only=read_only),))


def test_an_overlay_names_its_base_and_its_format(tmp_path: Path) -> None:
    base = image(tmp_path / "base.qcow2")
    done = carry_out(overlay_plan(tmp_path, base))
    info = qemu_img("info", done.backings[0].image.path)
    assert f"backing file: {base.path}" in info
    assert "backing file format: qcow2" in info
    assert stat.S_IMODE(os.stat(done.backings[0].image.path).st_mode) == 0o600


def test_a_raw_base_is_not_looked_into(tmp_path: Path) -> None:
    """Content that says qcow2, with a backing file of the host: a guest may have written that to its raw disk."""
    disk = tmp_path / "disk.img"
    image(disk)
    qemu_img("rebase", "-u", "-f", "qcow2", "-b", "/etc/hostname", "-F", "raw", str(disk))
    os.truncate(disk, 1 << 18)
    done = carry_out(overlay_plan(tmp_path, Image(path=str(disk), format="raw")))
    info = qemu_img("info", done.backings[0].image.path)
    assert "backing file format: raw" in info
    assert f"({disk.stat().st_size} bytes)" in info


def test_an_overlay_of_a_killed_run_is_made_anew(tmp_path: Path) -> None:
    plan = overlay_plan(tmp_path, image(tmp_path / "base.qcow2"))
    carry_out(plan)
    Path(plan.steps[0].path).write_bytes(b"rubbish")
    carry_out(plan)
    assert "qcow2" in qemu_img("info", plan.steps[0].path)


def test_an_empty_disk_has_its_size(tmp_path: Path) -> None:
    path = str(tmp_path / "e.qcow2")
    backing = Backing(volume="e", image=Image(path=path, format="qcow2"))
    carry_out(DiskPlan(steps=(CreateEmpty(path=path, size=5 << 20),), backings=(backing,)))
    assert "virtual size: 5 MiB" in qemu_img("info", path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: None, "does not exist"),
        (lambda p: p.mkdir(), "is a directory"),
        (lambda p: os.mkfifo(p), "neither a file nor a block device"),
        (lambda p: p.write_bytes(SECTOR), "is not a qcow2 image"),
        (lambda p: p.write_bytes(b"QFI\xfb\0\0\0\3" + b"\xff" * 600), "is not a qcow2 image"),
        (lambda p: image(p, "0"), "0 bytes"),
    ],
)
def test_bases_that_are_not_what_they_say(tmp_path: Path, make: object, message: str) -> None:
    path = tmp_path / "base.qcow2"
    assert callable(make)
    make(path)
    with pytest.raises(PrepareError, match=message) as caught:
        carry_out(overlay_plan(tmp_path, Image(path=str(path), format="qcow2")))
    assert str(path) in str(caught.value)


def test_an_empty_raw_file_is_no_disk(tmp_path: Path) -> None:
    (tmp_path / "disk.img").touch()
    with pytest.raises(PrepareError, match="empty"):
        carry_out(claim_plan(tmp_path / "disk.img"))


def test_an_image_that_refers_to_another_is_refused(tmp_path: Path) -> None:
    image(tmp_path / "secret.qcow2")
    image(tmp_path / "base.qcow2", "", "-b", str(tmp_path / "secret.qcow2"), "-F", "qcow2")
    with pytest.raises(PrepareError, match=r"refers to another file.*qemu-img convert"):
        carry_out(claim_plan(tmp_path / "base.qcow2", "qcow2"))


def test_an_image_with_its_data_elsewhere_is_refused(tmp_path: Path) -> None:
    options = ("-o", f"data_file={tmp_path / 'data'},data_file_raw=on")
    image(tmp_path / "base.qcow2", "8M", *options)
    with pytest.raises(PrepareError, match="data in another file"):
        carry_out(claim_plan(tmp_path / "base.qcow2", "qcow2"))


def test_a_relative_path_is_refused() -> None:
    with pytest.raises(PrepareError, match="absolute"):
        carry_out(claim_plan(Path("nbd:host:1")))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_claim_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(SECTOR)
    disk.chmod(0o400)
    with pytest.raises(PrepareError, match=r"can't be written to by uid"):
        carry_out(claim_plan(disk))
    carry_out(claim_plan(disk, read_only=True))


def test_direct_io_is_tried(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(SECTOR * 8)
    tried = prepare.takes_direct(str(disk))
    assert carry_out(claim_plan(disk)).backings[0].direct is tried
    assert not prepare.takes_direct(str(tmp_path / "missing"))
    # A file without a data path of its own never does it.
    assert not prepare.takes_direct("/proc/self/status")


def test_no_direct_io_where_a_raw_image_ends_within_a_page(tmp_path: Path) -> None:
    """QEMU refuses to start with such a disk on a file system whose unit is larger, like tmpfs."""
    disk = tmp_path / "disk.img"
    disk.write_bytes(SECTOR * 9)
    assert not carry_out(claim_plan(disk)).backings[0].direct


@pytest.mark.root
def test_a_block_device_is_seen(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(SECTOR * 2048)
    done = subprocess.run(
        ["losetup", "--find", "--show", str(disk)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no loop devices here: {done.stderr.strip()}")
    device = done.stdout.strip()
    try:
        backing = carry_out(claim_plan(Path(device))).backings[0]
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
    assert backing.image.block


def test_holes_of_a_file_are_seen(tmp_path: Path) -> None:
    seen = []
    for name, write in (("full", 1 << 16), ("sparse", 0)):
        path = tmp_path / name
        path.write_bytes(b"x" * write)
        os.truncate(path, 1 << 16)
        backing = Backing(volume=name, image=Image(path=str(path), format="raw"))
        done = carry_out(DiskPlan(backings=(backing,)))
        seen.append(done.backings[0].image.allocated)
    assert seen == [True, False]


# --- seeds -----------------------------------------------------------------------------------------------------------


def read(data: bytes, kind: str, name: str) -> bytes:
    disc = pycdlib.PyCdlib()
    disc.open_fp(io.BytesIO(data))
    out = io.BytesIO()
    disc.get_file_from_iso_fp(out, **{kind: f"/{name}"})
    disc.close()
    return out.getvalue()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("kind", ["rr_path", "joliet_path"])
def test_a_seed_has_its_names_in_both_extensions(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "seed.iso"
    files = {"openstack/latest/user_data": b64(b"#!/bin/sh\n"), "meta-data": b64(b"{}")}
    prepare.make(CreateSeed(path=str(path), volume_id="config-2", files=files))
    data = path.read_bytes()
    assert read(data, kind, "openstack/latest/user_data") == b"#!/bin/sh\n"
    assert read(data, kind, "meta-data") == b"{}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(shutil.which("xorriso") is None, reason="needs xorriso")
def test_another_program_reads_the_same(tmp_path: Path) -> None:
    path = tmp_path / "seed.iso"
    iso.write(str(path), "cidata", {"user-data": b"x" * 5000, "meta-data": b""})
    done = subprocess.run(
        ["xorriso", "-indev", str(path), "-find", "/", "-exec", "report_lba", "--"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "'/user-data'" in done.stdout
    assert "'/meta-data'" in done.stdout
    assert "'cidata'" in done.stderr


def secret_step(tmp_path: Path, **files: bytes) -> CreateSeedFromDirectory:
    directory = tmp_path / "secret"
    directory.mkdir()
    for name, data in files.items():
        (directory / name).write_bytes(data)
    return CreateSeedFromDirectory(
        path=str(tmp_path / "seed.iso"),
        volume_id="cidata",
        files={"meta-data": b64(b"{}")},
        directory=str(directory),
        keys={"user-data": ("userdata", "userData")},
    )


@pytest.mark.parametrize("key", ["userdata", "userData"])
def test_a_secrets_key_becomes_a_file(tmp_path: Path, key: str) -> None:
    step = secret_step(tmp_path, **{key: b"from a secret"})
    prepare.make(step)
    data = Path(step.path).read_bytes()
    assert read(data, "rr_path", "user-data") == b"from a secret"


def test_a_secret_without_the_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PrepareError, match="userdata and userData"):
        prepare.make(secret_step(tmp_path, other=b""))


def test_a_secret_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PrepareError, match="larger than a Secret"):
        prepare.make(secret_step(tmp_path, userdata=bytes((1 << 20) + 1)))


def test_a_copy_is_private_and_made_once(tmp_path: Path) -> None:
    (tmp_path / "vars").write_bytes(b"template")
    step = CopyFile(path=str(tmp_path / "own"), source=str(tmp_path / "vars"))
    prepare.make(step)
    Path(step.path).write_bytes(b"changed")
    prepare.make(step)
    assert Path(step.path).read_bytes() == b"changed"
    assert stat.S_IMODE(os.stat(step.path).st_mode) == 0o600


def test_a_seed_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(PrepareError, match=r"can't be written"):
        iso.write(str(tmp_path / "no" / "seed.iso"), "cidata", {})
