"""A VM as a pod for a node without a control plane: a kubelet's static pod, or `podman kube play` (pure).

Nobody is there to hand the guest over, to make its network or to mount Secrets and claims. So the VM stands in the pod's
environment, the guest has QEMU's user-mode network with its ports at the pod's address, and claims are files of the node. The rest is the
pod that virt-controller makes (`qvirt_pods.pods`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Literal

import msgspec

from qvirt_crds import pod_layout
from qvirt_crds.errors import Cause, SpecError
from qvirt_crds.model import Model
from qvirt_crds.report import PortForward
from qvirt_crds.sync import SyncArguments
from qvirt_crds.vm import RunStrategy, VirtualMachineInstance
from qvirt_pods import pods
from qvirt_pods.containers import Object
from qvirt_pods.settings import Settings

RestartPolicy = Literal["Never", "OnFailure", "Always"]

#: The launcher's user may not listen below; and what is added to those of the guest's ports that are.
FIRST_FREE_PORT: Final = 1024
PORT_OFFSET: Final = 8000
#: Linux' limit on one string of the environment (MAX_ARG_STRLEN), with room for the name.
_LONGEST: Final = 131072 - 256

Protocol = Literal["tcp", "udp"]


class Claim(Model, frozen=True, kw_only=True):
    """What a claim is on the node: a file, or a directory with a ``disk.img``."""

    path: str
    directory: bool = False


class Published(Model, frozen=True, kw_only=True):
    """A port of the node that reaches one of the guest; no address means all of the node's."""

    host_port: int
    guest_port: int
    protocol: Protocol = "tcp"
    host_address: str = ""


class Order(Model, frozen=True, kw_only=True):
    """What is known about one pod."""

    #: With the guest's interfaces attached in user mode, whose published ports are those of `forwards`.
    sync: SyncArguments
    settings: Settings
    restart: RestartPolicy = "Never"
    claims: dict[str, Claim] = {}
    published: tuple[Published, ...] = ()

    @property
    def forwards(self) -> tuple[PortForward, ...]:
        return tuple(port for each in self.sync.attachments for port in each.publish)


def restart_policy(strategy: RunStrategy | None) -> RestartPolicy:
    """What keeps a VM's run strategy where there is no controller; an instance of its own has none."""
    match strategy:
        case "Always":
            return "Always"
        case "RerunOnFailure":
            return "OnFailure"
        case "Once" | "Manual" | "Halted" | None:
            return "Never"


def forwards(
    vmi: VirtualMachineInstance, published: Iterable[Published]
) -> tuple[PortForward, ...]:
    """Ports of the pod for the guest's: those of the spec, of its probes, and the published ones.

    A guest's port below 1024 is 8000 higher at the pod (80 is 8080), or at the next free one.
    """
    wanted: dict[tuple[Protocol, int], None] = {}
    for interface in vmi.spec.domain.devices.interfaces:
        for port in interface.ports:
            wanted["udp" if port.protocol == "UDP" else "tcp", port.port] = None
    for port_ in published:
        wanted[port_.protocol, port_.guest_port] = None
    for _, _, port_number in _probed(vmi):
        wanted["tcp", port_number] = None
    taken = {key for key in wanted if key[1] >= FIRST_FREE_PORT}
    found = []
    for protocol, guest in wanted:
        here = guest
        if guest < FIRST_FREE_PORT:
            here = guest + PORT_OFFSET
            while (protocol, here) in taken:
                here += 1
            taken.add((protocol, here))
        found.append(
            PortForward(host_port=here, guest_port=guest, protocol=protocol, host_address="0.0.0.0")
        )
    return tuple(found)


def edge_pod(order: Order) -> Object:
    """The pod.

    :raise SpecError: something that needs a control plane, or that the network can't do.
    """
    vmi = order.sync.vmi
    if causes := tuple(_refused(vmi, order.claims)):
        raise SpecError(causes)
    pod = pods.launcher_pod(vmi, order.settings)
    pod["metadata"] = _metadata(pod["metadata"], vmi.metadata.name)
    spec = pod["spec"]
    del spec["readinessGates"]
    spec.pop("imagePullSecrets", None)
    spec["nodeSelector"] = dict(vmi.spec.node_selector)
    # Not Always: podman 4.3 would start the init container again and again. The launcher of a VM that is always to run
    # ends with a failure when nobody has told it to stop.
    spec["restartPolicy"] = "Never" if order.restart == "Never" else "OnFailure"
    if not spec["nodeSelector"]:
        del spec["nodeSelector"]
    _start_alone(spec, order)
    _hold_on(spec, order.restart)
    _mount_claims(spec, order)
    _own_names(spec, vmi.metadata.name)
    return pod


def _metadata(metadata: Object, name: str) -> Object:
    """No object of an API stands behind it. podman names containers after the pod, so that it has the VM's name."""
    gone = ("ownerReferences", "generateName")
    kept = {key: value for key, value in metadata.items() if key not in gone}
    labels = {k: v for k, v in metadata["labels"].items() if k != pods.CREATED_BY}
    return kept | {"name": name, "labels": labels}


