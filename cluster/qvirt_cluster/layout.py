"""Where everything is: files in the state directory, addresses, ports, names in the kernel. No I/O."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

DEFAULT_STATE: Final = Path("/var/lib/qvirt-cluster")
#: Names the one cluster of this machine and what the machine had before it. In /run: it is about this boot.
CLAIM: Final = Path("/run/qvirt-cluster.json")
LOCK: Final = Path("/run/qvirt-cluster.lock")

#: Every process of the cluster has this variable in its environment, its value is the state directory.
MARK: Final = "QVIRT_CLUSTER_STATE"

#: Kubernetes hands the node the first /24 of the pods' network; with one node that is known beforehand.
POD_CIDR: Final = "10.88.0.0/16"
NODE_POD_CIDR: Final = "10.88.0.0/24"
SERVICE_CIDR: Final = "10.96.0.0/16"
#: The service `kubernetes`: the first address of SERVICE_CIDR.
API_SERVICE_IP: Final = "10.96.0.1"
BRIDGE: Final = "qvcni0"
CNI_NETWORK: Final = "qvirt-cluster"

#: Not the usual ports 2379 and 5000: Debian starts its own etcd and registry there when systemd runs.
ETCD_PORT: Final = 12379
ETCD_PEER_PORT: Final = 12380
REGISTRY_PORT: Final = 5005
API_PORT: Final = 6443
KUBELET_PORT: Final = 10250
KUBELET_HEALTH_PORT: Final = 10248
PROXY_HEALTH_PORT: Final = 10256
PROXY_METRICS_PORT: Final = 10249
CONTROLLER_MANAGER_PORT: Final = 10257
SCHEDULER_PORT: Final = 10259

#: kube-proxy, kubelet and the CNI plugins name their chains so.
CHAIN_PREFIXES: Final = ("KUBE-", "CNI-")
PAUSE_IMAGE: Final = "localhost/qvirt-cluster/pause:1"

#: A node without a control plane (`node`): its network's name, also its own; a cable to it, and its control group.
DEFAULT_NODE_STATE: Final = Path("/var/lib/qvirt-node")
NODE_LOCK: Final = Path("/run/qvirt-node.lock")
NODE_NAMESPACE: Final = "qvirt-node"
NODE_CGROUP: Final = "qvirt-node"
NODE_LINK: Final = "qvnode0"
NODE_GATEWAY: Final = "10.89.255.1"
NODE_ADDRESS: Final = "10.89.255.2"

#: kubelet's root, a bind mount of the state directory's `kubelet`. Its device plugins' folder is wired in
#: (DevicePluginPath in k8s.io/kubelet); a symbolic link is not enough, containerd looks for the shared mount
#: of a Bidirectional volume by name.
KUBELET_ROOT: Final = Path("/var/lib/kubelet")
#: Other places that are wired in (pkg/kubelet/kubelet.go), links -> what they lead to in the state directory.
WIRED_LINKS: Final[Mapping[Path, str]] = {
    Path("/var/log/pods"): "pod-logs",
    Path("/var/log/containers"): "container-logs",
}

#: A socket's path has at most 107 bytes (sun_path), and ours are up to 40 bytes below the state directory.
STATE_PATH_LIMIT: Final = 64


@dataclass(frozen=True)
class Layout:
    """The files of one cluster.

    :param state: absolute path of the state directory; all of the cluster is below it but `CLAIM`, `LOCK`,
        and the ways to it at `KUBELET_ROOT` and `WIRED_LINKS`.
    """

    state: Path

    @property
    def stamp(self) -> Path:
        """Its presence says that the directory is ours, to be deleted as a whole."""
        return self.state / "this-is-a-qvirt-cluster"

    @property
    def pki(self) -> Path:
        return self.state / "pki"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def run(self) -> Path:
        """Records of the processes."""
        return self.state / "run"

    @property
    def config(self) -> Path:
        return self.state / "config"

    @property
    def kubelet(self) -> Path:
        """What is seen at `KUBELET_ROOT`."""
        return self.state / "kubelet"

    @property
    def manifests(self) -> Path:
        """Static pods of a node without a control plane."""
        return self.state / "manifests"

    @property
    def containerd(self) -> Path:
        return self.state / "containerd"

    @property
    def containerd_socket(self) -> Path:
        return self.state / "containerd.sock"

    @property
    def tasks(self) -> Path:
        """containerd's bundles, one a running container."""
        return self.containerd / "run/io.containerd.runtime.v2.task"

    @property
    def admin_kubeconfig(self) -> Path:
        return self.state / "admin.kubeconfig"

    def kubeconfig(self, who: str) -> Path:
        return self.config / f"{who}.kubeconfig"

    def certificate(self, name: str) -> Path:
        return self.pki / f"{name}.crt"

    def key(self, name: str) -> Path:
        return self.pki / f"{name}.key"

    def log(self, component: str) -> Path:
        return self.logs / f"{component}.log"


def cache_directory(environment: Mapping[str, str]) -> Path:
    """Where built and downloaded Kubernetes binaries are kept, for each user."""
    home = environment.get("XDG_CACHE_HOME") or os.path.join(
        environment.get("HOME", "/root"), ".cache"
    )
    return Path(home) / "qvirt" / "kubernetes"
