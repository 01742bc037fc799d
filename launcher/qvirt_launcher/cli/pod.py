"""``qvirt pod``: a VM as a pod for a node without a control plane, offline."""

from __future__ import annotations

import argparse
import base64
import shlex
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import yaml
from msgspec.structs import replace

from qvirt_crds.load import Manifests
from qvirt_crds.names import DEFAULT_NAMESPACE
from qvirt_crds.report import Lease
from qvirt_crds.sync import SyncArguments
from qvirt_crds.vm import RunStrategy, VirtualMachineInstance
from qvirt_crds.volumes import CloudInit, Volume
from qvirt_launcher.claims import Claim, parse_claim
from qvirt_launcher.cli import exits
from qvirt_launcher.cli.manifest import choose_instance, merge, read_manifests
from qvirt_launcher.cloudinit import NETWORK_DATA_KEYS, USER_DATA_KEYS
from qvirt_launcher.errors import HostError, UsageError
from qvirt_launcher.images import parse_mapping
from qvirt_launcher.publish import parse_publish
from qvirt_launcher.sources import Given, refuse_unknown, required
from qvirt_launcher.uplink import user_mode
from qvirt_pods import edge
from qvirt_pods.pods import hostname
from qvirt_pods.settings import Settings

#: What podman and containerd call images that were loaded and come from nowhere.
_LOCAL: Final = "localhost/"
#: So that the same VM is the same machine whenever its pod is written; derived from its name.
_UUIDS: Final = uuid.UUID("9c0d2d4e-7f0b-5c1e-8a63-0f5a2f2d7d11")


def run(arguments: argparse.Namespace) -> int:
    """Print the pod as YAML."""
    read = [read_manifests(file) for file in (arguments.file, *arguments.secret)]
    manifests = merge(read)
    vmi = choose_instance(manifests, arguments.name, arguments.file, uuids=_UUIDS)
    order = _order(manifests, vmi, arguments)
    pod = edge.edge_pod(order)
    sys.stdout.write(_header(arguments, order))
    yaml.dump(pod, sys.stdout, _Dumper, sort_keys=False, width=1000, allow_unicode=True)
    _notes(order, manifests)
    return exits.OK


def _order(
    manifests: Manifests, vmi: VirtualMachineInstance, arguments: argparse.Namespace
) -> edge.Order:
    vmi = replace(vmi, metadata=replace(vmi.metadata, namespace=_namespace(vmi)))
    given = {
        claim.name: (claim, _claim(text))
        for text in arguments.pvc
        for claim in (parse_claim(text),)
    }
    claims = {name: claim for name, (claim, _) in given.items()}
    images = dict(map(parse_mapping, arguments.image))
    refuse_unknown(vmi, Given(images=images, claims=claims, cache=Path()))
    strategy = _strategy(manifests, vmi)
    published = tuple(map(_published, arguments.publish))
    if published and not vmi.spec.domain.devices.interfaces:
        raise UsageError("--publish: the VM has no network card")
    vmi = _adapted(vmi, manifests, claims, images)
    attachments = tuple(
        # For QEMU's own DHCP server to tell the guest what it is called.
        replace(each, lease=Lease(mac=each.mac, hostname=hostname(vmi)))
        for each in user_mode(vmi, edge.forwards(vmi, published))
    )
    return edge.Order(
        sync=SyncArguments(vmi=vmi, attachments=attachments, accel=arguments.accel),
        settings=Settings(launcher_image=arguments.launcher_image, use_emulation=True),
        restart=edge.restart_policy(strategy),
        claims={name: there for name, (_, there) in given.items()},
        published=published,
    )


def _namespace(vmi: VirtualMachineInstance) -> str:
    return vmi.metadata.namespace or DEFAULT_NAMESPACE


def _strategy(manifests: Manifests, vmi: VirtualMachineInstance) -> RunStrategy | None:
    """Of the VirtualMachine that the instance is made from; None for an instance of its own."""
    for machine in manifests.machines:
        where = machine.metadata.namespace or DEFAULT_NAMESPACE
        if (machine.metadata.name, where) == (vmi.metadata.name, _namespace(vmi)):
            return machine.spec.run_strategy or ("Always" if machine.spec.running else "Halted")
    return None


def _published(text: str) -> edge.Published:
    """Unlike those of `qvirt run`, ports are there for others, so that no address means every one."""
    port = parse_publish(text)
    ports = text.partition("/")[0]
    given = ports.count(":") > 1
    return edge.Published(
        host_port=port.host_port,
        guest_port=port.guest_port,
        protocol=port.protocol,
        host_address=port.host_address if given else "",
    )


def _claim(text: str) -> edge.Claim:
    """A path that ends with a slash is a directory; this machine need not be the node, so that nobody looks."""
    claim = parse_claim(text)
    if claim.format != "raw":
        raise UsageError(
            f"--pvc {text}: a pod's claims are raw; qemu-img convert -O raw makes such a file"
        )
    if not claim.path.is_absolute():
        raise UsageError(f"--pvc {text}: write the node's path in full, beginning with /")
    path = text.partition("=")[2].removesuffix(",readonly")
    return edge.Claim(path=str(claim.path), directory=path.endswith("/"))


