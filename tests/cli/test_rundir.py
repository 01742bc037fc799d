"""Who holds a run directory, who lives, and what a dead holder left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvirt_launcher.account import current_account
from qvirt_launcher.errors import AlreadyRunning, HostError, NotRunning
from qvirt_launcher.rundir import (
    Record,
    _places,
    cache_root,
    claim,
    find,
    list_vms,
    runtime_root,
    start_time,
    state_of,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "run"


def test_one_holder_at_a_time(root: Path) -> None:
    held = claim(root, "default", "a")
    held.make()
    with pytest.raises(
        AlreadyRunning, match=r"default/a: is already running; stop it with `qvirt stop default/a`"
    ):
        claim(root, "default", "a")
    other = claim(root, "other", "a")
    other.remove()
    held.remove()
    assert not root.exists()
    held.remove()  # once more does no harm


def test_what_a_dead_holder_left_is_removed_by_the_next(root: Path, tmp_path: Path) -> None:
    disks = tmp_path / "disks"
    code = (
        "import os, pathlib, sys\nfrom qvirt_launcher.rundir import claim\n"
        "root, disks = map(pathlib.Path, sys.argv[1:])\n"
        "held = claim(root, 'default', 'a', disks=disks); held.make()\n"
        "(held.disks / 'root.qcow2').write_text('x')\n"
        "(held.path / 'secrets').mkdir(); (held.path / 'secrets/key').write_text('x')\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(root), str(disks)], check=False)
    assert done.returncode == -signal.SIGKILL
    (vm,) = list_vms(root)
    assert (vm.state, (vm.path / "secrets/key").exists()) == ("dead", True)
    assert (disks / "default/a/root.qcow2").exists()
    held = claim(root, "default", "a", disks=disks)
    assert not vm.path.exists()
    assert not (disks / "default/a").exists()
    held.make()
    assert list(held.path.iterdir()) == []
    held.remove()
    assert not (disks / "default").exists()


def test_a_launcher_whose_supervisor_died_is_told_to_end_and_waited_for(root: Path) -> None:
    held = claim(root, "default", "a")
    launcher = subprocess.Popen(["sleep", "60"], pass_fds=(held.lock,))
    held.write(
        Record(
            namespace="default",
            name="a",
            supervisor=os.getpid(),
            supervisor_start=start_time(os.getpid())
            - 1,  # a pid that was given to somebody else since
            launcher=launcher.pid,
            launcher_start=start_time(launcher.pid),
        )
    )
    held.forget()
    assert state_of(root, "default", "a") == "orphan"
    notes: list[str] = []
    again = claim(root, "default", "a", notes.append)
    assert launcher.wait() == -signal.SIGTERM
    assert notes == ["an earlier run was killed; its guest is being shut down first"]
    again.remove()


def test_nobody_is_killed_for_having_a_dead_launchers_pid(root: Path) -> None:
    held = claim(root, "default", "a")
    bystander = subprocess.Popen(["sleep", "60"])
    holder = subprocess.Popen(["sleep", "0.5"], pass_fds=(held.lock,))
    held.write(
        Record(
            namespace="default",
            name="a",
            launcher=bystander.pid,
            launcher_start=start_time(bystander.pid) - 1,
        )
    )
    held.forget()
    claim(root, "default", "a").remove()
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()
    holder.wait()


def test_a_zombie_does_not_live(root: Path) -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert start_time(child.pid) == 0
    child.wait()
    assert start_time(os.getpid()) > 0


def test_looking_does_not_disturb(root: Path) -> None:
    """A list or a look takes no lock that a starting VM could bump into."""
    held = claim(root, "default", "a")
    held.forget()
    for _ in range(3):
        assert [vm.state for vm in list_vms(root)] == ["dead"]
        claim(root, "default", "a").forget()


def test_finding_by_name(root: Path) -> None:
    with pytest.raises(NotRunning, match="a: doesn't run; `qvirt list` shows what does"):
        find(root, "", "a")
    one = claim(root, "default", "a")
    assert find(root, "", "a").record.namespace == "default"
    with pytest.raises(NotRunning, match="runs in namespace default"):
        find(root, "other", "a")
    two = claim(root, "other", "a")
    with pytest.raises(
        NotRunning, match=r"several namespaces \(default, other\); say which with -n"
    ):
        find(root, "", "a")
    assert find(root, "other", "a").path == two.path
    one.remove()
    two.remove()


def test_a_root_that_others_can_write_to_is_refused(root: Path) -> None:
    """In /tmp anybody could have made it before us."""
    root.mkdir()
    root.chmod(0o777)
    with pytest.raises(HostError, match="is not a directory of ours alone"):
        claim(root, "default", "a")
    root.rmdir()
    root.symlink_to("/etc")
    with pytest.raises(HostError, match="is not a directory of ours alone"):
        claim(root, "default", "a")


def test_a_link_in_the_place_of_a_run_directory_is_removed_and_not_followed(
    root: Path, tmp_path: Path
) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").touch()
    held = claim(root, "default", "a")
    held.path.symlink_to(tmp_path / "precious")
    held.remove()
    assert (tmp_path / "precious/file").exists()


@given(
    st.from_regex(r"\A[a-z0-9]{1,63}\Z"),
    st.from_regex(r"\A[a-z0-9]{1,253}\Z"),
    st.from_regex(r"\A[a-z0-9]{1,253}\Z"),
)
def test_paths_fit_a_socket_address_and_stay_apart(namespace: str, one: str, two: str) -> None:
    base = Path("/run/user/4294967295/qvirt")
    path, note = _places(base, namespace, one)
    assert len(str(path / "launcher.sock")) <= 107
    assert note.parent == path.parent
    assert (path == _places(base, namespace, two)[0]) == (one == two)


def test_a_base_that_is_too_long_is_an_error() -> None:
    with pytest.raises(HostError, match="set XDG_RUNTIME_DIR to a shorter path"):
        _places(Path("/" + "x" * 90), "default", "a")


def test_roots_of_an_ordinary_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "c"))
    assert (runtime_root(), cache_root()) == (tmp_path / "qvirt", tmp_path / "c/qvirt")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert (runtime_root(), cache_root()) == (Path("/tmp/qvirt-4711"), tmp_path / ".cache/qvirt")


def test_handing_over_changes_nothing_for_an_ordinary_user(root: Path) -> None:
    held = claim(root, "default", "a")
    held.make()
    held.hand_over(current_account())
    assert held.path.stat().st_uid == os.geteuid()
    held.remove()


@pytest.mark.root
def test_what_root_hands_over_is_the_accounts_entirely(root: Path) -> None:
    from qvirt_launcher.account import launcher_account

    account = launcher_account("nobody")
    held = claim(root, "default", "a")
    held.make()
    assert held.path.stat().st_mode & 0o777 == 0o700
    (held.path / "secrets").mkdir()
    (held.path / "secrets/key").touch()
    (held.path / "secrets/link").symlink_to("/etc/passwd")
    held.hand_over(account)
    for path in (held.path, *held.path.rglob("*")):
        assert path.lstat().st_uid == account.uid, path
    assert Path("/etc/passwd").stat().st_uid == 0
    held.remove()
