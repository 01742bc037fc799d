"""The parts of which qvirt's own images are made: libraries by ELF headers, files out of packages, layers, byte code."""

from __future__ import annotations

import importlib.util
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from qvirt_images import compile_modules, wheels
from qvirt_images.debian_root import Packages
from qvirt_images.elf import needed
from qvirt_images.errors import BuildError
from qvirt_images.layers import Layer, Program, pack
from qvirt_images.tree import Tree

LIBRARIES = "usr/lib/x86_64-linux-gnu"


def test_libraries_are_those_that_binutils_reads() -> None:
    program = Path("/usr/bin/dpkg-deb")
    listed = subprocess.run(
        ["ldd", program], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    names, _ = needed(program.read_bytes())
    assert "libc.so.6" in names
    assert all(name in listed for name in names)


def test_what_is_no_program_needs_nothing() -> None:
    assert needed(b"#!/bin/sh\n") == ([], [])
    assert needed(b"") == ([], [])


def deb(folder: Path, name: str, files: dict[str, bytes | str]) -> Path:
    """A package; a text is a link's target."""
    root = folder / name
    (root / "DEBIAN").mkdir(parents=True)
    control = f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: n\nDescription: d\n"
    (root / "DEBIAN/control").write_text(control)
    for path, content in files.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            place.symlink_to(content)
        else:
            place.write_bytes(content)
    made = folder / f"{name}.deb"
    subprocess.run(["dpkg-deb", "--build", root, made], check=True, capture_output=True, timeout=60)
    return made


@pytest.fixture
def packages(tmp_path: Path) -> Packages:
    program = Path("/usr/bin/dpkg-deb").read_bytes()
    names, _ = needed(program)
    libraries: dict[str, bytes | str] = {f"{LIBRARIES}/{name}": b"library" for name in names}
    return Packages(
        {
            "tool": deb(
                tmp_path,
                "tool",
                {
                    "usr/bin/tool": program,
                    "usr/bin/other": b"never asked for",
                    "usr/share/doc/tool/copyright": b"free",
                    "usr/bin/alias": "../bin/tool",
                },
            ),
            "libs": deb(tmp_path, "libs", libraries),
        }
    )


def test_a_file_brings_its_libraries_and_its_licence_and_no_more(packages: Packages) -> None:
    tree = Tree()
    packages.take(tree, packages.matching(["usr/bin/alias"]))
    paths = {path for path, node in tree.nodes.items() if node.data}
    assert {"usr/bin/alias", "usr/bin/tool", f"{LIBRARIES}/libc.so.6"} <= paths
    assert "usr/share/doc/tool/copyright" in paths
    assert "usr/bin/other" not in paths


def test_a_pattern_that_fits_nothing_is_an_outdated_recipe(packages: Packages) -> None:
    with pytest.raises(BuildError, match="usr/bin/gone"):
        packages.matching(["usr/bin/*", "usr/bin/gone"])


def test_a_library_that_nobody_has_is_named(tmp_path: Path) -> None:
    program = Path("/usr/bin/dpkg-deb").read_bytes()
    alone = Packages({"tool": deb(tmp_path, "tool", {"usr/bin/tool": program})})
    with pytest.raises(BuildError, match=r"usr/bin/tool needs lib"):
        alone.take(Tree(), ["usr/bin/tool"])


def tree(**files: bytes) -> Tree:
    made = Tree()
    for name, data in files.items():
        made.file(f"usr/{name}", data)
    made.link("bin", "usr/bin")
    return made


def test_equal_trees_are_equal_images(tmp_path: Path) -> None:
    program = Program(("tool",), "107:107", {"B": "2", "A": "1"})
    for name, layer in (("a", tree(x=b"1", y=b"2")), ("b", tree(y=b"2", x=b"1"))):
        pack([Layer("all", layer)], tmp_path / name, name="q/t:latest", program=program)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_image_says_what_runs_and_whose_layers_it_has(tmp_path: Path) -> None:
    layers = [Layer("one", tree(x=b"1" * 9000)), Layer("two", tree(y=b"2"))]
    program = Program(("tool", "-v"), "107:107", {"A": "1"})
    sizes = pack(layers, tmp_path / "i", name="q/t:latest", program=program)
    with tarfile.open(tmp_path / "i") as archive:

        def blob(digest: str) -> bytes:
            stream = archive.extractfile(f"blobs/sha256/{digest.removeprefix('sha256:')}")
            assert stream is not None
            return stream.read()

        index = archive.extractfile("index.json")
        assert index is not None
        manifest = json.loads(blob(json.load(index)["manifests"][0]["digest"]))
        config = json.loads(blob(manifest["config"]["digest"]))
        assert [layer["size"] for layer in manifest["layers"]] == sizes
        assert config["config"]["Entrypoint"] == ["tool", "-v"]
        assert config["config"]["User"] == "107:107"
        assert [step["comment"] for step in config["history"]] == ["one", "two"]
        first = blob(manifest["layers"][0]["digest"])
    with tarfile.open(fileobj=io.BytesIO(first), mode="r:gz") as layer:
        names = {member.name: member for member in layer}
    assert names["usr/x"].size == 9000
    assert names["bin"].linkname == "usr/bin"
    assert {member.mtime for member in names.values()} == {1704067200}


SOURCE = '''"""Module's."""
from __future__ import annotations

class Thing:
    """Class's."""

    def empty(self):
        """Function's only statement."""

    def text(self):
        """Function's."""
        """Would be the docstring, were the one before it gone."""
        assert self is not None, "kept"
        return """a value"""
'''


@pytest.mark.parametrize("mode", ["keep", "drop"])
def test_byte_code_is_that_of_the_source(tmp_path: Path, mode: str) -> None:
    module = tmp_path / "root/lib/thing.py"
    module.parent.mkdir(parents=True)
    module.write_text(SOURCE)
    (module.parent / "__future__.py").touch()
    compile_modules.main(str(tmp_path / "root"), mode, str(module.parent))
    compiled = importlib.util.cache_from_source(str(module))
    first = Path(compiled).read_bytes()
    module.unlink()
    script = (
        "import sys; sys.dont_write_bytecode = True\n"
        "from importlib._bootstrap_external import SourcelessFileLoader as L\n"
        f"import types; m = types.ModuleType('thing'); L('thing', {compiled!r}).exec_module(m)\n"
        "t = m.Thing()\n"
        "print(repr(m.__doc__), repr(m.Thing.__doc__), repr(t.empty.__doc__), repr(t.text.__doc__), t.empty(), t.text(),\n"
        "      t.text.__code__.co_filename, t.text.__code__.co_firstlineno)\n"
        "m.Thing.text(None)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    seen = run.stdout.strip()
    assert seen.endswith(" None a value /lib/thing.py 10"), run.stderr
    assert seen.startswith("None None None None ") == (mode == "drop")
    assert ("Function's only statement." in seen) == (mode == "keep")
    assert "AssertionError: kept" in run.stderr
    module.write_text(SOURCE)
    compile_modules.main(str(tmp_path / "root"), mode, str(module.parent))
    assert Path(compiled).read_bytes() == first


def test_a_module_of_python_that_is_missed_is_named(tmp_path: Path) -> None:
    files = {
        "lib/json/__init__.py": "from . import decoder",
        "lib/json/decoder.py": "from .scanner import x\ntry:\n    import _json\nexcept ImportError:\n    pass",
        "lib/json/scanner.py": "import os.path, sys, _struct",
        "site/ours.py": "import json.decoder, yaml\n\ndef late():\n    import email",
        "lib/lib-dynload/_struct.cpython-311-x86_64-linux-gnu.so": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    everything = (str(tmp_path), "drop", str(tmp_path / "lib"), str(tmp_path / "site"))
    compile_modules.main(*everything)
    (tmp_path / "lib/json/scanner.py").unlink()
    (tmp_path / "site/ours.py").write_text("import email.message")
    with pytest.raises(SystemExit) as caught:
        compile_modules.main(*everything)
    assert str(caught.value).splitlines() == [
        "/lib/json/decoder.py: imports json.scanner, which was left out",
        "/site/ours.py: imports email.message, which was left out",
    ]


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("msgspec/_core.cpython-311-x86_64-linux-gnu.so", True),
        ("msgspec/__init__.pyi", False),
        ("msgspec-0.22.0.dist-info/RECORD", False),
        ("pycdlib/tests/test_x.py", False),
    ],
)
def test_of_wheels_only_what_is_loaded_is_taken(path: str, wanted: bool) -> None:
    assert wheels._wanted(path) is wanted
