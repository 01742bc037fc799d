"""Boot a VM from the seed's manifest, look at it from all sides, shut it down, and check that nothing is left.

`make demo` runs this. Every step shows the command that it types, so that it can be typed again by hand. As root the guest is
on a bridge of this machine; without root it has user networking and one published port.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
QVIRT = Path(sys.executable).parent / "qvirt"
MANIFEST = Path("examples/seed-vm.yaml")
#: The image that the manifest names, and what we give instead of pulling it.
IMAGE = "kubevirt/cirros-registry-disk-demo:devel"
ARCHIVE = Path("build/guest/demo-guest.oci.tar")
VM = "myvm"
IS_ROOT = os.geteuid() == 0
#: Generous: emulation on a busy machine.
PATIENCE = 120
_BOLD, _GREEN, _RED, _PLAIN = (
    ("\033[1m", "\033[32m", "\033[31m", "\033[0m") if sys.stdout.isatty() else ("",) * 4
)


def step(text: str) -> None:
    """Say what comes next and why."""
    print(f"\n{_BOLD}# {text}{_PLAIN}", flush=True)


def fail(text: str) -> NoReturn:
    """End the demo."""
    print(f"\n{_RED}demo: error: {text}{_PLAIN}", file=sys.stderr, flush=True)
    raise SystemExit(1)


def type_command(*words: str, check: bool = True) -> None:
    """Run a command with its output on this terminal, shown as one would type it."""
    print(f"{_GREEN}$ {shlex.join(words)}{_PLAIN}", flush=True)
    done = subprocess.run(_real(words), cwd=ROOT, stdin=subprocess.DEVNULL, check=False)
    if check and done.returncode != 0:
        fail(f"`{shlex.join(words)}` ended with code {done.returncode}")


def ask_command(*words: str) -> str:
    """The same, with the output shown and returned."""
    print(f"{_GREEN}$ {shlex.join(words)}{_PLAIN}", flush=True)
    output = quiet(*words)
    print(output.rstrip(), flush=True)
    return output


def quiet(*words: str) -> str:
    """A command's output, nothing shown."""
    done = subprocess.run(
        _real(words),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        fail(f"`{shlex.join(words)}` ended with code {done.returncode}")
    return done.stdout


def _real(words: Sequence[str]) -> list[str]:
    return [str(QVIRT) if words[0] == "qvirt" else words[0], *words[1:]]


def traces() -> set[str]:
    """What our VM could leave on this machine: processes, links (all called qv...), nft tables, directories by its name."""
    found = {f"link {path.name}" for path in Path("/sys/class/net").glob("qv*")}
    found |= set(_processes())
    if IS_ROOT and shutil.which("nft"):
        found |= {line for line in quiet("nft", "list", "tables").splitlines() if "qvirt" in line}
    for folder in _run_directories():
        found |= {str(path) for path in folder.rglob("*") if VM in str(path)}
    return found


def _run_directories() -> list[Path]:
    if IS_ROOT:
        return [Path("/run/qvirt"), Path("/var/lib/qvirt/disks")]
    own = Path(f"/tmp/qvirt-{os.geteuid()}")
    base = os.environ.get("XDG_RUNTIME_DIR")
    return [own, Path(base) / "qvirt"] if base else [own]


def _processes() -> Iterator[str]:
    """Supervisor, launcher, QEMU and passt of our VM; other users may run one of the same name."""
    marks = [f"{folder}/default/{VM}" for folder in _run_directories()]
    marks += [f"run {MANIFEST} --image", f"/tmp/qvirt-passt-{os.geteuid()}-"]
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            with contextlib.suppress(OSError):
                words = (path / "cmdline").read_bytes().decode(errors="replace").split("\0")
                line = " ".join(words)
                ours = path.stat().st_uid == os.geteuid() or marks[0] in line
                if ours and any(mark in line for mark in marks):
                    yield f"process {path.name}: {line[:80]}"


def free_port() -> int:
    """A port of this machine that nobody uses just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start() -> str:
    """Boot; returns where its port 80 is reached from this machine (``host:port``)."""
    arguments = ["run", str(MANIFEST), "--image", f"{IMAGE}={ARCHIVE}", "--detach"]
    port = free_port()
    if not IS_ROOT:
        arguments += ["--publish", f"{port}:80"]
    type_command("qvirt", *arguments)
    return "" if IS_ROOT else f"127.0.0.1:{port}"


def wait_for_address() -> str:
    """The address that the guest has taken by DHCP, as the launcher reports it."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        for row in json.loads(quiet("qvirt", "list", "-o", "json")):
            if row["name"] == VM and row["address"]:
                return str(row["address"]).split(",")[0]
        time.sleep(0.5)
    fail(f"the guest took no address within {PATIENCE} s; look at `qvirt console {VM}`")


def fetch(url: str) -> str:
    """A page from the guest. Its web server may still be starting, which is waited for without a word."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with contextlib.suppress(OSError, http.client.HTTPException):
            urllib.request.urlopen(url, timeout=5).close()
            break
        time.sleep(0.3)
    return ask_command("curl", "-sS", "--max-time", "20", url)


def look_around(web: str) -> None:
    """Everything that shows that this is a real guest, made from that manifest."""
    step("The guest boots: its serial console, until it asks for a login (Ctrl-] would leave it)")
    type_command("qvirt", "console", VM, "--until", "login:", "--timeout", str(PATIENCE))

    step("What runs here, and where")
    if not web:
        web = wait_for_address()
    type_command("qvirt", "list")

    way = "over the bridge" if IS_ROOT else "through the published port"
    step(f"An HTTP answer from inside the guest, {way}")
    fetch(f"http://{web}/")

    step("The ssh key of the manifest's cloudInitNoCloud volume has arrived in the guest")
    key = re.search(r"ssh-rsa \S+ \S+", (ROOT / MANIFEST).read_text())
    arrived = fetch(f"http://{web}/authorized_keys")
    if key is None or key.group() not in arrived:
        fail("the guest doesn't have the manifest's key")

    step("QEMU's own answer, over the read-only introspection socket")
    status = json.loads(ask_command("qvirt", "qmp", VM, "query-status"))
    if status.get("running") is not True:
        fail("QEMU says that the guest doesn't run")


def demonstrate() -> None:
    """All of it, in the order that a reader learns from."""
    before = traces()
    step("The manifest, as the article that started this project has it")
    type_command("cat", str(MANIFEST))
    type_command("qvirt", "validate", str(MANIFEST))

    who = "as root: NAT bridge" if IS_ROOT else "not root: user networking and a published port"
    step(f"Start it ({who}); its image comes from a local archive instead of a registry")
    web = start()
    try:
        look_around(web)
        step("Press the power button, wait for the guest's end")
        type_command("qvirt", "stop", VM, "--grace-period", "60")
    except BaseException:
        subprocess.run([QVIRT, "stop", VM, "--force"], cwd=ROOT, check=False)
        raise

    step("What is left of it: processes, links, firewall tables, files")
    left = sorted(traces() - before)
    if left:
        fail("something was left behind:\n" + "\n".join(left))
    print("nothing")


def main() -> int:
    """Run the demo."""
    began = time.monotonic()
    if not (ROOT / ARCHIVE).exists():
        fail(f"{ARCHIVE} is missing; `make guest` builds it")
    try:
        demonstrate()
    except KeyboardInterrupt:
        return 1
    print(f"\n{_BOLD}Done in {time.monotonic() - began:.0f} s. Your turn: qvirt --help{_PLAIN}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
