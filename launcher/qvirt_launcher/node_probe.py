"""``python -m qvirt_launcher.node_probe FILE``: find out what this node can give to guests, and write it down.

Runs in an init container of virt-handler's pod, as only this image has the QEMU that guests will get.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from qvirt_crds.node_report import KVM_DEVICE, NodeReport, kvm_identity
from qvirt_crds.report import Accel
from qvirt_launcher import accel
from qvirt_launcher.errors import HostError
from qvirt_launcher.facts import QEMU_BINARY

#: A node that has just booted is busy.
_KVM_SECONDS: Final = 10.0
_QUERY_SECONDS: Final = 30.0
#: Properties of QEMU's CPUs that are on and say nothing of the processor.
_NO_FEATURES: Final = frozenset(
    {
        *("check", "cpuid-0xb", "enforce", "fill-mtrr-mask", "full-cpuid-auto-level", "hotplugged"),
        *("kvm", "kvm-no-smi-migration", "l3-cache", "legacy-cache", "host-cache-info"),
        *("migratable", "realized", "start-powered-off", "tcg-cpuid", "vmware-cpuid-freq"),
    }
)


def main(arguments: Sequence[str] | None = None) -> int:
    """0, also when nothing could be found out: virt-handler is needed on this node in any case."""
    parser = argparse.ArgumentParser(prog="node-probe", description=__doc__)
    parser.add_argument("file", help="where the report goes (JSON)")
    parser.add_argument(
        "--kvm-device",
        default=KVM_DEVICE,
        metavar="FILE",
        help="the node's own device, which the report is about",
    )
    options = parser.parse_args(arguments)
    try:
        report = probe(options.kvm_device)
        _write(options.file, msgspec.json.encode(report))
    except (HostError, OSError) as error:
        # What an earlier start found out is not to be believed now.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(options.file)
        print(f"error: {error}", file=sys.stderr)
        return 0
    if report.kvm_works:
        print("KVM works")
    else:
        print(f"guests will be emulated: {report.kvm_message}")
    print(f"{len(report.cpu_models)} CPU models, vendor {report.cpu_vendor or 'unknown'}")
    return 0


def probe(kvm_device: str, qemu: str = QEMU_BINARY) -> NodeReport:
    """Look at this node.

    :raises HostError: QEMU does not answer.
    """
    verdict = accel.try_kvm(qemu, _KVM_SECONDS)
    models, features = _cpu(qemu, "kvm" if verdict.works else "tcg")
    return NodeReport(
        kvm_identity=kvm_identity(kvm_device),
        kvm_works=verdict.works,
        kvm_message=verdict.why,
        cpu_models=models,
        cpu_features=features,
        cpu_vendor=_vendor(),
    )


def _cpu(qemu: str, by: Accel) -> tuple[tuple[str, ...], tuple[str, ...]]:
    best = {"type": "full", "model": {"name": "host" if by == "kvm" else "max"}}
    definitions, expansion = _ask(
        qemu,
        by,
        {"execute": "query-cpu-definitions"},
        {"execute": "query-cpu-model-expansion", "arguments": best},
    )
    return cpu_models(definitions), cpu_features(expansion)


def cpu_models(definitions: list[dict[str, Any]]) -> tuple[str, ...]:
    """Names from an answer of ``query-cpu-definitions``: those that lack nothing here."""
    return tuple(sorted(d["name"] for d in definitions if d.get("unavailable-features") == []))


def cpu_features(expansion: dict[str, Any]) -> tuple[str, ...]:
    """Names from a full ``query-cpu-model-expansion``."""
    props = expansion["model"]["props"]
    return tuple(
        sorted(
            name
            for name, value in props.items()
            if value is True and not name.startswith(("x-", "hv-")) and name not in _NO_FEATURES
        )
    )


def _ask(qemu: str, by: Accel, *commands: dict[str, Any]) -> list[Any]:
    """What a QEMU without a guest answers, in the commands' order."""
    script = [
        {"execute": "qmp_capabilities"},
        *({**command, "id": number} for number, command in enumerate(commands)),
        {"execute": "quit"},
    ]
    argv = [qemu, "-machine", f"none,accel={by}", "-nodefaults", "-display", "none"]
    try:
        done = subprocess.run(
            [*argv, "-qmp", "stdio"],
            input="\n".join(map(json.dumps, script)).encode(),
            capture_output=True,
            timeout=_QUERY_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"{qemu} can't be asked for its CPU models: {error}") from error
    answers = {}
    for line in done.stdout.splitlines():
        answer = json.loads(line)
        if "id" in answer:
            answers[answer["id"]] = answer.get("return")
    found = [answers.get(number) for number in range(len(commands))]
    if None in found:
        said = done.stderr.decode(errors="replace").strip() or f"status {done.returncode}"
        raise HostError(f"{qemu} can't be asked for its CPU models: {said}")
    return found


def _vendor() -> str:
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key.strip() == "vendor_id":
                return value.strip()
    return ""


def _write(path: str, data: bytes) -> None:
    """Whole or not at all."""
    new = f"{path}.new"
    with open(new, "wb") as file:
        file.write(data + b"\n")
        os.fsync(file.fileno())
    os.replace(new, path)


if __name__ == "__main__":
    sys.exit(main())
