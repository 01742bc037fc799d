"""Whatever is wrong gives one error with object, cause and remedy, an exit code, and nothing left behind."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.conftest import SECTOR, Command, Finished, Oci, manifest

from qvirt_launcher.cli import exits
from qvirt_launcher.rundir import list_vms, runtime_root

DISK = {"name": "root", "containerDisk": {"image": "demo:v1"}}
CLAIM = {"name": "root", "persistentVolumeClaim": {"claimName": "data"}}


@pytest.fixture(autouse=True)
def nothing_left(vm_name: str) -> Iterator[None]:
    """Every test here: no run directory, no process, no link of that VM afterwards."""
    yield
    assert vm_name not in {vm.record.name for vm in list_vms(runtime_root())}
    assert not any(vm_name in str(path) for path in runtime_root().rglob("*"))
    processes = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert f"_{vm_name}" not in processes.stdout


def refused(done: Finished, code: int, *fragments: str) -> None:
    """One error, in one line unless the manifest has several problems."""
    assert done.code == code, done.err
    assert "Traceback" not in done.err
    assert done.error.startswith("qvirt: error: ")
    for fragment in fragments:
        assert fragment in done.error, done.err


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "vm.yaml"
    path.write_text(text)
    return path


def changed(name: str, change: str) -> str:
    """A manifest with one thing wrong."""
    vm = json.loads(manifest(name, volumes=[DISK]))
    devices, spec = vm["spec"]["domain"]["devices"], vm["spec"]
    match change:
        case "missing volume":
            devices["disks"][0]["name"] = "other"
        case "two disks":
            devices["disks"] *= 2
        case "unknown bus":
            devices["disks"][0]["disk"]["bus"] = "floppy"
        case "no memory":
            spec["domain"]["memory"]["guest"] = 0
        case "lots of memory":
            spec["domain"]["memory"]["guest"] = "lots"
        case "unknown field":
            spec["domain"]["devicez"] = {}
        case "both userdatas":
            spec["volumes"] += [
                {"name": "seed", "cloudInitNoCloud": {"userData": "x", "userDataBase64": "eA=="}}
            ]
            devices["disks"] += [{"name": "seed", "disk": {"bus": "virtio"}}]
    return json.dumps(vm)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ("missing volume", "spec.domain.devices.disks[0].name"),
        ("two disks", "spec.domain.devices.disks[1].name"),
        ("unknown bus", "spec.domain.devices.disks[0].disk.bus"),
        ("no memory", "spec.domain.memory.guest"),
        ("lots of memory", "spec.domain.memory.guest"),
        ("unknown field", "spec.domain.devicez"),
        ("both userdatas", "spec.volumes[1].cloudInitNoCloud"),
    ],
)
@pytest.mark.parametrize("command", ["run", "validate", "render"])
def test_a_refused_field_is_named_by_its_path(
    qvirt: Command, tmp_path: Path, vm_name: str, change: str, path: str, command: str
) -> None:
    file = write(tmp_path, changed(vm_name, change))
    refused(qvirt.run(command, file), exits.REFUSED, f"{file}:1: {path}")


def test_validate_lists_every_problem_of_every_file(
    qvirt: Command, tmp_path: Path, vm_name: str
) -> None:
    for index, change in enumerate(("two disks", "no memory", "fine")):
        (tmp_path / f"{index}.yaml").write_text(changed(vm_name, change))
    done = qvirt.run("validate", *(f"{index}.yaml" for index in range(3)))
    refused(
        done,
        exits.REFUSED,
        "0.yaml:1: spec.domain.devices.disks[1].name",
        "1.yaml:1: spec.domain.memory",
    )
    assert done.out == f"2.yaml: valid: default/{vm_name}\n"


def test_several_problems_are_a_list(qvirt: Command, tmp_path: Path, vm_name: str) -> None:
    vm = json.loads(changed(vm_name, "two disks"))
    vm["spec"]["domain"]["memory"]["guest"] = "lots"
    done = qvirt.run("run", write(tmp_path, json.dumps(vm)))
    refused(done, exits.REFUSED, "qvirt: error: the manifest has ")
    assert "\n  " in done.error


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("a: [", "vm.yaml:1"),
        ("{", "vm.yaml:1"),
        ("a: b\n c: d", "vm.yaml:2"),
        ("kind: VirtualMachine", "apiVersion"),
        ("- 1", "vm.yaml:1"),
    ],
)
def test_wrong_yaml(qvirt: Command, tmp_path: Path, text: str, cause: str) -> None:
    refused(qvirt.run("run", write(tmp_path, text)), exits.REFUSED, cause)


def test_files_that_are_no_manifests(qvirt: Command, tmp_path: Path) -> None:
    refused(qvirt.run("run", "gone.yaml"), exits.USAGE, "gone.yaml: No such file or directory")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    refused(qvirt.run("run", "binary"), exits.REFUSED, "binary: is not UTF-8 text")
    refused(qvirt.run("run", "-", stdin=""), exits.USAGE, "has no VirtualMachine")


def test_which_vm_of_several(qvirt: Command, tmp_path: Path, vm_name: str) -> None:
    file = write(tmp_path, "\n---\n".join(manifest(vm_name + suffix) for suffix in ("-a", "-b")))
    refused(
        qvirt.run("run", file),
        exits.USAGE,
        "has several VMs; say which with --name",
        f"{vm_name}-b",
    )
    refused(qvirt.run("run", file, "--name", "c"), exits.USAGE, "has no VM named c")
    done = qvirt.run("render", file, "--name", f"{vm_name}-b")
    assert (done.code, f"guest=default_{vm_name}-b" in done.out) == (exits.OK, True)


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("gone.img", "does not exist; check the path given to --image"),
        ("text", "is no qcow2, and as a raw disk it would have 5 bytes"),
        ("oci-archive:text", "is not an uncompressed tar archive"),
    ],
)
def test_a_disk_image_that_is_none(
    qvirt: Command, tmp_path: Path, vm_name: str, source: str, cause: str
) -> None:
    (tmp_path / "text").write_text("text\n")
    file = write(tmp_path, manifest(vm_name, volumes=[DISK]))
    done = qvirt.run("run", file, "--image", f"demo:v1={source}", "--network", "none")
    refused(done, exits.HOST, cause)


def test_an_image_that_cant_be_pulled(qvirt: Command, tmp_path: Path, vm_name: str) -> None:
    if not shutil.which("skopeo"):
        pytest.skip("needs skopeo")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # nobody listens there as long as we hold it
        image = f"127.0.0.1:{probe.getsockname()[1]}/demo:v1"
        volume = {"name": "root", "containerDisk": {"image": image}}
        done = qvirt.run(
            "run", write(tmp_path, manifest(vm_name, volumes=[volume])), "--network", "none"
        )
    refused(done, exits.HOST, f"image {image}: can't be pulled", f"--image {image}=SOURCE")


def test_a_claim_that_nobody_mapped(qvirt: Command, tmp_path: Path, vm_name: str) -> None:
    file = write(tmp_path, manifest(vm_name, volumes=[CLAIM]))
    refused(
        qvirt.run("run", file),
        exits.HOST,
        "volume root: claim data is unknown here",
        "--pvc data=PATH",
    )
    done = qvirt.run("run", file, "--pvc", "data=/gone.img")
    refused(done, exits.HOST, "volume root: claim data: /gone.img does not exist; make it")


@pytest.mark.parametrize(
    ("option", "value", "cause"),
    [
        (
            "--image",
            "demmo:v1=x.img",
            "--image demmo:v1=...: the manifest doesn't name that; it names demo:v1",
        ),
        ("--pvc", "data=x.img", "--pvc data=...: the manifest doesn't name that; it names none"),
        ("--image", "x.img", "write it as NAME=SOURCE"),
        ("--pvc", "x.img", "write it as CLAIM=PATH"),
        ("--publish", "http", "write it as [ADDRESS:]HOSTPORT:GUESTPORT"),
        ("--interface", "=", "write it as NAME or NETWORK=NAME"),
    ],
)
def test_options_that_are_misspelt(
    qvirt: Command, tmp_path: Path, vm_name: str, option: str, value: str, cause: str
) -> None:
    file = write(tmp_path, manifest(vm_name, volumes=[DISK]))
    refused(qvirt.run("run", file, option, value), exits.USAGE, cause)


def test_a_secret_that_is_not_there_or_lacks_its_key(
    qvirt: Command, tmp_path: Path, vm_name: str
) -> None:
    volume = {"name": "seed", "cloudInitNoCloud": {"secretRef": {"name": "login"}}}
    file = write(tmp_path, manifest(vm_name, volumes=[volume]))
    refused(
        qvirt.run("run", file), exits.HOST, "Secret default/login is not there", "--secret FILE"
    )
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "login"},
        "stringData": {"other": "x"},
    }
    (tmp_path / "secret.yaml").write_text(json.dumps(secret))
    done = qvirt.run("run", file, "--secret", "secret.yaml")
    refused(done, exits.HOST, "Secret login has neither key userdata nor userData")


def test_no_qemu(qvirt: Command, tmp_path: Path, vm_name: str) -> None:
    bare = Command(qvirt.prefix, {**qvirt.environment, "PATH": str(tmp_path)}, qvirt.cwd)
    done = bare.run("run", write(tmp_path, manifest(vm_name)))
    refused(done, exits.HOST, "qemu-system-x86_64: is not installed; apt install qemu-system-x86")


@pytest.mark.root
def test_not_root(nobody: Command, vm_name: str) -> None:
    done = nobody.run("run", "-", "--network", "nat", stdin=manifest(vm_name, network=True))
    refused(done, exits.HOST, "--network nat: needs root; start as root, or use --network user")
    done = nobody.run("run", "-", "--user", "root", stdin=manifest(vm_name))
    refused(done, exits.USAGE, "--user root: only root may start guests as somebody else")


@pytest.mark.root
def test_a_cache_that_cant_be_written(nobody: Command, oci: Oci, vm_name: str) -> None:
    archive = nobody.cwd / "image.tar"
    shutil.copy(oci.archive(oci.image({"disk/a.img": SECTOR})), archive)
    done = nobody.run(
        "run", "-", "--image", f"demo:v1={archive}", "--cache-dir", "/proc/x",
        stdin=manifest(vm_name, volumes=[DISK]),
    )  # fmt: skip
    refused(done, exits.HOST, "cache /proc/x/images", "--cache-dir")


@pytest.mark.root
@pytest.mark.qemu
def test_a_busy_tap(qvirt: Command, tmp_path: Path, vm_name: str) -> None:
    from qvirt_netsetup.ipam import derive_link

    tap = derive_link("qv", "default", vm_name, "default")
    subprocess.run(["ip", "tuntap", "add", tap, "mode", "tap"], check=True)
    try:
        done = qvirt.run(
            "run", write(tmp_path, manifest(vm_name, network=True)), "--network", "nat"
        )
    finally:
        subprocess.run(["ip", "link", "del", tap], check=True)
    refused(done, exits.HOST, f"tap {tap}: busy", f"ip link del {tap}")


@pytest.mark.qemu
def test_a_busy_published_port(qvirt: Command, tmp_path: Path, vm_name: str) -> None:
    file = write(tmp_path, manifest(vm_name, network=True))
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        done = qvirt.run(
            "run", file, "--network", "user", "--publish", f"{port}:80", "--accel", "tcg"
        )
    refused(
        done, exits.HOST, f"--publish 127.0.0.1:{port}/tcp: Address already in use; choose another"
    )


@pytest.mark.qemu
def test_a_cpu_that_qemu_does_not_know(qvirt: Command, tmp_path: Path, vm_name: str) -> None:
    vm = json.loads(manifest(vm_name))
    vm["spec"]["domain"]["cpu"] = {"model": "Pentium9"}
    done = qvirt.run("run", write(tmp_path, json.dumps(vm)), "--accel", "tcg")
    assert done.code in {exits.QEMU, exits.HOST}
    assert "Pentium9" in done.error


def test_commands_about_a_vm_that_does_not_run(qvirt: Command, vm_name: str) -> None:
    for words in (("console",), ("vnc",), ("stop",), ("qmp", "query-status")):
        done = qvirt.run(words[0], vm_name, *words[1:])
        refused(done, exits.FAILED, f"{vm_name}: doesn't run; `qvirt list` shows what does")
    refused(
        qvirt.run("stop", f"elsewhere/{vm_name}"), exits.FAILED, f"elsewhere/{vm_name}: doesn't run"
    )


def test_output_that_nobody_reads_is_no_traceback(qvirt: Command) -> None:
    script = f"{' '.join(qvirt.argv('completion', 'bash'))} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        env=dict(qvirt.environment),
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode in {exits.OK, exits.FAILED}
