"""Disks out of container images that are made here by hand, the hostile ones among them."""

from __future__ import annotations

import json
import stat
import struct
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cli.conftest import COMPRESSORS, SECTOR, Content, Link, Oci

from qvirt_launcher.diskformat import image_format
from qvirt_launcher.errors import ImageError
from qvirt_launcher.images import ImageStore, parse_source
from qvirt_launcher.layers import _normal, extract
from qvirt_launcher.oci import open_image
from qvirt_launcher.registry import Registry

OTHER = b"other".ljust(512, b"-")


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, notes: list[str]) -> ImageStore:
    return ImageStore(tmp_path / "cache", Registry(), notes.append)


def take(oci: Oci, *layers: Content, path: str = "", compression: str = "gzip") -> bytes:
    archive = oci.archive(oci.image(*layers, compression=compression))
    target = oci.folder / "taken"
    with open_image("oci-archive", archive) as image:
        extract(image, path, target, lambda _: None)
    return target.read_bytes()


@pytest.mark.parametrize("compression", COMPRESSORS)
def test_the_one_file_under_disk(oci: Oci, compression: str) -> None:
    layer: Content = {"etc/": None, "etc/passwd": b"x", "disk": None, "disk/guest.img": SECTOR}
    assert take(oci, layer, compression=compression) == SECTOR


def test_names_may_begin_with_a_dot_or_a_slash(oci: Oci) -> None:
    assert take(oci, {"./disk/a.img": SECTOR}) == SECTOR
    assert take(oci, {"/disk/a.img": SECTOR}) == SECTOR


def test_holes_stay_holes(oci: Oci) -> None:
    size = 8 << 20
    content = SECTOR + bytes(size - 1024) + SECTOR
    assert take(oci, {"disk/a.img": content}) == content
    found = (oci.folder / "taken").stat()
    assert found.st_size == size
    assert found.st_blocks * 512 < size // 2


def test_a_higher_layer_replaces_the_disk(oci: Oci) -> None:
    assert take(oci, {"disk/a.img": OTHER}, {"disk/a.img": SECTOR}) == SECTOR


def test_a_whiteout_removes_the_old_disk(oci: Oci) -> None:
    upper: Content = {"disk/.wh.old.img": b"", "disk/new.img": SECTOR}
    assert take(oci, {"disk/old.img": OTHER}, upper) == SECTOR


def test_a_whiteout_of_the_folder_removes_all_in_it(oci: Oci) -> None:
    lower: Content = {"disk/a.img": OTHER, "disk/b.img": OTHER}
    assert take(oci, lower, {".wh.disk": b""}, {"disk/c.img": SECTOR}) == SECTOR


def test_an_opaque_folder_hides_what_lies_below_but_not_its_own(oci: Oci) -> None:
    upper: Content = {"disk/new.img": SECTOR, "disk/.wh..wh..opq": b""}
    assert take(oci, {"disk/old.img": OTHER}, upper) == SECTOR


def test_a_whiteout_does_not_reach_its_own_layer_or_higher_ones(oci: Oci) -> None:
    layers: list[Content] = [{"disk/a.img": OTHER}, {"disk/.wh.a.img": b""}, {"disk/a.img": SECTOR}]
    assert take(oci, *layers) == SECTOR


def test_a_file_in_place_of_a_folder_hides_the_folder(oci: Oci) -> None:
    with pytest.raises(ImageError, match="no disk present"):
        take(oci, {"disk/a.img": OTHER}, {"disk": b"a file now"})


def test_links_are_followed_inside_the_image_only(oci: Oci) -> None:
    images: Content = {"images/real.img": SECTOR, "disk/a.img": Link("../images/real.img")}
    assert take(oci, images) == SECTOR
    above: Content = {"real.img": SECTOR, "disk/a.img": Link("../../../../../real.img")}
    assert take(oci, above) == SECTOR
    absolute: Content = {"images/real.img": SECTOR, "disk": Link("/images")}
    assert take(oci, absolute) == SECTOR


def test_no_link_leads_to_a_file_of_this_machine(oci: Oci) -> None:
    for target in ("/etc/passwd", "../../../../../../etc/passwd"):
        with pytest.raises(ImageError, match="no such file in the image"):
            take(oci, {"disk/a.img": Link(target)})


def test_links_in_a_circle(oci: Oci) -> None:
    with pytest.raises(ImageError, match="too many symbolic links"):
        take(oci, {"disk/a.img": Link("b.img"), "b.img": b"", "disk": Link("disk")})


def test_hard_links(oci: Oci) -> None:
    linked: Content = {"images/real.img": SECTOR, "disk/a.img": Link("images/real.img", hard=True)}
    assert take(oci, linked) == SECTOR
    # Also when a higher layer took the other name away: overlayfs would show the file as well.
    assert take(oci, linked, {"images/.wh.real.img": b""}) == SECTOR


