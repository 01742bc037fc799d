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
_CRDS = tuple(f"virtualmachine{end}" for end in ("s", "instances", "instancereplicasets"))
_MANIFESTS = ("00-namespace.yaml", "virt-controller.yaml", "virt-handler.yaml")
_IMAGES = ("operator", "launcher")
_NAMESPACE = "kubevirt"
_POLL_SECONDS = 1.0


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
    for crd in _CRDS:
        _kubectl("apply", "-f", "-", text=definition((_ROOT / "crds" / f"{crd}.yaml").read_text()))
    say("definitions applied; VirtualMachine is served as v1 only: there is no virt-api to convert")
    _kubectl(
        *("wait", "--for=condition=Established", "--timeout=60s"),
        *(f"crd/{crd}.kubevirt.io" for crd in _CRDS),
    )
    for file in _MANIFESTS:
        text = (_ROOT / "operator" / "manifests" / file).read_text()
        _kubectl("apply", "-f", "-", text=manifest(text, names, emulation=not options.kvm))
    say("namespace, rights, virt-controller and virt-handler applied")
    _await_ready(options.timeout, say)


def definition(text: str) -> str:
    """A CRD that works without virt-api: one that needs conversion is left with its stored version.

    An API server that stores without the webhook what needs it would lose fields, so the other versions are left out
    instead of being served unconverted.

    :raise DeployError: the file is not laid out as crds/generate.py writes it.
    """
    if "\n  conversion:\n" not in text:
        return text
    head, mark, rest = text.partition("\n  versions:\n")
    if not mark:
        raise DeployError("a CRD has no `versions`; run crds/generate.py")
    rest = re.split(r"^  (?=[a-z])", rest, maxsplit=1, flags=re.M)[0]
    versions = re.split(r"^(?=  - name: )", rest, flags=re.M)
    stored = [version for version in versions if "\n    storage: true\n" in version]
    if len(stored) != 1:
        raise DeployError("a CRD has no single stored version; run crds/generate.py")
    return f"{head}{mark}{stored[0]}"


def manifest(text: str, names: dict[str, str], *, emulation: bool) -> str:
    """A manifest with the images' real names, and virt-controller's flags."""
    for image, name in names.items():
        text = re.sub(rf"(image: |image=)qvirt/{image}$", rf"\g<1>{name}", text, flags=re.M)
    if emulation:
        text = re.sub(
            r"^( *)- (--launcher-image=.*)$", r"\1- \2\n\1- --use-emulation", text, flags=re.M
        )
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


def _await_ready(timeout: float, say: Callable[[str], None]) -> None:
    """Until one virt-controller leads and every node has its virt-handler."""
    deadline = time.monotonic() + timeout
    waiting = {
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
                f"after {timeout:.0f} s still not: {', '.join(waiting)}\n{pods}"
                f"see: kubectl -n {_NAMESPACE} describe pods"
            )
        time.sleep(_POLL_SECONDS)


def _delete(say: Callable[[str], None]) -> None:
    """Virtual machines first, while there is somebody who shuts them down."""
    for kind in ("virtualmachines", "virtualmachineinstancereplicasets", "virtualmachineinstances"):
        if _kubectl("get", f"crd/{kind}.kubevirt.io", "--ignore-not-found", "-o=name"):
            _kubectl("delete", kind, "--all", "--all-namespaces", "--timeout=120s", deadline=150)
    say("virtual machines are gone")
    for file in reversed(_MANIFESTS):
        path = str(_ROOT / "operator" / "manifests" / file)
        _kubectl("delete", "--ignore-not-found", "-f", path, "--timeout=120s", deadline=150)
    names = [f"crd/{crd}.kubevirt.io" for crd in _CRDS]
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
