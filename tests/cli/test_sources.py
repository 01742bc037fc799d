"""Volumes, Secrets and kernels of a real guest, found on this machine by `qvirt run`."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest
from tests.cli.conftest import ROOT, SECTOR, Command, Content, Link, Oci, manifest

from qvirt_crds.load import load_manifests
from qvirt_launcher.account import current_account
from qvirt_launcher.cli import exits
from qvirt_launcher.cli.manifest import merge
from qvirt_launcher.errors import HostError, ImageError
from qvirt_launcher.registry import Registry
from qvirt_launcher.sources import Finder, Given

GUEST = ROOT / "build/guest"


def finder(
    tmp_path: Path, text: str, *secrets: str, images: dict[str, str] | None = None
) -> Finder:
    manifests = merge([load_manifests(t, "test") for t in (text, *secrets)])
    folder = tmp_path / "run"
    folder.mkdir()
    given = Given(images=images or {}, cache=tmp_path / "cache")
    return Finder(
        manifests.instances[0], manifests, given, current_account(), folder, lambda _: None
    )


def secret(name: str, **values: str) -> str:
    return json.dumps(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values}
    )


def test_each_role_gets_its_own_secrets_key_and_no_other(tmp_path: Path) -> None:
    volume = {
        "name": "seed",
        "cloudInitNoCloud": {
            "secretRef": {"name": "user"},
            "networkDataSecretRef": {"name": "network"},
        },
    }
    user = secret("user", userData="u", networkdata="not this", password="nor this")
    network = secret("network", networkdata="n", userdata="nor that")
    (found,) = finder(tmp_path, manifest("a", volumes=[volume]), user, network).find().volumes
    files = {path.name: path for path in Path(found.path).iterdir()}
    assert {name: path.read_text() for name, path in files.items()} == {
        "userData": "u",
        "networkdata": "n",
    }
    assert all(path.stat().st_mode & 0o777 == 0o400 for path in files.values())


def test_secrets_of_access_credentials_are_found_whole(tmp_path: Path) -> None:
    agent = {"qemuGuestAgent": {"users": ["vera"]}}
    key = {"source": {"secret": {"secretName": "keys"}}, "propagationMethod": agent}
    access = [{"sshPublicKey": key}, {"sshPublicKey": key}]
    text = manifest("a", accessCredentials=access)
    (found,) = finder(tmp_path, text, secret("keys", one="1", two="2")).find().volumes
    assert found.volume == "keys-access-cred"
    assert {file.name: file.read_text() for file in Path(found.path).iterdir()} == {
        "one": "1",
        "two": "2",
    }


def test_an_access_credentials_secret_that_is_not_there_is_named(tmp_path: Path) -> None:
    key = {
        "source": {"secret": {"secretName": "keys"}},
        "propagationMethod": {"qemuGuestAgent": {"users": ["vera"]}},
    }
    with pytest.raises(HostError, match="accessCredentials: Secret default/keys is not there"):
        finder(tmp_path, manifest("a", accessCredentials=[{"sshPublicKey": key}])).find()


def test_a_pull_secret_is_used_and_not_left_where_the_guests_user_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def look(self: Registry, _: str) -> str:
        assert self.authfile is not None
        seen.append(self.authfile.read_text())
        raise ImageError("enough")

    monkeypatch.setattr(Registry, "digest", look)
    volume = {
        "name": "root",
        "containerDisk": {"image": "registry.example/demo:v1", "imagePullSecret": "login"},
    }
    login = secret("login", **{".dockerconfigjson": '{"auths": {}}'})
    search = finder(tmp_path, manifest("a", volumes=[volume]), login)
    with pytest.raises(ImageError, match="enough"):
        search.find()
    assert seen == ['{"auths": {}}']
    assert list((tmp_path / "run").iterdir()) == []


def test_a_pull_secret_of_another_kind(tmp_path: Path) -> None:
    volume = {"name": "root", "containerDisk": {"image": "demo:v1", "imagePullSecret": "login"}}
    with pytest.raises(HostError, match=r"imagePullSecret login has no key \.dockerconfigjson"):
        finder(tmp_path, manifest("a", volumes=[volume]), secret("login", token="x")).find()


@pytest.mark.qemu
@pytest.mark.guest
def test_a_guest_of_many_sources(
    qvirt: Command, oci: Oci, tmp_path: Path, vm_name: str, demo_guest: str
) -> None:
    """Kernel and initrd out of an image, seed out of a Secret, a claim that keeps and one that forgets."""
    kernel, initrd = (GUEST / f"demo-guest.{part}" for part in ("vmlinuz", "initrd"))
    layer: Content = {
        "boot/vmlinuz-6": kernel.read_bytes(),
        "boot/vmlinuz": Link("vmlinuz-6"),
        "initrd": initrd.read_bytes(),
    }
    archive = oci.archive(oci.image(layer, compression="none"))
    for name in ("kept.img", "base.img"):
        path = tmp_path / name
        path.write_bytes(SECTOR * 2048)
        path.chmod(0o666)
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(0o755)
    vm = json.loads(
        manifest(
            vm_name,
            grace=60,
            volumes=[
                {"name": "seed", "cloudInitNoCloud": {"secretRef": {"name": "login"}}},
                {"name": "kept", "persistentVolumeClaim": {"claimName": "kept"}},
                {"name": "base", "ephemeral": {"persistentVolumeClaim": {"claimName": "base"}}},
                {"name": "empty", "emptyDisk": {"capacity": "1Mi"}},
            ],
        )
    )
    container = {"image": "kernels:v1", "kernelPath": "/boot/vmlinuz", "initrdPath": "/initrd"}
    vm["spec"]["domain"]["firmware"] = {
        "kernelBoot": {"kernelArgs": "console=ttyS0", "container": container}
    }
    file, login = tmp_path / "vm.yaml", tmp_path / "login.yaml"
    file.write_text(json.dumps(vm))
    login.write_text(secret("login", userdata="#cloud-config\nhostname: secretive\n"))

    options = (
        "--image",
        f"kernels:v1={archive}",
        "--pvc",
        "kept=kept.img",
        "--pvc",
        "base=base.img",
    )
    done = qvirt.run("run", file, "--secret", login, *options, "--network", "none", "--detach")
    assert done.code == exits.OK, done.err
    try:
        boot = qvirt.run("console", vm_name, "--until", "secretive login:", "--timeout", "90")
        assert boot.code == exits.OK, boot.err
        qvirt.run("console", vm_name, "--until", "# ", "--timeout", "60", stdin="root\n")
        write = "for d in b c d; do echo written > /dev/vd$d; done; sync; echo do''ne\n"
        wrote = qvirt.run("console", vm_name, "--until", "done", "--timeout", "60", stdin=write)
        assert wrote.code == exits.OK, wrote.err
    finally:
        stopped = qvirt.run("stop", vm_name)
    assert stopped.code == exits.OK, stopped.out
    assert (tmp_path / "kept.img").read_bytes().startswith(b"written\n")
    assert (tmp_path / "base.img").read_bytes() == SECTOR * 2048


@pytest.mark.qemu
@pytest.mark.root
def test_what_the_launchers_user_cant_open_is_said_beforehand(
    qvirt: Command, tmp_path: Path, vm_name: str
) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(SECTOR)
    disk.chmod(0o600)
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(0o755)
    file = tmp_path / "vm.yaml"
    claim = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}
    image = {"name": "root", "containerDisk": {"image": "demo:v1"}}
    for volume, option, what in (
        (claim, f"--pvc=data={disk}", "volume data: claim data"),
        (image, f"--image=demo:v1={disk}", "volume root: image demo:v1"),
    ):
        file.write_text(manifest(vm_name, volumes=[volume]))
        done = qvirt.run("run", file, option)
        assert done.code == exits.HOST
        assert f"{what}: {disk}: user " in done.error
        assert "can't open it (Permission denied)" in done.error
    assert os.geteuid() == 0


def test_base64_in_a_secret_is_decoded_once(tmp_path: Path) -> None:
    data = base64.b64encode(b"#cloud-config\n").decode()
    text = json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "s"},
            "data": {"userdata": data},
        }
    )
    volume = {"name": "seed", "cloudInitConfigDrive": {"secretRef": {"name": "s"}}}
    (found,) = finder(tmp_path, manifest("a", volumes=[volume]), text).find().volumes
    assert (Path(found.path) / "userdata").read_bytes() == b"#cloud-config\n"
