"""qvirt on the cluster of `make cluster`, and the seed's VM running there behind a Service. `make cluster` runs this.

What is there already stays: a second run takes a few seconds.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

_ROOT = Path(__file__).resolve().parent.parent
_CLUSTER = _ROOT / "cluster" / "cluster.py"
_DEPLOY = _ROOT / "operator" / "deploy.py"
_ARCHIVE = "build/guest/demo-guest.oci.tar"
_IMAGE = "127.0.0.1:5005/kubevirt/cirros-registry-disk-demo:devel"
_VM = "myvm"
#: Seconds for a guest under emulation on a busy machine.
_PATIENCE = 300
_POLL = 1.0


def main() -> int:
    """The exit status."""
    run(sys.executable, str(_CLUSTER), "up")
    os.environ["KUBECONFIG"] = ask(sys.executable, str(_CLUSTER), "kubeconfig")
    run(sys.executable, str(_DEPLOY))
    source = f"oci-archive:{_ARCHIVE}"
    run("skopeo", "copy", "--quiet", "--dest-tls-verify=false", source, f"docker://{_IMAGE}")
    run(
        "kubectl",
        "apply",
        "-f",
        "examples/seed-vm.yaml",
        "-f",
        "examples/cluster/seed-service.yaml",
    )
    begin = time.monotonic()
    wait(
        "the VM is Running", begin, lambda: "Running" in ask(*_get("vm", ".status.printableStatus"))
    )
    address = ask(*_get("service", ".spec.clusterIP"))
    wait(f"the guest answers at its Service, http://{address}/", begin, lambda: answers(address))
    run("kubectl", "get", "vms,vmis,pods,services", "-o", "wide")
    print(f"\nexport KUBECONFIG={os.environ['KUBECONFIG']}\ncurl http://{address}/")
    print("kubectl delete -f examples/seed-vm.yaml    # and `make cluster-down` removes everything")
    return 0


def _get(kind: str, path: str) -> tuple[str, ...]:
    return ("kubectl", "get", kind, _VM, "-o", f"jsonpath={{{path}}}")


def run(*words: str) -> None:
    """Type a command."""
    shown = [word.replace(f"{_ROOT}/", "") for word in words]
    if words[0] == sys.executable:
        shown[0] = "python3"
    print(f"$ {shlex.join(shown)}", flush=True)
    done = subprocess.run(words, cwd=_ROOT, stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        fail(f"`{shlex.join(shown)}` ended with code {done.returncode}")


def ask(*words: str) -> str:
    """What a command prints."""
    done = subprocess.run(
        words, cwd=_ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        fail(f"`{shlex.join(words)}` ended with code {done.returncode}")
    return done.stdout.strip()


def answers(address: str) -> bool:
    """Whether the guest's page is there."""
    try:
        with urllib.request.urlopen(f"http://{address}/", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def wait(what: str, begin: float, holds: Callable[[], bool]) -> None:
    """Until it holds, and say when it did."""
    while not holds():
        if time.monotonic() - begin > _PATIENCE:
            run("kubectl", "get", "events", "--sort-by=.lastTimestamp")
            fail(f"not within {_PATIENCE} s: {what}; what was told of it is above")
        time.sleep(_POLL)
    print(f"{what} ({time.monotonic() - begin:.1f} s)", flush=True)


def fail(text: str) -> NoReturn:
    """End with one message."""
    print(f"error: {text}", file=sys.stderr, flush=True)
    raise SystemExit(1)


if __name__ == "__main__":
    sys.exit(main())
