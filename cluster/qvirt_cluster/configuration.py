"""Texts of the configuration files. Pure: from the layout and facts to text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from qvirt_cluster.binaries import Binaries
from qvirt_cluster.host import Host
from qvirt_cluster.layout import (
    BRIDGE,
    CNI_NETWORK,
    KUBELET_HEALTH_PORT,
    KUBELET_PORT,
    KUBELET_ROOT,
    NODE_ADDRESS,
    NODE_CGROUP,
    NODE_POD_CIDR,
    PAUSE_IMAGE,
    REGISTRY_PORT,
    Layout,
)
from qvirt_cluster.version import Version


def configuration_files(layout: Layout, host: Host, binaries: Binaries) -> Mapping[Path, str]:
    """Every file below the configuration directory, with its text."""
    return {
        layout.config / "containerd.toml": containerd(layout, binaries),
        layout.config / "cni/10-qvirt-cluster.conflist": cni(layout),
        layout.config / "registries/_default/hosts.toml": registry_mirror(),
        layout.config / "registry.json": registry(layout),
        layout.config / "kubelet.json": kubelet(layout, host, binaries.version),
    }


def node_files(layout: Layout, host: Host, binaries: Binaries) -> Mapping[Path, str]:
    """The same for a node without a control plane, and without a registry."""
    return {
        layout.config / "containerd.toml": containerd(layout, binaries),
        layout.config / "cni/10-qvirt-cluster.conflist": cni(layout),
        layout.config / "kubelet.json": standalone_kubelet(layout, host, binaries.version),
    }


def containerd(layout: Layout, binaries: Binaries) -> str:
    """containerd's file.

    restrict_oom_score_adj: without CAP_SYS_RESOURCE no process may lower its score, and each pod would
    fail with "can't get final child's PID from pipe: EOF".
    device_ownership_from_security_context: block volumes belong to a pod's user, who is not root.
    """
    root = layout.containerd
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""version = 2
root = "{root}/root"
state = "{root}/run"
disabled_plugins = ["io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]

[grpc]
  address = "{layout.containerd_socket}"

[plugins."io.containerd.internal.v1.opt"]
  path = "{root}/opt"

[{cri}]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  device_ownership_from_security_context = true
  netns_mounts_under_state_dir = true

[{cri}.cni]
  bin_dir = "{binaries.cni}"
  conf_dir = "{layout.config}/cni"

[{cri}.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[{cri}.containerd.runtimes.runc.options]
  BinaryName = "{binaries.path("runc")}"
  Root = "{root}/runc"

[{cri}.registry]
  config_path = "{layout.config}/registries"
"""


def registry_mirror() -> str:
    """Every registry's name is served by the local one: docker.io/library/a is library/a there.

    `server` is the local one too: an image that is not there is "not found" at once, rather than
    after a time-out of a network that can't be reached.
    """
    address = f"http://127.0.0.1:{REGISTRY_PORT}"
    return f"""server = "{address}"

[host."{address}"]
  capabilities = ["pull", "resolve"]
"""


def registry(layout: Layout) -> str:
    document = {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(layout.state / "registry")},
            "delete": {"enabled": True},
        },
        "http": {"addr": f"127.0.0.1:{REGISTRY_PORT}"},
    }
    return json.dumps(document, indent=1) + "\n"


def cni(layout: Layout) -> str:
    """Pods on one bridge, behind the node's address; hostPorts by iptables."""
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": str(layout.state / "cni"),
            "ranges": [[{"subnet": NODE_POD_CIDR}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    document = {"cniVersion": "0.4.0", "name": CNI_NETWORK, "plugins": [bridge, portmap]}
    return json.dumps(document, indent=1) + "\n"


def kubelet(layout: Layout, host: Host, version: Version) -> str:
    """kubelet's file on a node of a cluster."""
    served = {
        "address": "0.0.0.0",
        "port": KUBELET_PORT,
        "readOnlyPort": 0,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(layout.certificate("ca"))},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(layout.certificate("kubelet")),
        "tlsPrivateKeyFile": str(layout.key("kubelet")),
    }
    return json.dumps(_kubelet(layout, host, version) | served, indent=1) + "\n"


def standalone_kubelet(layout: Layout, host: Host, version: Version) -> str:
    """kubelet's file on a node without a control plane: nobody asks it, it serves nothing but its own health."""
    alone = {
        "enableServer": False,
        "staticPodPath": str(layout.manifests),
        "fileCheckFrequency": "2s",
        "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "healthzBindAddress": NODE_ADDRESS,
        "cgroupRoot": f"/{NODE_CGROUP}",
    }
    return json.dumps(_kubelet(layout, host, version) | alone, indent=1) + "\n"


def _kubelet(layout: Layout, host: Host, version: Version) -> dict[str, object]:
    """As little as possible is kept for the system, the machine is for tests."""
    document: dict[str, object] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "healthzPort": KUBELET_HEALTH_PORT,
        "cgroupDriver": "cgroupfs",
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        "evictionHard": {
            "memory.available": "50Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
        # Collection of images is off: the pause image can't be pulled again.
        "imageGCHighThresholdPercent": 100,
        "serializeImagePulls": False,
        # Looks at itself often, so that it is Ready soon; reports only what changed (its lease shows that it lives).
        "nodeStatusUpdateFrequency": "1s",
        "nodeStatusReportFrequency": "5m",
        "maxOpenFiles": host.open_files,
        "oomScoreAdj": 0,
        "clusterDomain": "cluster.local",
        "resolvConf": "/etc/resolv.conf",
        "volumePluginDir": str(KUBELET_ROOT / "volume-plugins"),
    }
    if version.runtime_endpoint_in_file:
        document["containerRuntimeEndpoint"] = f"unix://{layout.containerd_socket}"
    if version.refuses_cgroup_v1 and not host.unified_cgroups:
        document["failCgroupV1"] = False
    return document
