"""What a cloud-init data source reads, as files of a small disc: decided here, written by `prepare`.

File names and volume ids are cloud-init's (data sources NoCloud and ConfigDrive); keys of a Secret and the content of the
meta data are KubeVirt's.
"""

from __future__ import annotations

import base64
import json
from typing import Final

import msgspec

from qvirt_crds.vm import VirtualMachineInstance
from qvirt_crds.volumes import CloudInit

USER_DATA_KEYS: Final = ("userdata", "userData")
NETWORK_DATA_KEYS: Final = ("networkdata", "networkData")


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Where a data source looks."""

    volume_id: str
    meta_data: str
    user_data: str
    network_data: str
    #: Of the meta data: ssh public keys by number (KubeVirt's shape).
    public_keys: str


NO_CLOUD: Final = Layout(
    volume_id="cidata",
    meta_data="meta-data",
    user_data="user-data",
    network_data="network-config",
    public_keys="public-keys",
)
CONFIG_DRIVE: Final = Layout(
    volume_id="config-2",
    meta_data="openstack/latest/meta_data.json",
    user_data="openstack/latest/user_data",
    network_data="openstack/latest/network_data.json",
    public_keys="public_keys",
)


class Seed(msgspec.Struct, frozen=True, kw_only=True):
    """Files known now (values are base64), and files to be read from a Secret's directory (keys to try, in order)."""

    files: dict[str, str]
    secret_keys: dict[str, tuple[str, ...]]


def no_cloud(vmi: VirtualMachineInstance, data: CloudInit) -> Seed:
    """The NoCloud seed; ``user-data`` is always there, as the data source demands."""
    meta = {"instance-id": _uuid(vmi), "local-hostname": hostname(vmi)}
    return _seed(NO_CLOUD, meta, data)


def config_drive(vmi: VirtualMachineInstance, data: CloudInit) -> Seed:
    """The ConfigDrive seed (OpenStack's version ``latest``)."""
    meta = {
        "instance_id": f"{vmi.metadata.name}.{vmi.metadata.namespace or 'default'}",
        "hostname": hostname(vmi),
        "uuid": _uuid(vmi),
    }
    return _seed(CONFIG_DRIVE, meta, data)


def hostname(vmi: VirtualMachineInstance) -> str:
    """The guest's name for itself: the spec's, else the VM's, up to the first dot, at most 63 characters."""
    name = vmi.spec.hostname or vmi.metadata.name
    return name.partition(".")[0][:63].rstrip("-")


def _uuid(vmi: VirtualMachineInstance) -> str:
    firmware = vmi.spec.domain.firmware
    return firmware.uuid if firmware is not None and firmware.uuid else vmi.metadata.uid


def _seed(layout: Layout, meta: dict[str, str], data: CloudInit) -> Seed:
    files = {layout.meta_data: _encode(json.dumps(meta, indent=1) + "\n")}
    secret_keys: dict[str, tuple[str, ...]] = {}
    if data.secret_ref is not None:
        secret_keys[layout.user_data] = USER_DATA_KEYS
    else:
        files[layout.user_data] = data.user_data_base64 or _encode(data.user_data)
    if data.network_data_secret_ref is not None:
        secret_keys[layout.network_data] = NETWORK_DATA_KEYS
    elif data.network_data or data.network_data_base64:
        files[layout.network_data] = data.network_data_base64 or _encode(data.network_data)
    return Seed(files=files, secret_keys=secret_keys)


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