def _start_alone(spec: Object, order: Order) -> None:
    """The VM itself, the ports, and where probes find them."""
    compute = spec["containers"][0]
    compute["command"] += ["--vm-from", pod_layout.VM_VARIABLE]
    if order.restart != "Never":
        compute["command"] += ["--restart-policy", order.restart]
    compute["env"] = [{"name": pod_layout.VM_VARIABLE, "value": environment(order.sync)}]
    at = {(port.protocol, port.guest_port): port.host_port for port in order.forwards}
    compute["ports"] = [
        {"containerPort": at[port.protocol, port.guest_port], "hostPort": port.host_port}
        | {"protocol": port.protocol.upper()}
        | ({"hostIP": port.host_address} if port.host_address else {})
        for port in order.published
    ]
    if not compute["ports"]:
        del compute["ports"]
    for probe, action, port_number in _probed(order.sync.vmi):
        compute[probe] = compute[probe] | {
            action: compute[probe][action] | {"port": at["tcp", port_number]}
        }


def environment(sync: SyncArguments) -> str:
    """The VM as the launcher reads it; a line a field, as people may read it, too.

    :raise SpecError: it is longer than the environment takes.
    """
    # The kubelet would expand $(NAME) in it.
    text = json.dumps(msgspec.to_builtins(sync), indent=1).replace("$", "\\u0024")
    if len(text) > _LONGEST:
        text = msgspec.json.encode(sync).decode().replace("$", "\\u0024")
    if len(text) > _LONGEST:
        raise SpecError(
            (
                Cause(
                    path="spec.volumes",
                    message=f"the VM takes {len(text)} bytes with its cloud-init data, and a pod's environment {_LONGEST};"
                    " have cloud-init fetch the larger part",
                ),
            )
        )
    return text


def _hold_on(spec: Object, restart: RestartPolicy) -> None:
    """Where the guest may run again, the sidecars of its images wait for that."""
    if restart == "Never":
        return
    for container in spec["containers"]:
        held = pod_layout.held_volume(tuple(container["command"]))
        if held is not None:
            container["command"] = pod_layout.holder_command(held, stays=True)


def _mount_claims(spec: Object, order: Order) -> None:
    for volume in spec["volumes"]:
        source = volume.pop("persistentVolumeClaim", None)
        if source is None:
            continue
        claim = order.claims[source["claimName"]]
        kind = "Directory" if claim.directory else "File"
        volume["hostPath"] = {"path": claim.path, "type": kind}
        for mount in spec["containers"][0]["volumeMounts"]:
            if mount["name"] == volume["name"]:
                mount |= {"readOnly": True} if source["readOnly"] else {}
                mount["mountPath"] += "" if claim.directory else f"/{pod_layout.CLAIM_FILE}"


def _own_names(spec: Object, name: str) -> None:
    """podman makes a volume of that name of every emptyDir, and keeps it: so no two VMs may have one of the same name."""
    new = {
        volume["name"]: pod_layout.label(f"{name.replace('.', '-')}-{volume['name']}")
        for volume in spec["volumes"]
    }
    for volume in spec["volumes"]:
        volume["name"] = new[volume["name"]]
    for container in (*spec["containers"], *spec.get("initContainers", ())):
        container["volumeMounts"] = [
            mount | {"name": new[mount["name"]]} for mount in container["volumeMounts"]
        ]


def _probed(vmi: VirtualMachineInstance) -> Iterator[tuple[str, str, int]]:
    """Probe, action and port of the guest, of those probes that go to the pod's address."""
    names = {
        port.name: port.port
        for interface in vmi.spec.domain.devices.interfaces
        for port in interface.ports
        if port.name
    }
    probes: Mapping[str, Mapping[str, Any] | None] = {
        "livenessProbe": vmi.spec.liveness_probe,
        "readinessProbe": vmi.spec.readiness_probe,
    }
    for name, probe in probes.items():
        for action in ("httpGet", "tcpSocket"):
            port = ((probe or {}).get(action) or {}).get("port")
            if port in names:
                port = names[port]
            if isinstance(port, int):
                yield name, action, port


def _refused(vmi: VirtualMachineInstance, claims: Mapping[str, Claim]) -> Iterator[Cause]:
    spec = vmi.spec
    for index, network in enumerate(spec.networks):
        if network.multus is not None:
            message = "there is no Multus on a node without a control plane; leave this network out"
            yield Cause(path=f"spec.networks[{index}].multus", message=message)
    for index, interface in enumerate(spec.domain.devices.interfaces):
        if interface.dhcp_options is not None:
            message = "user-mode networking has a DHCP server of its own; leave these options out"
            path = f"spec.domain.devices.interfaces[{index}].dhcpOptions"
            yield Cause(path=path, message=message)
    if spec.access_credentials:
        message = "there are no Secrets on a node without a control plane; use cloud-init"
        yield Cause(path="spec.accessCredentials", message=message)
    for index, volume in enumerate(spec.volumes):
        claim = pod_layout.claim_of(volume)
        if claim is not None and claim.claim_name not in claims:
            message = (
                f"claim {claim.claim_name} is unknown on a node without a control plane;"
                f" say what it is there with --pvc {claim.claim_name}=PATH"
            )
            yield Cause(path=f"spec.volumes[{index}].persistentVolumeClaim", message=message)
