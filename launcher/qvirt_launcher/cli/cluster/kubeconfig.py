"""kubeconfig files: which server, whom it is known by, and who we are (https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/)."""

from __future__ import annotations

import base64
import binascii
import json
import os
import ssl
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from msgspec import Struct

from qvirt_launcher.cli.cluster.errors import ClusterError

_PLUGIN_SECONDS: Final = 60

Entry = Mapping[str, Any]


class Target(Struct, frozen=True, kw_only=True):
    """Where, and as whom."""

    server: str
    namespace: str
    tls: ssl.SSLContext
    headers: dict[str, str]


def files(given: str, environment: Mapping[str, str]) -> list[Path]:
    """Those that are to be read, in order; of equal names the first counts.

    :param given: of the command line; empty: as kubectl finds them.
    """
    if given:
        return [Path(given)]
    named = environment.get("KUBECONFIG", "")
    if named:
        return [path for path in map(Path, filter(None, named.split(os.pathsep))) if path.exists()]
    default = Path(os.path.expanduser("~/.kube/config"))
    return [default] if default.exists() else []


def load(paths: Sequence[Path], context: str = "", namespace: str = "") -> Target:
    """The target of a context; without one, of the current one.

    :raise ClusterError: a file or an entry of it is missing or makes no sense, or a credential plugin failed.
    """
    documents = [(_read(path), path) for path in paths]
    name = context or next(
        (d["current-context"] for d, _ in documents if d.get("current-context")), ""
    )
    shown = ", ".join(map(str, paths))
    if not name:
        raise ClusterError(f"{shown}: has no current context; say which with --context")
    chosen, _ = _named(documents, "contexts", "context", name, shown)
    cluster, base = _named(documents, "clusters", "cluster", str(chosen.get("cluster")), shown)
    user: Entry = {}
    if chosen.get("user"):
        user, base_of_user = _named(documents, "users", "user", str(chosen["user"]), shown)
    else:
        base_of_user = base
    server = str(cluster.get("server") or "")
    if not server.startswith("https://"):
        raise ClusterError(f"{shown}: cluster of context {name}: server {server!r} is no https URL")
    tls = _trusting(cluster, base)
    return Target(
        server=server.rstrip("/"),
        namespace=namespace or str(chosen.get("namespace") or "default"),
        tls=tls,
        headers=_identify(user, base_of_user, tls),
    )


def _read(path: Path) -> Entry:
    try:
        found = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ClusterError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ClusterError(f"{path}: is no kubeconfig: {error}") from error
    if not isinstance(found, dict):
        raise ClusterError(f"{path}: is no kubeconfig")
    return found


def _named(
    documents: Sequence[tuple[Entry, Path]], plural: str, key: str, name: str, shown: str
) -> tuple[Entry, Path]:
    """An entry of this name, and the folder that its relative paths start from."""
    for document, path in documents:
        for entry in document.get(plural) or ():
            if isinstance(entry, dict) and entry.get("name") == name:
                found = entry.get(key)
                return (found if isinstance(found, dict) else {}), path.parent
    raise ClusterError(f"{shown}: there is no {key} named {name!r}")


def _trusting(cluster: Entry, base: Path) -> ssl.SSLContext:
    authority = _text(cluster, "certificate-authority", base)
    try:
        context = ssl.create_default_context(cadata=authority or None)
    except ssl.SSLError as error:
        raise ClusterError(f"certificate-authority: is no certificate: {error}") from error
    if cluster.get("insecure-skip-tls-verify") is True:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _identify(user: Entry, base: Path, tls: ssl.SSLContext) -> dict[str, str]:
    """Headers that say who we are; a certificate goes into the context."""
    certificate = _text(user, "client-certificate", base)
    key = _text(user, "client-key", base)
    token = str(user.get("token") or "")
    if not token and user.get("tokenFile"):
        token = _file(base / str(user["tokenFile"])).strip()
    if isinstance(user.get("exec"), dict):
        status = _ask_plugin(user["exec"], base)
        token = str(status.get("token") or token)
        certificate = str(status.get("clientCertificateData") or certificate)
        key = str(status.get("clientKeyData") or key)
    if certificate:
        _show(tls, certificate, key)
    if token:
        return {"Authorization": f"Bearer {token}"}
    if user.get("username"):
        both = f"{user['username']}:{user.get('password') or ''}".encode()
        return {"Authorization": f"Basic {base64.b64encode(both).decode()}"}
    return {}


def _show(tls: ssl.SSLContext, certificate: str, key: str) -> None:
    # ssl takes files only; this one nobody else may read, and it is gone at once.
    with tempfile.NamedTemporaryFile("w", prefix="qvirt-") as file:
        file.write(f"{certificate}\n{key}\n")
        file.flush()
        try:
            tls.load_cert_chain(file.name)
        except ssl.SSLError as error:
            raise ClusterError(f"client-certificate: does not fit its key: {error}") from error


def _ask_plugin(plugin: Entry, base: Path) -> Entry:
    """The status of an ExecCredential (https://kubernetes.io/docs/reference/access-authn-authz/authentication/)."""
    command = str(plugin.get("command") or "")
    if os.sep in command:
        command = str(base / command)
    argv = [command, *(str(word) for word in plugin.get("args") or ())]
    more = {str(entry["name"]): str(entry["value"]) for entry in plugin.get("env") or ()}
    asked = {
        "apiVersion": plugin.get("apiVersion"),
        "kind": "ExecCredential",
        "spec": {"interactive": False},
    }
    environment = {**os.environ, **more, "KUBERNETES_EXEC_INFO": json.dumps(asked)}
    try:
        done = subprocess.run(
            argv, env=environment, stdout=subprocess.PIPE, timeout=_PLUGIN_SECONDS, check=True
        )
        status = json.loads(done.stdout)["status"]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError) as error:
        raise ClusterError(f"credential plugin {command}: {error}") from error
    return status if isinstance(status, dict) else {}


def _text(entry: Entry, key: str, base: Path) -> str:
    """PEM, from the entry itself or from the file that it names; empty: neither."""
    if entry.get(f"{key}-data"):
        try:
            data = "".join(str(entry[f"{key}-data"]).split())
            return base64.b64decode(data, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise ClusterError(f"{key}-data: is no base64 of PEM: {error}") from error
    return _file(base / str(entry[key])) if entry.get(key) else ""


def _file(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise ClusterError(f"{path}: {error.strerror}") from error
