"""Our qcow2 images under the eyes of QEMU's own tools, and its headers under ours."""

from __future__ import annotations

import json
import os
import shutil
import stat
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qvirt_launcher import qcow2

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")

MIB = 1 << 20


def qemu_img(*arguments: str | Path) -> str:
    command = ["qemu-img", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def info(path: Path) -> dict[str, Any]:
    # Without --backing-chain nothing else is opened.
    found: dict[str, Any] = json.loads(qemu_img("info", "--output=json", "-f", "qcow2", path))
    return found


def check(path: Path) -> dict[str, Any]:
    """qemu-img's word on it; it fails for the least error and for leaked clusters."""
    found: dict[str, Any] = json.loads(qemu_img("check", "--output=json", "-f", "qcow2", path))
    return found


#: Sectors, at the edges of what one entry (512 MiB) and one cluster (4 TiB) of the first table hold.
SIZES = (1, 512, 513, 65536, 512 * MIB, 512 * MIB + 1, 4 << 40, (4 << 40) + 512, 63 << 40)


@pytest.mark.parametrize("size", SIZES)
def test_an_empty_image_of_any_size(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.qcow2"
    qcow2.create(str(path), size)
    found = info(path)
    assert found["virtual-size"] == -(-size // 512) * 512
    assert found["format-specific"]["data"]["corrupt"] is False
    assert check(path)["check-errors"] == 0
    assert qcow2.read(str(path)).size == found["virtual-size"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_as_qemu_img_makes_it(tmp_path: Path) -> None:
    base, ours, theirs = (tmp_path / name for name in ("base", "ours", "theirs"))
    base.write_bytes(os.urandom(3 * MIB))
    qcow2.create(str(ours), 3 * MIB, backing=str(base), backing_format="raw")
    qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", theirs)
    left, right = info(ours), info(theirs)
    for changing in ("filename", "actual-size", "children", "dirty-flag"):
        left.pop(changing, None)
        right.pop(changing, None)
    assert left == right


def test_the_base_shows_through_and_is_never_written(tmp_path: Path) -> None:
    base, path, flat = (tmp_path / name for name in ("base.qcow2", "a.qcow2", "flat"))
    raw = tmp_path / "raw"
    content = os.urandom(5 * MIB + 512)
    raw.write_bytes(content)
    qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, base)
    before = base.read_bytes()
    qcow2.create(str(path), len(content), backing=str(base), backing_format="qcow2")
    written = ["qemu-io", "-f", "qcow2", "-c", "write -P 0x5a 1M 64k", str(path)]
    subprocess.run(written, check=True, capture_output=True)
    assert check(path)["check-errors"] == 0
    qemu_img("convert", "-f", "qcow2", "-O", "raw", path, flat)
    expected = content[:MIB] + b"\x5a" * 65536 + content[MIB + 65536 :]
    assert flat.read_bytes() == expected
    assert base.read_bytes() == before


def test_many_writes_find_their_counters(tmp_path: Path) -> None:
    """New clusters are counted in the block that we made, and in more of them when it is full."""
    path = tmp_path / "a.qcow2"
    qcow2.create(str(path), 3 << 30)
    # A cluster here and there: each brings a table of its own.
    writes = [f"write -z {n << 29} 64k" for n in range(6)] + [
        f"write {n << 20} 4k" for n in range(64)
    ]
    commands = [word for write in writes for word in ("-c", write)]
    subprocess.run(
        ["qemu-io", "-f", "qcow2", *commands, str(path)], check=True, capture_output=True
    )
    assert check(path)["check-errors"] == 0


def test_names_of_bases(tmp_path: Path) -> None:
    name = "/" + "é" * 500
    qcow2.create(str(tmp_path / "a"), MIB, backing=name, backing_format="qcow2")
    assert qcow2.read(str(tmp_path / "a")).backing == name
    with pytest.raises(ValueError, match="1023"):
        qcow2.create(str(tmp_path / "b"), MIB, backing="/" + "a" * 1023)
    assert not (tmp_path / "b").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        qcow2.create(str(tmp_path / "a"), MIB)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    "options", ["compat=0.10", "compat=1.1", "cluster_size=2M", "compression_type=zstd"]
)
def test_headers_of_qemu_img(tmp_path: Path, options: str) -> None:
    path = tmp_path / "a.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-o", options, path, "7M")
    found = qcow2.read(str(path))
    assert found == qcow2.Header(version=2 if "0.10" in options else 3, size=7 * MIB)


def test_what_an_image_leans_on_is_seen(tmp_path: Path) -> None:
    base, path = tmp_path / "base", tmp_path / "a.qcow2"
    base.write_bytes(bytes(MIB))
    for options in ("cluster_size=64k", "cluster_size=2M"):
        qemu_img("create", "-q", "-f", "qcow2", "-o", options, "-b", base, "-F", "raw", path)
        assert qcow2.read(str(path)).backing == str(base)
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={base}", path, "1M")
    assert qcow2.read(str(path)).data_elsewhere
    secret = ("--object", "secret,id=s,data=x", "-o", "encrypt.format=aes,encrypt.key-secret=s")
    qemu_img("create", "-q", "-f", "qcow2", *secret, path, "1M")
    assert qcow2.read(str(path)).encrypted
    # LUKS, method 2, written in: to make such an image qemu-img measures its CPU time, and gives up on a busy machine.
    data = bytearray(path.read_bytes())
    struct.pack_into(">I", data, 32, 2)
    assert qcow2.parse(bytes(data)).encrypted


def test_a_backing_file_that_can_not_be_read_counts_as_one(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    qcow2.create(str(path), MIB)
    data = bytearray(path.read_bytes())
    struct.pack_into(">QI", data, 8, 1 << 40, 9)
    assert qcow2.parse(bytes(data)).backing
    struct.pack_into(">QI", data, 8, 1 << 40, 0)
    assert qcow2.parse(bytes(data)).backing


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (0, b"QFI\0", "QFI"),
        (4, b"\0\0\0\1", "version 1"),
        (4, b"\0\0\0\4", "version 4"),
        (20, b"\0\0\0\x40", r"2\^64"),
        (16, b"\xff\xff\xff\xff", "too long"),
        (72, b"\x80" + bytes(7), "unknown"),
    ],
)
def test_what_is_none(tmp_path: Path, offset: int, value: bytes, message: str) -> None:
    path = tmp_path / "a.qcow2"
    qcow2.create(str(path), MIB)
    data = bytearray(path.read_bytes())
    data[offset : offset + len(value)] = value
    with pytest.raises(qcow2.NotQcow2, match=message):
        qcow2.parse(bytes(data))
    with pytest.raises(qcow2.NotQcow2, match="cut off"):
        qcow2.parse(path.read_bytes()[:100])


@given(head=st.binary(min_size=0, max_size=300))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rubbish_is_refused_or_read(head: bytes) -> None:
    for data in (head, qcow2.MAGIC + b"\0\0\0\3" + head):
        try:
            found = qcow2.parse(data)
        except qcow2.NotQcow2:
            continue
        assert found.size >= 0
