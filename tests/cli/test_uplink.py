"""How the network is chosen, and what passt and netsetup are asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.cli.conftest import manifest

from qvirt_crds.defaults import apply_defaults
from qvirt_crds.errors import SpecError
from qvirt_crds.load import load_manifests
from qvirt_crds.report import Attachment, PortForward
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_launcher import passt, uplink
from qvirt_launcher.account import current_account
from qvirt_launcher.errors import HostError, UsageError
from qvirt_launcher.uplink import Uplink, Wish, choose

PORT = PortForward(host_port=8080, guest_port=80)


def have(monkeypatch: pytest.MonkeyPatch, installed: bool) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/passt" if installed else None)


@pytest.mark.parametrize(
    ("root", "installed", "publish", "choice"),
    [
        (True, True, (), "nat"),
        (True, False, (), "nat"),
        (True, True, (PORT,), "user"),
        (False, True, (), "passt"),
        (False, True, (PORT,), "passt"),
        (False, False, (), "user"),
    ],
)
def test_the_automatic_choice(
    monkeypatch: pytest.MonkeyPatch,
    root: bool,
    installed: bool,
    publish: tuple[PortForward, ...],
    choice: str,
) -> None:
    have(monkeypatch, installed)
    assert choose("auto", publish, {}, root=root).choice == choice


@pytest.mark.parametrize(
    ("wish", "root", "publish", "links", "error", "cause"),
    [
        ("nat", False, (), {}, HostError, "needs root; start as root, or use --network user"),
        ("takeover", False, (), {}, HostError, "needs root"),
        ("passt", True, (), {}, HostError, "passt is not installed; apt install passt"),
        ("nat", True, (PORT,), {}, UsageError, "--publish: works with --network user or passt"),
        ("none", True, (PORT,), {}, UsageError, "--publish"),
        ("nat", True, (), {"": "eth0"}, UsageError, "--interface: is for --network takeover"),
    ],
)
def test_choices_that_cant_be(
    monkeypatch: pytest.MonkeyPatch,
    wish: Wish,
    root: bool,
    publish: tuple[PortForward, ...],
    links: dict[str, str],
    error: type[Exception],
    cause: str,
) -> None:
    have(monkeypatch, installed=False)
    with pytest.raises(error, match=cause):
        choose(wish, publish, links, root=root)


def test_passt_listens_where_it_was_told_to() -> None:
    ports = (
        PORT,
        PortForward(host_port=2222, guest_port=22),
        PortForward(host_port=53, guest_port=53, protocol="udp", host_address="0.0.0.0"),
    )
    attachment = Attachment(
        interface="default", backend="passt", mac="02:00:00:00:00:01", publish=ports
    )
    argv = passt.arguments(Path("/run/x.sock"), attachment)
    assert argv[argv.index("-t") + 1] == "127.0.0.1/8080:80,2222:22"
    assert argv[argv.index("-u") + 1] == "0.0.0.0/53:53"
    assert argv[argv.index("-s") + 1] == "/run/x.sock"


def loaded(text: str) -> VirtualMachineInstance:
    (vmi,) = load_manifests(text, "test").instances
    return apply_defaults(vmi, new_uuid=lambda: "00000000-0000-4000-8000-000000000001")


def two_networks() -> VirtualMachineInstance:
    return loaded(
        """
        apiVersion: kubevirt.io/v1
        kind: VirtualMachineInstance
        metadata: {name: two}
        spec:
          domain:
            cpu: {cores: 4}
            memory: {guest: 64Mi}
            devices:
              networkInterfaceMultiqueue: true
              interfaces: [{name: default, bridge: {}}, {name: storage, bridge: {}}]
          networks: [{name: default, pod: {}}, {name: storage, multus: {networkName: nad}}]
        """
    )


def test_a_second_network_goes_where_it_was_said_to() -> None:
    notes: list[str] = []
    given = Uplink(choice="takeover", links={"": "eth0", "storage": "eth1"})
    asked = uplink.requests(given, two_networks(), notes.append)
    assert [(r.name, r.mode, r.link, r.queues) for r in asked] == [
        ("default", "takeover", "eth0", 4),
        ("storage", "takeover", "eth1", 4),
    ]
    assert notes == []


def test_without_multus_a_second_network_is_refused_or_said() -> None:
    with pytest.raises(
        SpecError, match=r"spec.networks\[1\].multus: there is no Multus without a cluster"
    ):
        uplink.requests(Uplink(choice="takeover"), two_networks(), lambda _: None)
    notes: list[str] = []
    asked = uplink.requests(Uplink(choice="nat"), two_networks(), notes.append)
    assert [r.mode for r in asked] == ["nat", "nat"]
    assert "there is no Multus" in notes[0]


def test_no_network_takes_the_cards_out() -> None:
    vmi = uplink.without_network(loaded(manifest("a", network=True)))
    assert (vmi.spec.domain.devices.interfaces, vmi.spec.networks) == ((), ())


def test_macs_stay_the_same_and_differ() -> None:
    vmi = two_networks()
    first, second = vmi.spec.domain.devices.interfaces
    assert uplink._mac(vmi, first) == uplink._mac(vmi, first) != uplink._mac(vmi, second)
    assert int(uplink._mac(vmi, first).split(":")[0], 16) & 3 == 2  # locally administered, unicast


@pytest.fixture
def a_machine_without_user_namespaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """passt ends at once there, as it can't isolate itself."""
    program = tmp_path / "passt"
    program.write_text('#!/bin/sh\necho "Couldn\'t create user namespace: no" >&2\nexit 1\n')
    program.chmod(0o755)
    tmp_path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


@pytest.mark.usefixtures("a_machine_without_user_namespaces")
async def test_user_mode_stands_in_for_a_passt_that_nobody_asked_for(tmp_path: Path) -> None:
    vmi, account, notes = two_networks(), current_account(), list[str]()
    chosen = Uplink(choice="passt", because="not root", publish=(PORT,))
    async with uplink.attached(chosen, vmi, tmp_path, account, notes.append) as made:
        assert [a.backend for a in made.attachments] == ["user", "user"]
        assert made.attachments[0].publish == (PORT,)
    assert notes[0].startswith("network: user instead (passt: doesn't start: Couldn't create")
    with pytest.raises(HostError, match="Couldn't create user namespace"):
        async with uplink.attached(Uplink(choice="passt"), vmi, tmp_path, account, notes.append):
            pass
