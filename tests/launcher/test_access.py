"""Access credentials on their way into the guest: where their Secrets lie, and what goes into a cloud-init seed."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pycdlib
import pytest

from qvirt_crds.defaults import apply_defaults
from qvirt_crds.report import LocalVolume
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_launcher import access, podvolumes, prepare, secretfiles
from qvirt_launcher.disks import plan_disks
from qvirt_launcher.errors import HostError, PrepareError
from qvirt_launcher.secretfiles import Credential

UUID = "5d307ca9-b3ef-428c-8861-06e72d69f223"
NO_CLOUD: dict[str, object] = {"noCloud": {}}


def entry(secret: str, method: Mapping[str, object], kind: str = "sshPublicKey") -> dict[str, Any]:
    source = {"secret": {"secretName": secret}}
    return {kind: {"source": source, "propagationMethod": method}}


def vmi(*entries: Mapping[str, object], seed: str = "cloudInitNoCloud") -> VirtualMachineInstance:
    data = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "tiny"},
        "spec": {
            "domain": {
                "devices": {"disks": [{"name": "seed", "disk": {}}]},
                "memory": {"guest": "64Mi"},
            },
            "volumes": [{"name": "seed", seed: {"userData": "#cloud-config\n"}}],
            "accessCredentials": list(entries),
        },
    }
    return apply_defaults(msgspec.convert(data, VirtualMachineInstance), new_uuid=lambda: UUID)


def secret(folder: Path, name: str, **values: str) -> LocalVolume:
    place = folder / name
    place.mkdir(parents=True)
    for key, value in values.items():
        (place / key).write_text(value)
    return LocalVolume(volume=f"{name}-access-cred", path=str(place), read_only=True)


def meta_data(path: str, name: str) -> dict[str, Any]:
    disc = pycdlib.PyCdlib()
    disc.open(path)
    out = io.BytesIO()
    disc.get_file_from_iso_fp(out, rr_path=f"/{name}")
    disc.close()
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


@pytest.mark.parametrize(
    ("seed", "method", "file", "field"),
    [
        ("cloudInitNoCloud", NO_CLOUD, "meta-data", "public-keys"),
        (
            "cloudInitConfigDrive",
            {"configDrive": {}},
            "openstack/latest/meta_data.json",
            "public_keys",
        ),
    ],
)
def test_keys_of_all_secrets_are_in_the_seed(
    tmp_path: Path, seed: str, method: Mapping[str, object], file: str, field: str
) -> None:
    spec = vmi(
        entry("one", method),
        entry("other", {"qemuGuestAgent": {"users": ["vera"]}}),
        entry("two", method),
        seed=seed,
    )
    volumes = (
        secret(tmp_path, "one", a="ssh-rsa A\n# no key\n\n", b="ssh-rsa B"),
        secret(tmp_path, "two", c="ssh-rsa A\nssh-rsa C"),
        secret(tmp_path, "other", d="ssh-rsa D"),
    )
    (step,) = plan_disks(spec, volumes, str(tmp_path)).steps
    prepare.make(step)
    found = meta_data(str(tmp_path / "seed.iso"), file)
    assert found[field] == {"0": "ssh-rsa A", "1": "ssh-rsa B", "2": "ssh-rsa C"}
    assert UUID in (found.get("instance-id"), found.get("uuid"))


def test_a_method_of_the_other_seed_puts_nothing_into_this_one(tmp_path: Path) -> None:
    spec = vmi(entry("one", {"configDrive": {}}))
    (step,) = plan_disks(spec, (secret(tmp_path, "one", a="ssh-rsa A"),), str(tmp_path)).steps
    prepare.make(step)
    assert "public-keys" not in meta_data(str(tmp_path / "seed.iso"), "meta-data")


def test_what_the_agent_carries(tmp_path: Path) -> None:
    spec = vmi(
        entry("keys", {"qemuGuestAgent": {"users": ["vera", "otto"]}}),
        entry("words", {"qemuGuestAgent": {}}, "userPassword"),
        entry("boot", NO_CLOUD),
    )
    volumes = tuple(secret(tmp_path, name) for name in ("keys", "words", "boot"))
    assert access.by_agent(spec, volumes) == (
        Credential(
            kind="keys", secret="keys", directory=str(tmp_path / "keys"), users=("vera", "otto")
        ),
        Credential(kind="passwords", secret="words", directory=str(tmp_path / "words")),
    )


def test_a_secret_without_a_place_is_named(tmp_path: Path) -> None:
    spec = vmi(entry("keys", {"qemuGuestAgent": {"users": ["vera"]}}), entry("boot", NO_CLOUD))
    with pytest.raises(PrepareError, match=r"Secret keys .* keys-access-cred"):
        access.by_agent(spec, ())
    with pytest.raises(PrepareError, match=r"Secret boot .* boot-access-cred"):
        plan_disks(spec, (), str(tmp_path))


def test_in_a_pod_they_are_where_the_kubelet_mounts_them(tmp_path: Path) -> None:
    spec = vmi(entry("my.keys", NO_CLOUD), entry("my.keys", {"qemuGuestAgent": {"users": ["v"]}}))
    (found,) = podvolumes.find(spec, str(tmp_path), podvolumes.Pod(root=tmp_path)).volumes
    assert found == LocalVolume(
        volume="my.keys-access-cred",
        path=f"{tmp_path}/var/run/kubevirt-private/secret/my.keys-access-cred",
        read_only=True,
    )


def test_the_kubelets_own_names_are_no_keys(tmp_path: Path) -> None:
    """As it mounts a Secret: a link to a directory that it replaces as a whole."""
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026" / "one").write_text("v")
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "one").symlink_to("..data/one")
    assert secretfiles.values("s", str(tmp_path)) == {"one": "v"}


@pytest.mark.parametrize(("data", "why"), [(b"\xff", "utf-8"), (b"x" * (1 << 20) + b"x", "1 MiB")])
def test_a_value_that_can_be_none_is_refused(tmp_path: Path, data: bytes, why: str) -> None:
    (tmp_path / "one").write_bytes(data)
    with pytest.raises(HostError, match=f"Secret s: .*{why}"):
        secretfiles.values("s", str(tmp_path))


def test_a_secret_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"Secret s: .*gone: No such file"):
        secretfiles.values("s", os.path.join(tmp_path, "gone"))
