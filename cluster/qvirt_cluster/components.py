"""The processes of the cluster: command lines and how each one's health is asked. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from qvirt_cluster import layout as places
from qvirt_cluster.binaries import Binaries
from qvirt_cluster.host import Host
from qvirt_cluster.layout import Layout
from qvirt_cluster.version import Version

#: In the order of starting; each wave waits for the one before it.
Name = Literal[
    "etcd",
    "containerd",
    "registry",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
]
WAVES: Final[tuple[tuple[Name, ...], ...]] = (
    ("etcd", "containerd", "registry"),
    ("kube-apiserver",),
    ("kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"),
)
#: Ports each listens on, in TCP.
PORTS: Final[dict[Name, tuple[int, ...]]] = {
    "etcd": (places.ETCD_PORT, places.ETCD_PEER_PORT),
    "containerd": (),
    "registry": (places.REGISTRY_PORT,),
    "kube-apiserver": (places.API_PORT,),
    "kube-controller-manager": (places.CONTROLLER_MANAGER_PORT,),
    "kube-scheduler": (places.SCHEDULER_PORT,),
    "kubelet": (places.KUBELET_PORT, places.KUBELET_HEALTH_PORT),
    "kube-proxy": (places.PROXY_HEALTH_PORT, places.PROXY_METRICS_PORT),
}


@dataclass(frozen=True)
class Site:
    """All that command lines are made from."""

    layout: Layout
    host: Host
    binaries: Binaries


@dataclass(frozen=True)
class Health:
    """A component is healthy when this URL answers 200, or this command ends with status 0.

    :param certificate: name of the client's certificate to show; empty: none.
    """

    url: str = ""
    certificate: str = ""
    command: tuple[str, ...] = ()


@dataclass(frozen=True)
class Component:
    """:param deadline: seconds from its start until it must be healthy."""

    name: Name
    argv: tuple[str, ...]
    health: Health
    deadline: float = 60


def components(site: Site) -> dict[Name, Component]:
    """Every component, in the order of starting."""
    found = (
        _etcd(site),
        _containerd(site),
        _registry(site),
        _apiserver(site),
        _controller_manager(site),
        _scheduler(site),
        _kubelet(site),
        _proxy(site),
    )
    return {component.name: component for component in found}


def _etcd(site: Site) -> Component:
    layout = site.layout
    client = f"https://127.0.0.1:{places.ETCD_PORT}"
    peer = f"http://127.0.0.1:{places.ETCD_PEER_PORT}"
    argv = (
        site.binaries.path("etcd"),
        "--name=qvirt-cluster",
        f"--data-dir={layout.state}/etcd",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=qvirt-cluster={peer}",
        "--client-cert-auth",
        f"--trusted-ca-file={layout.certificate('ca')}",
        f"--cert-file={layout.certificate('etcd')}",
        f"--key-file={layout.key('etcd')}",
        # A cluster for tests: losing it with the machine's power costs one `up`.
        "--unsafe-no-fsync",
    )
    return Component("etcd", argv, Health(url=f"{client}/health", certificate="etcd-client"))


def _containerd(site: Site) -> Component:
    layout = site.layout
    argv = (site.binaries.path("containerd"), f"--config={layout.config}/containerd.toml")
    check = (site.binaries.path("ctr"), f"--address={layout.containerd_socket}", "version")
    return Component("containerd", argv, Health(command=check))


def _registry(site: Site) -> Component:
    program = site.binaries.path("docker-registry")
    argv = (program, "serve", f"{site.layout.config}/registry.json")
    return Component("registry", argv, Health(url=f"http://127.0.0.1:{places.REGISTRY_PORT}/v2/"))


def _apiserver(site: Site) -> Component:
    layout = site.layout
    ca, key = layout.certificate, layout.key
    argv = (
        site.binaries.path("kube-apiserver"),
        f"--advertise-address={site.host.address}",
        f"--secure-port={places.API_PORT}",
        f"--etcd-servers=https://127.0.0.1:{places.ETCD_PORT}",
        f"--etcd-cafile={ca('ca')}",
        f"--etcd-certfile={ca('etcd-client')}",
        f"--etcd-keyfile={key('etcd-client')}",
        f"--cert-dir={layout.pki}",
        f"--tls-cert-file={ca('apiserver')}",
        f"--tls-private-key-file={key('apiserver')}",
        f"--client-ca-file={ca('ca')}",
        f"--kubelet-certificate-authority={ca('ca')}",
        f"--kubelet-client-certificate={ca('apiserver-kubelet-client')}",
        f"--kubelet-client-key={key('apiserver-kubelet-client')}",
        # The node's name has no address in any DNS; `kubectl exec` would fail to resolve it.
        "--kubelet-preferred-address-types=InternalIP",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--service-cluster-ip-range={places.SERVICE_CIDR}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={layout.pki}/service-account.pub",
        f"--service-account-signing-key-file={key('service-account')}",
        f"--requestheader-client-ca-file={ca('front-proxy-ca')}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={ca('front-proxy-client')}",
        f"--proxy-client-key-file={key('front-proxy-client')}",
        # Aggregated APIs and webhooks are reached at their pods, without kube-proxy.
        "--enable-aggregator-routing=true",
        "--shutdown-delay-duration=0s",
        "--profiling=false",
    )
    health = Health(url=f"https://127.0.0.1:{places.API_PORT}/readyz", certificate="admin")
    return Component("kube-apiserver", argv, health, deadline=120)


def _manager_flags(site: Site, name: str, port: int) -> tuple[str, ...]:
    """What controller-manager and scheduler have in common."""
    layout, kubeconfig = site.layout, site.layout.kubeconfig(name)
    flags = (
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--tls-cert-file={layout.certificate(name)}",
        f"--tls-private-key-file={layout.key(name)}",
        # There is one of each.
        "--leader-elect=false",
        "--profiling=false",
    )
    return (*flags, "--port=0") if site.binaries.version.has_insecure_port_flag else flags


def _controller_manager(site: Site) -> Component:
    layout, port = site.layout, places.CONTROLLER_MANAGER_PORT
    argv = (
        site.binaries.path("kube-controller-manager"),
        *_manager_flags(site, "controller-manager", port),
        "--use-service-account-credentials",
        f"--service-account-private-key-file={layout.key('service-account')}",
        f"--root-ca-file={layout.certificate('ca')}",
        f"--cluster-signing-cert-file={layout.certificate('ca')}",
        f"--cluster-signing-key-file={layout.key('ca')}",
        # No --allocate-node-cidrs: that controller sleeps 10 s before it looks at the first node, and the
        # others wait for it; `up` gives the one node its network itself.
        f"--flex-volume-plugin-dir={places.KUBELET_ROOT}/volume-plugins",
    )
    health = Health(url=f"https://127.0.0.1:{port}/healthz")
    return Component("kube-controller-manager", argv, health)


def _scheduler(site: Site) -> Component:
    port = places.SCHEDULER_PORT
    program = site.binaries.path("kube-scheduler")
    argv = (program, *_manager_flags(site, "scheduler", port))
    return Component("kube-scheduler", argv, Health(url=f"https://127.0.0.1:{port}/healthz"))


def _kubelet(site: Site) -> Component:
    layout = site.layout
    argv = (
        site.binaries.path("kubelet"),
        f"--config={layout.config}/kubelet.json",
        f"--kubeconfig={layout.kubeconfig('kubelet')}",
        f"--root-dir={places.KUBELET_ROOT}",
        f"--cert-dir={layout.pki}",
        f"--hostname-override={site.host.node}",
        *_runtime_flags(layout, site.binaries.version),
    )
    return Component(
        "kubelet", argv, Health(url=f"http://127.0.0.1:{places.KUBELET_HEALTH_PORT}/healthz")
    )


def standalone_kubelet(site: Site) -> tuple[str, ...]:
    """A kubelet without an API server: there is no --kubeconfig."""
    layout = site.layout
    return (
        site.binaries.path("kubelet"),
        f"--config={layout.config}/kubelet.json",
        f"--root-dir={places.KUBELET_ROOT}",
        f"--hostname-override={site.host.node}",
        *_runtime_flags(layout, site.binaries.version),
    )


def _runtime_flags(layout: Layout, version: Version) -> tuple[str, ...]:
    if version.runtime_endpoint_in_file:
        return ()
    endpoint = f"--container-runtime-endpoint=unix://{layout.containerd_socket}"
    return ("--container-runtime=remote", endpoint)


def _proxy(site: Site) -> Component:
    argv = (
        site.binaries.path("kube-proxy"),
        f"--kubeconfig={site.layout.kubeconfig('kube-proxy')}",
        f"--hostname-override={site.host.node}",
        # Else it asks for the node's address, which is not registered yet, and waits longer each time.
        f"--bind-address={site.host.address}",
        "--proxy-mode=iptables",
        f"--cluster-cidr={places.POD_CIDR}",
        f"--healthz-bind-address=127.0.0.1:{places.PROXY_HEALTH_PORT}",
        f"--metrics-bind-address=127.0.0.1:{places.PROXY_METRICS_PORT}",
        # Size and times of the connection table are the machine's business (0: leave as they are).
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0",
        "--oom-score-adj=0",
    )
    # /livez is not in old ones, and /healthz needs the API server to have answered once: what we want.
    health = Health(url=f"http://127.0.0.1:{places.PROXY_HEALTH_PORT}/healthz")
    return Component("kube-proxy", argv, health)
