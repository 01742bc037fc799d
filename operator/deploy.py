#!/usr/bin/env python3
"""Install qvirt on a Kubernetes cluster, or remove it; see `deploy.py --help`. Needs kubectl, and skopeo to push images."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
#: virt-api before what needs it: it makes its certificates while the rest is applied.
_BEFORE_CRDS = ("00-namespace.yaml", "virt-api.yaml")
_AFTER_CRDS = (
    "subresources.yaml",
    "webhooks.yaml",
    "kubevirt.yaml",
    "virt-controller.yaml",
    "virt-handler.yaml",
)
#: Every manifest, in the order of installation.
ALL = (*_BEFORE_CRDS, *_AFTER_CRDS)
_WORKLOADS = (
    "virtualmachines",
    "virtualmachinereplicasets",
    "virtualmachineinstancereplicasets",
    "virtualmachineinstances",
)
_IMAGES = ("operator", "launcher")
_NAMESPACE = "kubevirt"
_POLL_SECONDS = 1.0
#: In the oldest version: its creation takes both admission and conversion.
_TRIAL = """
apiVersion: kubevirt.io/v1alpha1
kind: VirtualMachine
metadata: {generateName: trial-, namespace: kubevirt}
spec: {domain: {resources: {requests: {memory: 64M}}, devices: {}}}
"""


class DeployError(Exception):
    """What failed and what to do about it; for the user."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 done, 1 failed with one message, 2 usage."""
    options = _parser().parse_args(arguments)
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{text} ({time.monotonic() - started:.1f} s)", flush=True)

    try:
        _delete(say) if options.delete else _install(options, say)
    except DeployError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="deploy.py",
        description="Install qvirt on the cluster that kubectl talks to, and wait until it works.",
    )
    add = parser.add_argument
    add(
        "--registry",
        default="127.0.0.1:5005",
        metavar="HOST[:PORT]",
        help="where images are pushed, as seen from here (default: that of `make cluster`)",
    )
    add(
        "--prefix",
        metavar="NAME",
        help="of the images' names as the cluster's nodes pull them (default: the registry)",
    )
    add(
        "--images",
        type=Path,
        default=_ROOT / "build" / "images",
        metavar="DIR",
        help="the oci-archives of images/build.py (default: build/images)",
    )
    add("--no-push", action="store_true", help="the images are in the registry already")
    add("--tls", action="store_true", help="the registry speaks HTTPS")
    add(
        "--kvm",
        action="store_true",
        help="guests ask for devices.kubevirt.io/kvm, which another device plugin must offer: virt-handler has none yet",
    )
    add("--timeout", type=float, default=180, metavar="SECONDS", help="for the pods to be ready")
    add("--delete", action="store_true", help="remove qvirt and all virtual machines")
    return parser


def _install(options: argparse.Namespace, say: Callable[[str], None]) -> None:
    prefix = options.prefix or options.registry
    names = {}
    for image in _IMAGES:
        names[image] = f"{prefix}/qvirt/{image}:latest"
        if not options.no_push:
            digest = _push(image, options)
            # A digest: pods that run are replaced exactly when their image has changed.
            names[image] = f"{prefix}/qvirt/{image}@{digest}"
            say(f"pushed qvirt/{image}")
    nodes = len(_kubectl("get", "nodes", "-o=name").split())
    for file in _BEFORE_CRDS:
        _kubectl("apply", "-f", "-", text=_manifest(file, names, options, nodes))
    crds = sorted((_ROOT / "crds").glob("*.yaml"))
    for crd in crds:
        _kubectl("apply", "-f", str(crd))
    _kubectl(
        *("wait", "--for=condition=Established", "--timeout=60s"),
        *(f"crd/{crd.stem}.kubevirt.io" for crd in crds),
    )
    say("namespace, virt-api and definitions applied")
    for file in _AFTER_CRDS:
        _kubectl("apply", "-f", "-", text=_manifest(file, names, options, nodes))
    say("webhooks, virt-controller and virt-handler applied")
    deadline = time.monotonic() + options.timeout
    _await_ready(deadline, say)
    _await_admission(deadline, say)


def _manifest(file: str, names: dict[str, str], options: argparse.Namespace, nodes: int) -> str:
    text = (_ROOT / "operator" / "manifests" / file).read_text()
    return manifest(text, names, emulation=not options.kvm, nodes=nodes)


def manifest(text: str, names: dict[str, str], *, emulation: bool, nodes: int) -> str:
    """A manifest with the images' real names, the KubeVirt object's useEmulation, and as many virt-apis as make sense."""
    for image, name in names.items():
        text = re.sub(rf"(image: |image=)qvirt/{image}$", rf"\g<1>{name}", text, flags=re.M)
    if not emulation:
        text = re.sub(r"^( *)useEmulation: true$", r"\1useEmulation: false", text, flags=re.M)
    if nodes == 1:
        of_virt_api = r"(?=  selector:\n    matchLabels: \{kubevirt.io: virt-api\})"
        text = re.sub(rf"^  replicas: 2\n{of_virt_api}", "  replicas: 1\n", text, flags=re.M)
    return text


