"""etcd and kube-apiserver alone: no kubelet, no controllers, RBAC, and a token for each user that is needed.

For tests and measurements of what needs no node; beside a cluster, on ports of its own.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from qvirt_cluster.build import PROGRAMS, finished_builds
from qvirt_cluster.errors import ClusterError
from qvirt_cluster.layout import cache_directory

_STARTED_IN: Final = 90.0


def binaries() -> Path | None:
    """The folder with kube-apiserver: K8S_BIN_DIR, else what `cluster/cluster.py build` has left."""
    if given := os.environ.get("K8S_BIN_DIR"):
        return Path(given)
    return next(iter(finished_builds(cache_directory(os.environ))), None)


class NoPrograms(ClusterError):
    """Kubernetes' programs, etcd or kubectl are not there."""


class ApiServer:
    """:param tokens: user name -> bearer token."""

    def __init__(self, state: Path, port: int, tokens: dict[str, str], argv: list[str]) -> None:
        self.state = state
        self.port = port
        self._tokens = tokens
        self._argv = argv
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """kube-apiserver, again, too; it serves some seconds later."""
        self._process = _start(self.state, self._argv)

    def stop(self) -> None:
        """At once, as its machine's power would end it."""
        if self._process is not None:
            _kill(self._process)

    @property
    def ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    @property
    def ca(self) -> Path:
        return self.state / "pki" / "apiserver.crt"

    def kubeconfig(self, user: str = "admin") -> str:
        """A file that lets act as this user."""
        path = self.state / f"{user.replace(':', '-')}.kubeconfig"
        server = {"server": f"https://127.0.0.1:{self.port}", "certificate-authority": str(self.ca)}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": server}],
            "users": [{"name": user, "user": {"token": self._tokens[user]}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
            "current-context": "test",
        }
        # Whole at any time: whoever runs already may be reading it.
        new = path.with_suffix(".new")
        new.write_text(json.dumps(document))
        new.replace(path)
        return str(path)

    def kubectl(self, *argv: str, stdin: str | None = None) -> str:
        """:raise AssertionError: it failed; the message is what it said."""
        done = subprocess.run(
            ["kubectl", f"--kubeconfig={self.kubeconfig()}", *argv],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def control_plane(state: Path, service_accounts: Sequence[str] = ()) -> Iterator[ApiServer]:
    """An API server on a port of its own, ready, with nothing in it.

    :param state: an empty folder, which is removed.
    :param service_accounts: user names (``system:serviceaccount:NAMESPACE:NAME``) that get tokens, beside ``admin``.
    :raise NoPrograms: there is none on this machine.
    """
    folder = binaries()
    etcd = shutil.which("etcd")
    if folder is None or etcd is None or shutil.which("kubectl") is None:
        raise NoPrograms(f"needs etcd, kubectl and {', '.join(PROGRAMS)}: make kubernetes")
    tokens = {user: secrets.token_hex(16) for user in ("admin", *service_accounts)}
    lines = [f'{tokens["admin"]},admin,1,"system:masters"']
    for number, user in enumerate(service_accounts, start=2):
        of_namespace = f"system:serviceaccounts:{user.split(':')[2]}"
        groups = f'"system:serviceaccounts,{of_namespace},system:authenticated"'
        lines.append(f"{tokens[user]},{user},{number},{groups}")
    (state / "tokens.csv").write_text("\n".join(lines) + "\n")
    _service_account_key(state)
    _front_proxy(state)
    etcd_port, peer_port, port = free_ports(3)
    argv = _apiserver(folder / "kube-apiserver", state, etcd_port, port)
    server = ApiServer(state, port, tokens, argv)
    store = _start(state, _etcd(etcd, state, etcd_port, peer_port))
    try:
        server.start()
        _await_ready(server, store)
        yield server
    finally:
        server.stop()
        _kill(store)
        shutil.rmtree(state, ignore_errors=True)


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=20)


def _service_account_key(state: Path) -> None:
    key = state / "service-account.key"
    command = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key)]
    subprocess.run(command, check=True, capture_output=True, timeout=30)


def _front_proxy(state: Path) -> None:
    """What the API server shows to aggregated APIs: a certificate that only they have a use for, so it signs itself."""
    subject = ("-subj", "/CN=front-proxy-client", "-days", "1", "-nodes")
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    key, certificate = str(state / "front-proxy.key"), str(state / "front-proxy.crt")
    command = ["openssl", "req", "-x509", *new, *subject, "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True, timeout=30)


def free_ports(count: int) -> list[int]:
    """Free a moment ago, on the loopback address."""
    with_ports = [socket.socket() for _ in range(count)]
    for one in with_ports:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in with_ports]
    for one in with_ports:
        one.close()
    return ports


def _etcd(program: str, state: Path, port: int, peer_port: int) -> list[str]:
    client, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer_port}"
    return [
        program,
        "--name=test",
        f"--data-dir={state}/etcd",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=test={peer}",
        "--unsafe-no-fsync",
        # 10,000 instances with all their versions of five minutes.
        f"--quota-backend-bytes={8 << 30}",
    ]


def _apiserver(program: Path, state: Path, etcd_port: int, port: int) -> list[str]:
    key = f"{state}/service-account.key"
    return [
        str(program),
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={port}",
        f"--etcd-servers=http://127.0.0.1:{etcd_port}",
        f"--cert-dir={state}/pki",
        f"--token-auth-file={state}/tokens.csv",
        "--authorization-mode=RBAC",
        # As virt-handler is; for nobody here to run.
        "--allow-privileged=true",
        f"--requestheader-client-ca-file={state}/front-proxy.crt",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={state}/front-proxy.crt",
        f"--proxy-client-key-file={state}/front-proxy.key",
        # No controller makes service accounts here.
        "--disable-admission-plugins=ServiceAccount",
        "--service-cluster-ip-range=10.99.0.0/24",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        "--shutdown-delay-duration=0s",
        "--profiling=false",
    ]


def _start(state: Path, argv: list[str]) -> subprocess.Popen[bytes]:
    log = state / f"{Path(argv[0]).name}.log"
    with log.open("ab") as output:
        return subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=state
        )


def _await_ready(server: ApiServer, store: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _STARTED_IN
    while True:
        log = server.state / "kube-apiserver.log"
        ended = server.ended or store.poll() is not None
        assert not ended, log.read_text()[-2000:]
        try:
            context = ssl.create_default_context(cafile=str(server.ca))
            url = f"https://127.0.0.1:{server.port}/readyz"
            with urllib.request.urlopen(url, context=context, timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError as error:
            if time.monotonic() > end:
                raise TimeoutError("kube-apiserver is not ready") from error
        time.sleep(0.2)
