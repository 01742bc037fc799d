"""Claims as files and devices, and whether the launcher's user can open them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qvirt_launcher.account import Account, check_access, current_account, launcher_account
from qvirt_launcher.claims import Claim, local_claim, parse_claim
from qvirt_launcher.errors import ClaimError, HostError, UsageError


@pytest.mark.parametrize(
    ("text", "claim"),
    [
        ("data=/a", Claim(name="data", path=Path("/a"))),
        ("data=/a,format=qcow2", Claim(name="data", path=Path("/a"), format="qcow2")),
        ("data=/a,format=raw,readonly", Claim(name="data", path=Path("/a"), read_only=True)),
        ("data=/a,b=c", Claim(name="data", path=Path("/a,b=c"))),
        ("data=/a,b,readonly", Claim(name="data", path=Path("/a,b"), read_only=True)),
    ],
)
def test_claims_as_typed(text: str, claim: Claim) -> None:
    assert parse_claim(text) == claim


@pytest.mark.parametrize("text", ["data", "data=", "=/a", "", "data=,readonly"])
def test_claims_that_say_nothing(text: str) -> None:
    with pytest.raises(UsageError, match="write it as CLAIM=PATH"):
        parse_claim(text)


def test_an_unknown_format() -> None:
    with pytest.raises(UsageError, match="format 'vmdk' is unknown"):
        parse_claim("data=/a,format=vmdk")


def local(path: Path, form: str = "raw") -> str:
    claim = Claim(name="data", path=path, format="qcow2" if form == "qcow2" else "raw")
    found = local_claim("root", claim, current_account(), read_only=False)
    assert (found.volume.format, found.volume.path) == (claim.format, str(path.resolve()))
    return found.warning


def test_files_and_directories(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(bytes(512))
    assert local(tmp_path / "disk.img") == ""
    claim = Claim(name="data", path=tmp_path)
    found = local_claim("root", claim, current_account(), read_only=True)
    assert (found.volume.path, found.volume.read_only) == (str(tmp_path / "disk.img"), True)


def test_the_format_is_never_read_off_what_a_guest_wrote(tmp_path: Path) -> None:
    """A guest that writes a qcow2 header to its raw disk must not have its header believed."""
    path = tmp_path / "disk.img"
    path.write_bytes(b"QFI\xfb".ljust(512, b"\0"))
    assert "is used as raw" in local(path)
    assert local(path, "qcow2") == ""


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (lambda _: None, r"volume root: claim data: .* does not exist; make it, e.g. truncate"),
        (lambda p: p.touch(), r"is empty; give it a size"),
        (lambda p: p.mkdir(), r"disk.img does not exist"),
        (lambda p: os.mkfifo(p), r"is neither a file nor a block device"),
    ],
)
def test_claims_without_a_disk(tmp_path: Path, make: object, cause: str) -> None:
    path = tmp_path / "claim"
    make(path)  # type: ignore[operator]
    with pytest.raises(ClaimError, match=cause):
        local(path)


def test_a_qcow2_claim_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(512))
    with pytest.raises(ClaimError, match="is not a qcow2 image; leave out format=qcow2"):
        local(path, "qcow2")


@pytest.mark.root
def test_access_is_tried_as_the_account(tmp_path: Path) -> None:
    account = launcher_account("nobody")
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(512))
    path.chmod(0o600)
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(0o755)
    with pytest.raises(
        HostError, match=r"user nobody can't open it \(Permission denied\); chown nobody"
    ):
        check_access("claim data", path, account, write=True)
    path.chmod(0o644)
    check_access("claim data", path, account, write=False)
    with pytest.raises(HostError, match="chown nobody"):
        check_access("claim data", path, account, write=True)
    tmp_path.chmod(0o700)
    with pytest.raises(HostError, match=f"user nobody can't enter {tmp_path}; chmod o.x"):
        check_access("claim data", path, account, write=False)
    assert (os.geteuid(), os.getegid()) == (0, 0)


def test_accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="--user no-such-user: no such user"):
        launcher_account("no-such-user")
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert launcher_account("").uid == 4711
    with pytest.raises(UsageError, match="only root may start guests as somebody else"):
        launcher_account("nobody")


def test_an_account_without_a_name() -> None:
    assert Account("4711", 4711, 4711).name == "4711"
