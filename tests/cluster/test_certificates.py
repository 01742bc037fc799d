"""Certificates: openssl verifies them; they are renewed when, and only when, something has changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from qvirt_cluster.certificates import leaves, make_certificates
from qvirt_cluster.commands import run
from qvirt_cluster.host import Host
from qvirt_cluster.kubeconfig import kubeconfig
from qvirt_cluster.layout import Layout

HOST = Host("node-1", "192.0.2.7", 20000, unified_cgroups=False)


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    found = Layout(tmp_path_factory.mktemp("pki"))
    make_certificates(found, HOST)
    return found


def contents(layout: Layout) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in layout.pki.iterdir()}


def test_every_certificate_is_signed_for_its_use(layout: Layout) -> None:
    for leaf in leaves(HOST):
        purpose = ("-purpose", "sslserver" if leaf.names else "sslclient")
        authority = layout.certificate(leaf.authority)
        run("openssl", "verify", *purpose, "-CAfile", authority, layout.certificate(leaf.name))


def test_the_api_server_is_known_by_all_its_addresses(layout: Layout) -> None:
    text = run("openssl", "x509", "-in", layout.certificate("apiserver"), "-noout", "-text")
    for name in ("127.0.0.1", "10.96.0.1", "192.0.2.7", "DNS:kubernetes.default.svc"):
        assert name in text


def test_the_node_is_what_the_node_authorizer_expects(layout: Layout) -> None:
    text = run("openssl", "x509", "-in", layout.certificate("kubelet"), "-noout", "-subject")
    assert "O = system:nodes, CN = system:node:node-1" in text


def test_keys_are_private(layout: Layout) -> None:
    assert layout.pki.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in layout.pki.glob("*.key"))


def test_a_second_run_makes_nothing(layout: Layout) -> None:
    before = contents(layout)
    make_certificates(layout, HOST)
    assert contents(layout) == before


def test_another_address_renews_the_servers_only(layout: Layout) -> None:
    before = contents(layout)
    make_certificates(layout, replace(HOST, address="192.0.2.8"))
    after = contents(layout)
    assert {name for name in before if before[name] != after[name]} == {
        f"{name}.{kind}" for name in ("apiserver", "kubelet") for kind in ("crt", "key", "ext")
    }


def test_a_new_authority_renews_what_it_signs(layout: Layout) -> None:
    layout.key("front-proxy-ca").unlink()
    before = contents(layout)
    make_certificates(layout, replace(HOST, address="192.0.2.8"))
    after = contents(layout)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"front-proxy-ca.crt", "front-proxy-client.crt", "front-proxy-client.key"}


def test_a_kubeconfig_needs_no_other_file(layout: Layout) -> None:
    text = kubeconfig(layout, "admin", "192.0.2.7")
    assert "https://192.0.2.7:6443" in text
    assert str(Path(layout.state)) not in text