def _adapted(
    vmi: VirtualMachineInstance,
    manifests: Manifests,
    claims: Mapping[str, Claim],
    images: Mapping[str, str],
) -> VirtualMachineInstance:
    """With the node's names of images and claims, and Secrets' values in place of their names."""
    namespace = _namespace(vmi)
    secrets = {
        name: values for (where, name), values in manifests.secrets.items() if where == namespace
    }
    volumes = []
    for volume in vmi.spec.volumes:
        changed = _with_image(volume, images)
        changed = _with_claim(changed, claims)
        volumes.append(_with_secrets(changed, secrets))
    domain = vmi.spec.domain
    firmware = domain.firmware
    if firmware and firmware.kernel_boot and (container := firmware.kernel_boot.container):
        container = replace(container, image=images.get(container.image, container.image))
        boot = replace(firmware.kernel_boot, container=container)
        domain = replace(domain, firmware=replace(firmware, kernel_boot=boot))
    return replace(vmi, spec=replace(vmi.spec, volumes=tuple(volumes), domain=domain))


def _with_image(volume: Volume, images: Mapping[str, str]) -> Volume:
    disk = volume.container_disk
    if disk is None:
        return volume
    disk = replace(disk, image=images.get(disk.image, disk.image))
    if disk.image.startswith(_LOCAL) and disk.image_pull_policy == "Always":
        disk = replace(disk, image_pull_policy="IfNotPresent")
    return replace(volume, container_disk=disk)


def _with_claim(volume: Volume, claims: Mapping[str, Claim]) -> Volume:
    claim = volume.persistent_volume_claim
    known = claims.get(claim.claim_name) if claim else None
    if claim is None or known is None or not known.read_only:
        return volume
    return replace(volume, persistent_volume_claim=replace(claim, read_only=True))


def _with_secrets(volume: Volume, secrets: Mapping[str, Mapping[str, bytes]]) -> Volume:
    """cloud-init's data in the VM itself: a pod without a control plane can't name a Secret."""
    if volume.cloud_init_no_cloud is not None:
        data = _inlined(volume.name, volume.cloud_init_no_cloud, secrets)
        return replace(volume, cloud_init_no_cloud=data)
    if volume.cloud_init_config_drive is not None:
        data = _inlined(volume.name, volume.cloud_init_config_drive, secrets)
        return replace(volume, cloud_init_config_drive=data)
    return volume


def _inlined(volume: str, data: CloudInit, secrets: Mapping[str, Mapping[str, bytes]]) -> CloudInit:
    if data.secret_ref is not None:
        text = _value(volume, data.secret_ref.name, secrets, USER_DATA_KEYS)
        data = replace(data, secret_ref=None, user_data_base64=text)
    if data.network_data_secret_ref is not None:
        text = _value(volume, data.network_data_secret_ref.name, secrets, NETWORK_DATA_KEYS)
        data = replace(data, network_data_secret_ref=None, network_data_base64=text)
    return data


def _value(
    volume: str, name: str, secrets: Mapping[str, Mapping[str, bytes]], keys: tuple[str, ...]
) -> str:
    if name not in secrets:
        raise HostError(
            f"volume {volume}: Secret {name} is not there; put it beside the VM, or give its manifest with --secret FILE"
        )
    found = required(volume, name, secrets[name], keys)
    return base64.b64encode(next(iter(found.values()))).decode()


# --- what is written -------------------------------------------------------------------------------------------------


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks, nothing by reference."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _header(arguments: argparse.Namespace, order: edge.Order) -> str:
    """How the file came to be, and where the guest's ports are."""
    words = [word for word in sys.argv[1:] if word]
    lines = [f"Written by: qvirt {shlex.join(words)}"]
    outside = {(port.protocol, port.guest_port): port.host_port for port in order.published}
    for port in order.forwards:
        host = outside.get((port.protocol, port.guest_port))
        there = f", {host} of the node" if host else ""
        lines.append(
            f"Port {port.guest_port}/{port.protocol} of the guest is {port.host_port} of the pod{there}."
        )
    if arguments.secret or any(map(_has_secrets, order.sync.vmi.spec.volumes)):
        lines.append("Has data of cloud-init, which may be secret: chmod 600.")
    return "".join(f"# {line}\n" for line in lines)


def _has_secrets(volume: Volume) -> bool:
    data = volume.cloud_init_no_cloud or volume.cloud_init_config_drive
    return data is not None and bool(data.user_data_base64)


def _notes(order: edge.Order, manifests: Manifests) -> None:
    vmi = order.sync.vmi
    name = vmi.metadata.name

    def note(text: str) -> None:
        print(f"qvirt: {name}: {text}", file=sys.stderr)

    if _strategy(manifests, vmi) in ("Halted", "Manual"):
        note(
            "the manifest's run strategy does not start it; a pod's file does, and nothing starts it again"
        )
    if vmi.spec.domain.devices.interfaces and not order.forwards:
        note("no port of the guest is reachable; --publish HOST:GUEST makes one so")
    if any(v.container_disk and v.container_disk.image_pull_secret for v in vmi.spec.volumes):
        note("imagePullSecret is left out: the node needs the image, or credentials of its own")