def test_a_hard_link_to_nothing(oci: Oci) -> None:
    with pytest.raises(ImageError, match="is linked to, but is not in the layer"):
        take(oci, {"disk/a.img": Link("../../etc/passwd".replace("../", ""), hard=True)})


@pytest.mark.parametrize("name", ["../evil", "disk/../../evil", "a/../../disk/x"])
def test_names_that_lead_upwards_are_refused(oci: Oci, name: str) -> None:
    with pytest.raises(ImageError, match=r"names with \.\. are refused"):
        take(oci, {name: SECTOR, "disk/a.img": SECTOR})


def test_no_disk(oci: Oci) -> None:
    with pytest.raises(ImageError, match="no file found in folder /disk, no disk present"):
        take(oci, {"etc/passwd": b"x"})
    with pytest.raises(ImageError, match="no file found in folder /disk, no disk present"):
        take(oci, {"disk/": None})


def test_two_disks(oci: Oci) -> None:
    with pytest.raises(
        ImageError, match="more than one file found in folder /disk, only one disk is allowed"
    ):
        take(oci, {"disk/a.img": SECTOR, "disk/b.img": SECTOR})


def test_a_folder_or_device_is_no_disk(oci: Oci) -> None:
    with pytest.raises(ImageError, match="/disk/a: is not a regular file"):
        take(oci, {"disk/a/": None})


def test_a_path_names_one_of_several(oci: Oci) -> None:
    layer: Content = {
        "disk/a.img": OTHER,
        "disk/b.img": SECTOR,
        "boot/vmlinuz": Link("../disk/b.img"),
    }
    assert take(oci, layer, path="/disk/b.img") == SECTOR
    assert take(oci, layer, path="/boot/vmlinuz") == SECTOR
    with pytest.raises(ImageError, match="no such file in the image"):
        take(oci, layer, path="/disk/c.img")
    with pytest.raises(ImageError, match=r"names with \.\. are refused"):
        take(oci, layer, path="/../etc/passwd")


@given(st.text(max_size=40))
def test_no_name_keeps_a_way_up_or_a_root(name: str) -> None:
    """What a name in an archive becomes never begins with a slash and never has a dot-dot in it."""
    try:
        normal = _normal(name)
    except ImageError:
        return
    assert not normal.startswith("/")
    assert ".." not in normal.split("/")


def test_a_damaged_layer(oci: Oci) -> None:
    for compression in COMPRESSORS:
        descriptor = oci.image({"disk/a.img": SECTOR * 64}, compression=compression)
        for name, data in dict(oci.blobs).items():
            if not data.startswith(b"{"):
                oci.blobs[name] = data[:-40]
        archive = oci.archive(descriptor)
        with open_image("oci-archive", archive) as image, pytest.raises(ImageError, match="layer"):
            extract(image, "", oci.folder / "taken", lambda _: None)
        oci.blobs.clear()


def test_a_layer_with_other_content_than_its_digest_says(oci: Oci) -> None:
    good = oci.image({"disk/a.img": SECTOR}, compression="none")
    forged = Oci(oci.folder)
    forged.image({"disk/a.img": OTHER}, compression="none")
    (name,) = [n for n, d in oci.blobs.items() if b"qvirt test disk" in d]
    (other,) = [d for d in forged.blobs.values() if b"other" in d]
    oci.blobs[name] = other
    with (
        open_image("oci-archive", oci.archive(good)) as image,
        pytest.raises(ImageError, match="its digest is not"),
    ):
        extract(image, "", oci.folder / "taken", lambda _: None)


def test_every_kind_of_source(oci: Oci, store: ImageStore) -> None:
    descriptor = oci.image({"disk/a.img": SECTOR}, tag="v1")
    archive, layout = oci.archive(descriptor), oci.layout(descriptor)
    docker = oci.docker_archive({"disk/a.img": OTHER}, {"disk/a.img": SECTOR})
    raw = oci.folder / "plain.img"
    raw.write_bytes(SECTOR)
    for source in (
        archive,
        f"oci-archive:{archive}",
        f"oci-archive:{archive}:v1",
        layout,
        f"oci:{layout}",
        f"oci:{layout}:v1",
        docker,
        f"docker-archive:{docker}",
        f"docker-archive:{docker}:test/disk:1",
        raw,
    ):
        found = store.disk("demo", parse_source(str(source)), "")
        assert found.path.read_bytes() == SECTOR, source
        assert found.format == "raw"