def _push(image: str, options: argparse.Namespace) -> str:
    archive = options.images / f"{image}.oci.tar"
    if not archive.is_file():
        raise DeployError(f"{archive} is missing; build it with: make images")
    tls = "true" if options.tls else "false"
    target = f"docker://{options.registry}/qvirt/{image}:latest"
    _run("skopeo", "copy", "--quiet", f"--dest-tls-verify={tls}", f"oci-archive:{archive}", target)
    shown = _run("skopeo", "inspect", f"--tls-verify={tls}", "--format={{.Digest}}", target)
    return shown.strip()


def _await_ready(deadline: float, say: Callable[[str], None]) -> None:
    """Until every virt-api is ready, one virt-controller leads and every node has its virt-handler."""
    replicas = "{.status.updatedReplicas},{.status.readyReplicas},{.status.replicas}"
    waiting = {
        "virt-api is ready": (
            "deployment/virt-api",
            f"{replicas}/{{.spec.replicas}},{{.spec.replicas}},{{.spec.replicas}}",
        ),
        "virt-controller leads": ("deployment/virt-controller", "{.status.readyReplicas}/1"),
        "virt-handler is ready": (
            "daemonset/virt-handler",
            "{.status.numberReady}/{.status.desiredNumberScheduled}",
        ),
    }
    while waiting:
        for what, (which, path) in list(waiting.items()):
            query = "jsonpath={.metadata.generation}={.status.observedGeneration} " + path
            seen = _kubectl("get", "-n", _NAMESPACE, which, f"-o={query}").split()
            generation, _, observed = seen[0].partition("=")
            ready, _, wanted = seen[1].partition("/")
            if generation == observed and ready and ready == wanted != "0":
                say(what)
                del waiting[what]
        if waiting and time.monotonic() > deadline:
            pods = _kubectl("get", "pods", "-n", _NAMESPACE, "-o=wide")
            raise DeployError(
                f"still not after so long: {', '.join(waiting)}\n{pods}"
                f"see: kubectl -n {_NAMESPACE} describe pods"
            )
        time.sleep(_POLL_SECONDS)


def _await_admission(deadline: float, say: Callable[[str], None]) -> None:
    """Until the API server itself gets through to virt-api: Services and certificates take a moment to be known."""
    while True:
        try:
            _kubectl("create", "--dry-run=server", "-f", "-", text=_TRIAL)
        except DeployError as error:
            if time.monotonic() > deadline:
                raise
            if not any(sign in str(error) for sign in ("webhook", "conver", "no matches for")):
                raise
            time.sleep(_POLL_SECONDS)
        else:
            say("virtual machines are admitted and converted")
            return


def _delete(say: Callable[[str], None]) -> None:
    """Webhooks first, so that a virt-api that is broken can stop nothing; then virtual machines, while there is
    somebody who shuts them down."""
    path = str(_ROOT / "operator" / "manifests" / "webhooks.yaml")
    _kubectl("delete", "--ignore-not-found", "-f", path)
    for kind in _WORKLOADS:
        if _kubectl("get", f"crd/{kind}.kubevirt.io", "--ignore-not-found", "-o=name"):
            _kubectl("delete", kind, "--all", "--all-namespaces", "--timeout=120s", deadline=150)
    say("virtual machines are gone")
    for file in reversed(ALL):
        path = str(_ROOT / "operator" / "manifests" / file)
        _kubectl("delete", "--ignore-not-found", "-f", path, "--timeout=120s", deadline=150)
    names = [f"crd/{crd.stem}.kubevirt.io" for crd in (_ROOT / "crds").glob("*.yaml")]
    _kubectl("delete", "--ignore-not-found", *names, "--timeout=60s")
    say("qvirt is gone")


def _kubectl(*arguments: str, text: str | None = None, deadline: float = 90) -> str:
    return _run("kubectl", *arguments, text=text, deadline=deadline)


def _run(*command: str, text: str | None = None, deadline: float = 300) -> str:
    what = " ".join(command[:3])
    try:
        done = subprocess.run(
            command, input=text or "", capture_output=True, text=True, timeout=deadline
        )
    except FileNotFoundError as error:
        raise DeployError(
            f"{command[0]} is not installed; cluster/packages.txt lists it"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise DeployError(f"{what} ... did not end within {deadline:.0f} s") from error
    if done.returncode != 0:
        raise DeployError(f"{what} ... failed: {done.stderr.strip()[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
