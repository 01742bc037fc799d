"""kubeconfig files as people have them, and whose VM a name is."""

from __future__ import annotations

import argparse
import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from qvirt_launcher.cli import values, where
from qvirt_launcher.cli.cluster import kubeconfig
from qvirt_launcher.cli.cluster.errors import ClusterError
from qvirt_launcher.errors import NotRunning

Object = dict[str, Any]


@pytest.fixture(scope="session")
def pem(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate and its key."""
    folder = tmp_path_factory.mktemp("pem")
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    files = ("-keyout", f"{folder}/key", "-out", f"{folder}/crt")
    command = ["openssl", "req", "-x509", *new, *files, "-subj", "/CN=me", "-days", "1"]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    return (folder / "crt").read_text(), (folder / "key").read_text()


def config(user: Object | None = None, cluster: Object | None = None) -> Object:
    return {
        "current-context": "here",
        "contexts": [
            {"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "mine"}},
            {"name": "bare", "context": {"cluster": "c"}},
        ],
        "clusters": [{"name": "c", "cluster": {"server": "https://api:6443/", **(cluster or {})}}],
        "users": [{"name": "u", "user": user or {}}],
    }


def write(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document))
    return path


def test_the_current_context(tmp_path: Path) -> None:
    path = write(tmp_path / "config", config({"token": "t"}))
    target = kubeconfig.load([path])
    assert (target.server, target.namespace) == ("https://api:6443", "mine")
    assert target.headers == {"Authorization": "Bearer t"}
    assert kubeconfig.load([path], namespace="other").namespace == "other"
    bare = kubeconfig.load([path], "bare")
    assert (bare.namespace, bare.headers) == ("default", {})


def test_certificates_in_files_and_in_place(tmp_path: Path, pem: tuple[str, str]) -> None:
    certificate, key = pem
    (tmp_path / "crt").write_text(certificate)
    (tmp_path / "key").write_text(key)
    beside = {"client-certificate": "crt", "client-key": "key"}
    path = write(tmp_path / "config", config(beside, {"certificate-authority": "crt"}))
    assert kubeconfig.load([path]).tls.get_ca_certs()

    def encoded(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    within = {"client-certificate-data": encoded(certificate), "client-key-data": encoded(key)}
    authority = {"certificate-authority-data": encoded(certificate)}
    path = write(tmp_path / "config", config(within, authority))
    assert kubeconfig.load([path]).tls.get_ca_certs()


def test_a_credential_plugin(tmp_path: Path) -> None:
    script = tmp_path / "plugin"
    script.write_text(
        """#!/bin/sh
test -n "$KUBERNETES_EXEC_INFO" || exit 1
echo '{"kind": "ExecCredential", "status": {"token": "'"$1-$EXTRA"'"}}'
"""
    )
    script.chmod(0o755)
    plugin = {"command": "./plugin", "args": ["a"], "env": [{"name": "EXTRA", "value": "b"}]}
    path = write(tmp_path / "config", config({"exec": plugin}))
    assert kubeconfig.load([path]).headers == {"Authorization": "Bearer a-b"}
    plugin["command"] = "./missing"
    path = write(tmp_path / "config", config({"exec": plugin}))
    with pytest.raises(ClusterError, match=r"credential plugin .*missing"):
        kubeconfig.load([path])


def test_several_files(tmp_path: Path) -> None:
    first = {"current-context": "here", "users": [{"name": "u", "user": {"token": "first"}}]}
    paths = [write(tmp_path / "1", first), write(tmp_path / "2", config({"token": "second"}))]
    assert kubeconfig.load(paths).headers == {"Authorization": "Bearer first"}
    environment = {"KUBECONFIG": f"{paths[0]}:{tmp_path}/none:{paths[1]}"}
    assert kubeconfig.files("", environment) == paths
    assert kubeconfig.files("given", environment) == [Path("given")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file"),
        ("[1]", "is no kubeconfig"),
        ("a: b: c", "is no kubeconfig"),
        ("{}", "has no current context"),
        ('{"current-context": "x"}', "there is no context named 'x'"),
        (json.dumps(config(cluster={"server": "http://api"})), "is no https URL"),
        (json.dumps(config({"client-certificate": "x"})), "No such file"),
        (json.dumps(config(cluster={"certificate-authority-data": "!"})), "is no base64"),
        (json.dumps(config(cluster={"certificate-authority-data": "QQ=="})), "is no certificate"),
    ],
)
def test_what_makes_no_sense(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ClusterError, match=message):
        kubeconfig.load([path])


def asked(vm: str, **more: str) -> argparse.Namespace:
    given = {"vm": vm, "namespace": "", "kubeconfig": "", "context": "", **more}
    return argparse.Namespace(**given)


def test_whose_vm_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "config", config())
    monkeypatch.setenv("KUBECONFIG", str(path))
    for arguments in (
        asked("no-such-vm"),
        asked("mine/no-such-vm"),
        asked("no-such-vm", kubeconfig=str(path)),
        asked("no-such-vm", context="here"),
    ):
        found = where.locate(arguments)
        assert isinstance(found, where.Remote)
        assert found.title == "mine/no-such-vm"
    other = where.locate(asked("no-such-vm", namespace="other"))
    assert isinstance(other, where.Remote)
    assert other.namespace == "other"
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(NotRunning, match="no-such-vm: doesn't run"):
        where.locate(asked("no-such-vm"))
    monkeypatch.setenv("KUBECONFIG", str(write(tmp_path / "bad", [])))
    with pytest.raises(NotRunning, match="nor can a cluster be asked"):
        where.locate(asked("no-such-vm"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", (80, 80, "tcp")),
        ("8080:80", (8080, 80, "tcp")),
        ("udp/53", (53, 53, "udp")),
        ("tcp/0:22", (0, 22, "tcp")),
        (":22", (0, 22, "tcp")),
    ],
)
def test_ports(text: str, expected: tuple[int, int, str]) -> None:
    assert tuple(values.forward(text)) == expected


@pytest.mark.parametrize("text", ["", "0", "x", "1:", "1:2:3", "sctp/1", "65536", "-1", "1:0"])
def test_what_is_no_port(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  argparse shows its own text
        values.forward(text)
