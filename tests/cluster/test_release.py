"""Downloading a release: only what its checksum confirms, each program once."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from qvirt_cluster.binaries import obtain
from qvirt_cluster.build import PROGRAMS
from qvirt_cluster.errors import BuildFailed, UsageError


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def release(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A release's folder and its address."""
    folder = tmp_path / "served"
    folder.mkdir()
    for program in PROGRAMS:
        data = f"this is {program}".encode()
        (folder / program).write_bytes(data)
        (folder / f"{program}.sha256").write_text(hashlib.sha256(data).hexdigest())
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def environment(tmp_path: Path, url: str) -> dict[str, str]:
    return {"XDG_CACHE_HOME": str(tmp_path / "cache"), "K8S_RELEASE_URL": url}


def test_programs_are_downloaded_once(tmp_path: Path, release: tuple[Path, str]) -> None:
    served, url = release
    folder = obtain(environment(tmp_path, url))
    assert {path.name for path in folder.iterdir()} == set(PROGRAMS)
    assert all(path.stat().st_mode & 0o111 for path in folder.iterdir())
    for path in served.iterdir():
        path.unlink()
    assert obtain(environment(tmp_path, url)) == folder


def test_a_wrong_checksum_leaves_no_program(tmp_path: Path, release: tuple[Path, str]) -> None:
    served, url = release
    (served / "kubelet.sha256").write_text("0" * 64)
    with pytest.raises(BuildFailed, match="kubelet has SHA-256"):
        obtain(environment(tmp_path, url))
    assert not list((tmp_path / "cache").rglob("*kubelet*"))


def test_an_unreachable_release_is_told_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match="K8S_RELEASE_URL"):
        obtain(environment(tmp_path, "http://127.0.0.1:9/none"))


def test_an_incomplete_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kubelet").touch()
    with pytest.raises(UsageError, match="has no kube-apiserver"):
        obtain({"K8S_BIN_DIR": str(tmp_path), "HOME": str(tmp_path)})
