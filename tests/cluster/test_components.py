"""Command lines and files for old and new Kubernetes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from qvirt_cluster.binaries import Binaries
from qvirt_cluster.components import PORTS, WAVES, Site, components
from qvirt_cluster.configuration import configuration_files
from qvirt_cluster.errors import UsageError
from qvirt_cluster.host import Host, node_name
from qvirt_cluster.layout import Layout
from qvirt_cluster.version import Version, parse_version

OLD, NEW = Version(1, 20), Version(1, 36)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    for program in (
        *("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"),
        *("etcd", "containerd", "ctr", "runc", "docker-registry"),
    ):
        (tmp_path / program).touch()
    host = Host("node-1", "192.0.2.7", 20000, unified_cgroups=False)
    layout = Layout(Path("/var/lib/some-cluster"))
    return Site(layout, host, Binaries(tmp_path, Path("/usr/lib/cni"), OLD))


def at(site: Site, version: Version) -> Site:
    return replace(site, binaries=replace(site.binaries, version=version))


def kubelet_file(site: Site) -> dict[str, object]:
    files = configuration_files(site.layout, site.host, site.binaries)
    found: dict[str, object] = json.loads(files[site.layout.config / "kubelet.json"])
    return found


def test_every_component_is_started_once_and_has_its_ports(site: Site) -> None:
    named = [name for wave in WAVES for name in wave]
    assert named == list(components(site)) == list(PORTS)


def test_the_runtime_is_named_by_flag_in_old_and_by_file_in_new_kubelets(site: Site) -> None:
    old = components(site)["kubelet"].argv
    assert "--container-runtime=remote" in old
    assert any(word.startswith("--container-runtime-endpoint=unix:///var/lib/") for word in old)
    assert "containerRuntimeEndpoint" not in kubelet_file(site)
    new = components(at(site, NEW))["kubelet"].argv
    assert not any(word.startswith("--container-runtime") for word in new)
    endpoint = kubelet_file(at(site, NEW))["containerRuntimeEndpoint"]
    assert endpoint == "unix:///var/lib/some-cluster/containerd.sock"


def test_insecure_ports_are_closed_where_the_flag_exists(site: Site) -> None:
    for name in ("kube-controller-manager", "kube-scheduler"):
        assert "--port=0" in components(site)[name].argv
        assert "--port=0" not in components(at(site, NEW))[name].argv


def test_new_kubelets_are_told_to_accept_cgroup_v1_only_where_it_is(site: Site) -> None:
    assert "failCgroupV1" not in kubelet_file(site)
    new = at(site, NEW)
    assert kubelet_file(new)["failCgroupV1"] is False
    unified = replace(new, host=replace(new.host, unified_cgroups=True))
    assert "failCgroupV1" not in kubelet_file(unified)


def test_the_api_server_can_aggregate(site: Site) -> None:
    argv = components(site)["kube-apiserver"].argv
    assert "--enable-aggregator-routing=true" in argv
    assert any(word.startswith("--requestheader-client-ca-file=") for word in argv)
    assert any(word.startswith("--proxy-client-cert-file=") for word in argv)


def test_all_files_are_below_the_state_directory(site: Site) -> None:
    for path in configuration_files(site.layout, site.host, site.binaries):
        assert path.is_relative_to(site.layout.state)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("Kubernetes v1.20.2", Version(1, 20)),
        ("Kubernetes v1.36.0-alpha.1+abc\n", Version(1, 36)),
        ("Kubernetes v2.0.0", Version(2, 0)),
    ],
)
def test_versions_are_read(text: str, version: Version) -> None:
    assert parse_version(text, "kubelet") == version


def test_something_else_is_no_kubernetes() -> None:
    with pytest.raises(UsageError, match="K8S_BIN_DIR"):
        parse_version("busybox", "kubelet")


@pytest.mark.parametrize(
    ("hostname", "name"),
    [("vm", "vm"), ("My_Host.Example", "my-host.example"), ("-.-", "node"), ("x" * 80, "x" * 63)],
)
def test_node_names_are_valid(hostname: str, name: str) -> None:
    assert node_name(hostname) == name
