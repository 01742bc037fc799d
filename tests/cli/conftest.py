"""Container images made by hand, manifests, and the `qvirt` command as a user runs it."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
DEMO_GUEST = ROOT / "build/guest/demo-guest.oci.tar"
IMAGE = "kubevirt/cirros-registry-disk-demo:devel"

#: A raw disk of one sector that no format's magic begins.
SECTOR = b"qvirt test disk".ljust(512, b".")


@dataclass(frozen=True)
class Link:
    """A symbolic link, or a hard one."""

    target: str
    hard: bool = False


#: A layer's content: name -> bytes, a link, or None for a directory.
Content = Mapping[str, "bytes | Link | None"]


def layer_tar(content: Content) -> bytes:
    """An uncompressed layer; names go in as they are, however hostile."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, value in content.items():
            member = tarfile.TarInfo(name)
            match value:
                case bytes():
                    member.size = len(value)
                    tar.addfile(member, io.BytesIO(value))
                case Link():
                    member.type = tarfile.LNKTYPE if value.hard else tarfile.SYMTYPE
                    member.linkname = value.target
                    tar.addfile(member)
                case None:
                    member.type = tarfile.DIRTYPE
                    tar.addfile(member)
    return buffer.getvalue()


def _zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-q", "-c"], input=data, capture_output=True, check=True).stdout


COMPRESSORS: Mapping[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "gzip": gzip.compress,
    "zstd": _zstd,
}


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass
class Oci:
    """Writes OCI layouts, OCI archives and docker archives."""

    folder: Path
    blobs: dict[str, bytes] = field(default_factory=dict)

    def blob(self, data: bytes) -> dict[str, object]:
        name = digest(data)
        self.blobs[f"blobs/{name.replace(':', '/')}"] = data
        return {"digest": name, "size": len(data)}

    def image(
        self,
        *layers: Content,
        compression: str = "gzip",
        architecture: str = "amd64",
        tag: str = "",
    ) -> dict[str, object]:
        """A manifest's descriptor; its parts are blobs by then."""
        plain = [layer_tar(layer) for layer in layers]
        packed = [self.blob(COMPRESSORS[compression](tar)) for tar in plain]
        config = self.blob(
            json.dumps(
                {
                    "os": "linux",
                    "architecture": architecture,
                    "rootfs": {"type": "layers", "diff_ids": [digest(tar) for tar in plain]},
                }
            ).encode()
        )
        manifest = self.blob(
            json.dumps({"schemaVersion": 2, "config": config, "layers": packed}).encode()
        )
        return {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            **manifest,
            "platform": {"os": "linux", "architecture": architecture},
            **({"annotations": {"org.opencontainers.image.ref.name": tag}} if tag else {}),
        }

    def files(self, *manifests: Mapping[str, object]) -> dict[str, bytes]:
        index = {"schemaVersion": 2, "manifests": list(manifests)}
        return {
            "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
            "index.json": json.dumps(index).encode(),
            **self.blobs,
        }

    def archive(self, *manifests: Mapping[str, object], name: str = "image.tar") -> Path:
        path = self.folder / name
        path.write_bytes(layer_tar(self.files(*manifests)))
        return path

    def layout(self, *manifests: Mapping[str, object], name: str = "layout") -> Path:
        for part, data in self.files(*manifests).items():
            path = self.folder / name / part
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return self.folder / name

    def docker_archive(self, *layers: Content, name: str = "docker.tar") -> Path:
        """As `docker save` writes it: layers uncompressed, named by a manifest.json."""
        plain = [layer_tar(layer) for layer in layers]
        config = json.dumps({"rootfs": {"diff_ids": [digest(tar) for tar in plain]}}).encode()
        names = [f"{index}/layer.tar" for index in range(len(plain))]
        entry = {"Config": "config.json", "RepoTags": ["test/disk:1"], "Layers": names}
        path = self.folder / name
        path.write_bytes(
            layer_tar(
                {
                    "manifest.json": json.dumps([entry]).encode(),
                    "config.json": config,
                    **dict(zip(names, plain, strict=True)),
                }
            )
        )
        return path


@pytest.fixture
def oci(tmp_path: Path) -> Oci:
    return Oci(tmp_path)


@dataclass(frozen=True)
class Finished:
    """What a command line came to."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """Standard error without the notes: the errors alone."""
        lines = self.err.splitlines()
        return "\n".join(x for x in lines if x.startswith(("qvirt: error:", "  ")))


@dataclass(frozen=True)
class Command:
    """`qvirt` in a process of its own."""

    prefix: tuple[str, ...]
    environment: Mapping[str, str]
    cwd: Path

    def argv(self, *words: str | Path) -> list[str]:
        return [*self.prefix, "-m", "qvirt_launcher.cli.main", *map(str, words)]

    def run(self, *words: str | Path, stdin: str = "", limit: float = 100) -> Finished:
        done = subprocess.run(
            self.argv(*words),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=limit,
            env=dict(self.environment),
            cwd=self.cwd,
            check=False,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.argv(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(self.environment),
            cwd=self.cwd,
            start_new_session=True,
            preexec_fn=_heed_interrupts,
        )


def _heed_interrupts() -> None:
    """A shell's background job ignores SIGINT, and so would all that the tests start if they run in one."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def qvirt(tmp_path: Path) -> Command:
    """As whoever runs the tests, with a cache of its own."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    return Command((sys.executable, "-P"), environment, tmp_path)


@pytest.fixture
def nobody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """As an ordinary user, by Debian's Python: the tests' own may lie where that user can't read."""
    python = Path("/usr/bin/python3")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    if os.geteuid() != 0 or found.stdout.strip() != version:
        pytest.skip(f"needs root, and {python} of version {version}")
    home = Path(f"/tmp/qvirt-tests-{uuid.uuid4().hex[:8]}")
    home.mkdir(mode=0o755)
    os.chown(home, 65534, 65534)
    path = [ROOT / room for room in ("crds", "qmp", "netsetup", "launcher")]
    path += [Path(p) for p in sys.path if p.endswith("site-packages")]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": ":".join(map(str, path)),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    drop = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    yield Command((*drop, str(python), "-P"), environment, home)
    subprocess.run(["rm", "-rf", home], check=True)


@pytest.fixture
def vm_name() -> str:
    """Nobody else's on this machine."""
    return f"test-{uuid.uuid4().hex[:10]}"


def manifest(
    name: str,
    *,
    volumes: Sequence[Mapping[str, object]] = (),
    grace: int = 1,
    network: bool = False,
    **spec: object,
) -> str:
    """A small VM (as JSON, which is YAML) with a disk for each volume."""
    devices: dict[str, object] = {
        "disks": [{"name": v["name"], "disk": {"bus": "virtio"}} for v in volumes],
        "autoattachPodInterface": network,
    }
    return json.dumps(
        {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstance",
            "metadata": {"name": name},
            "spec": {
                "terminationGracePeriodSeconds": grace,
                "domain": {"memory": {"guest": "64Mi"}, "devices": devices},
                "volumes": list(volumes),
                **spec,
            },
        }
    )


def seed_manifest(name: str) -> str:
    """The seed's manifest under another name."""
    text = (ROOT / "examples/seed-vm.yaml").read_text()
    assert "name: myvm" in text
    return text.replace("name: myvm", f"name: {name}")


@pytest.fixture
def demo_guest() -> str:
    """``--image`` for the seed's manifest."""
    if not DEMO_GUEST.exists():
        pytest.skip("the demo guest isn't built: make guest")
    return f"{IMAGE}={DEMO_GUEST}"