def test_an_index_of_platforms_gives_ours(oci: Oci) -> None:
    arm = oci.image({"disk/a.img": OTHER}, architecture="arm64")
    amd = oci.image({"disk/a.img": SECTOR})
    nested = {
        "mediaType": "application/vnd.oci.image.index.v1+json",
        **oci.blob(b'{"manifests": [%s, %s]}' % (_json(arm), _json(amd))),
    }
    with open_image("oci-archive", oci.archive(nested)) as image:
        extract(image, "", oci.folder / "taken", lambda _: None)
    assert (oci.folder / "taken").read_bytes() == SECTOR
    with (
        pytest.raises(ImageError, match="no image for linux/amd64"),
        open_image("oci-archive", oci.archive(arm)),
    ):
        pass


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def test_several_images_need_a_tag(oci: Oci) -> None:
    one, two = oci.image({"disk/a": SECTOR}, tag="one"), oci.image({"disk/a": OTHER}, tag="two")
    archive = oci.archive(one, two)
    for tag, cause in (
        ("", "several images; say which as PATH:TAG: one, two"),
        ("three", "has one, two"),
    ):
        with pytest.raises(ImageError, match=cause), open_image("oci-archive", archive, tag):
            pass
    with open_image("oci-archive", archive, "two") as image:
        extract(image, "", oci.folder / "taken", lambda _: None)
    assert (oci.folder / "taken").read_bytes() == OTHER


def test_sources_that_are_none(tmp_path: Path, store: ImageStore) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("this is not a disk")
    empty = tmp_path / "empty.img"
    empty.touch()
    for source, cause in (
        (str(tmp_path / "gone.img"), "does not exist"),
        (str(tmp_path), "is a directory but not an OCI layout"),
        (str(text), "not a whole number of 512-byte sectors"),
        (str(empty), "is empty"),
        (f"oci-archive:{text}", "is not an uncompressed tar archive"),
        (f"oci:{tmp_path}", "has no index.json"),
        (f"oci-archive:{tmp_path}/gone.tar", "No such file"),
    ):
        with pytest.raises(ImageError, match=cause):
            store.disk("demo", parse_source(source), "")


def test_second_time_it_is_cached(oci: Oci, store: ImageStore, notes: list[str]) -> None:
    source = parse_source(str(oci.archive(oci.image({"disk/a.img": SECTOR}))))
    first = store.disk("demo", source, "")
    second = store.disk("demo", source, "")
    assert (first.cached, second.cached) == (False, True)
    assert first.path == second.path
    assert len(notes) == 1
    # Readable by the user that QEMU runs as, whatever the umask is.
    assert stat.S_IMODE(first.path.stat().st_mode) == 0o644


def test_the_same_content_elsewhere_is_the_same_cached_disk(oci: Oci, store: ImageStore) -> None:
    descriptor = oci.image({"disk/a.img": SECTOR})
    one = store.disk("demo", parse_source(str(oci.archive(descriptor))), "")
    two = store.disk("demo", parse_source(str(oci.layout(descriptor))), "")
    assert (one.path, two.cached) == (two.path, True)


def test_two_at_once_take_it_apart_once(oci: Oci, store: ImageStore, notes: list[str]) -> None:
    source = parse_source(str(oci.archive(oci.image({"disk/a.img": SECTOR * 4096}))))
    threads = [threading.Thread(target=store.disk, args=("demo", source, "")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(notes) == 1


def test_a_failure_leaves_no_part_behind(oci: Oci, store: ImageStore, tmp_path: Path) -> None:
    source = parse_source(str(oci.archive(oci.image({"etc/x": b"x"}))))
    with pytest.raises(ImageError, match="image demo: no file found"):
        store.disk("demo", source, "")
    assert {p.suffix for p in (tmp_path / "cache/images").iterdir()} == {".lock"}


def qcow2(
    *, version: int = 3, backing: int = 0, size: int = 1 << 20, crypt: int = 0, features: int = 0
) -> bytes:
    header = struct.pack(
        ">4sIQIIQIIQQIIQ",
        b"QFI\xfb",
        version,
        backing,
        0,
        16,
        size,
        crypt,
        1,
        0x30000,
        0x10000,
        1,
        0,
        0,
    )
    return (header + struct.pack(">QQQII", features, 0, 0, 4, 104)).ljust(1 << 16, b"\0")


def test_formats(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    for content, expected in ((SECTOR, "raw"), (qcow2(), "qcow2"), (qcow2(version=2), "qcow2")):
        path.write_bytes(content)
        assert image_format(path) == expected


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (qcow2(backing=0x100), "has a backing file"),
        (qcow2(features=4), "keeps its data in another file"),
        (qcow2(crypt=2), "is encrypted"),
        (qcow2(version=1), "it is of version 1"),
        (qcow2(size=0), "of a disk of 0 bytes"),
        (qcow2()[:90], "cut off in its header"),
        (b"KDMV".ljust(512, b"\0"), "is a VMDK image; qemu-img convert"),
        (b"vhdxfile".ljust(512, b"\0"), "is a VHDX image"),
        (b"\x1f\x8b".ljust(512, b"\0"), "is compressed with gzip; gunzip it first"),
    ],
)
def test_formats_that_are_refused(tmp_path: Path, content: bytes, cause: str) -> None:
    path = tmp_path / "disk"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=cause):
        image_format(path)
