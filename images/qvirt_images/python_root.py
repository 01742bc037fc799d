"""Debian's Python in an image: without what nobody there imports, compiled beforehand by that very Python."""

from __future__ import annotations

import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path

from qvirt_images.debian_root import LOADER, Packages
from qvirt_images.tools import run
from qvirt_images.tree import Tree

PACKAGES = ("python3.11", "libpython3.11-stdlib", "tzdata", "media-types")
#: Where Debian's Python looks for what is not its own.
SITE = "usr/lib/python3/dist-packages"
_COMPILER = Path(__file__).with_name("compile_modules.py")
_KERNELS_LOADER = "usr/lib64/ld-linux-x86-64.so.2"
_STDLIB = "usr/lib/python3.11"
_UNUSED = (
    *(
        "config-3.11",
        "distutils",
        "ensurepip",
        "idlelib",
        "lib2to3",
        "pydoc_data",
        "test",
        "tkinter",
    ),
    *(
        "turtledemo",
        "venv",
        "__phello__",
        "__hello__.py",
        "curses",
        "sitecustomize.py",
        "turtle.py",
    ),
    *(
        "this.py",
        "antigravity.py",
        "_distutils_system_mod.py",
        "_sysconfigdata__x86_64-linux-gnu.py",
    ),
    *("ctypes/_aix.py", "ctypes/wintypes.py", "asyncio/proactor_events.py"),
    *("asyncio/windows_events.py", "asyncio/windows_utils.py", "asyncio/__main__.py"),
    *("multiprocessing/popen_spawn_win32.py", "encodings/mbcs.py", "encodings/oem.py"),
    # What needs lib-dynload/_codecs_*.
    *(f"encodings/{name}" for name in ("big5", "cp932", "cp949", "cp950", "euc", "gb", "hz")),
    *(f"encodings/{name}" for name in ("iso2022", "johab", "shift")),
    *(
        f"lib-dynload/{name}"
        for name in ("_codecs_", "_ctypes_test", "_curses", "_dbm", "_test", "_tkinter", "audioop")
    ),
    *(f"lib-dynload/{name}" for name in ("_xxtest", "nis.", "ossaudiodev", "readline", "xx")),
)
#: What the operator's packages import and the launcher's don't. OpenSSL's modules are what its library comes with: without
#: them asyncio, hashlib and `qvirt_qmp.library` do without (docs/adr/0007).
LAUNCHER_UNUSED = (
    *("dbm", "sqlite3", "lib-dynload/_sqlite3", "unittest", "wsgiref", "xmlrpc"),
    *("cgi", "doctest.py", "pdb.py", "pydoc.py"),
    *("ssl.py", "lib-dynload/_ssl", "lib-dynload/_hashlib"),
    *(
        "email",
        "html",
        "http",
        "xml",
        "multiprocessing",
        "urllib/request.py",
        "urllib/robotparser.py",
    ),
    *("ftplib.py", "imaplib.py", "mailbox.py", "nntplib.py", "poplib.py", "smtplib.py", "smtpd.py"),
    *("telnetlib.py", "socketserver.py", "zipapp.py", "webbrowser.py", "pickletools.py", "tomllib"),
    *("lib-dynload/_multibytecodec", "lib-dynload/_xxsubinterpreters", "lib-dynload/_lsprof"),
    *("lib-dynload/_crypt", "lib-dynload/_multiprocessing", "lib-dynload/_posixshmem"),
    *("concurrent/futures/process.py", "importlib/metadata", "plistlib.py"),
    *("logging/config.py", "logging/handlers.py", "importlib/simple.py", "json/tool.py"),
    # Python's own forms of what it has in C.
    *("_pydecimal.py", "_pyio.py"),
    *(
        f"{name}.py"
        for name in (
            *("_markupbase", "aifc", "asynchat", "asyncore", "bdb", "cProfile", "chunk", "cmd"),
            *("code", "codeop", "colorsys", "compileall", "configparser", "crypt", "filecmp"),
            *("fileinput", "getpass", "graphlib", "imghdr", "imp", "mailcap", "mimetypes"),
            *("modulefinder", "netrc", "nturl2path", "optparse", "pipes", "profile", "pstats"),
            *("pty", "pyclbr", "sched", "shelve", "shlex", "sndhdr", "sunau", "symtable"),
            *("tabnanny", "timeit", "trace", "uu", "wave", "xdrlib"),
        )
    ),
    *(
        f"encodings/{name}"
        for name in (
            "cp",
            "hp",
            "iso8859_",
            "koi8",
            "kz1048",
            "mac_",
            "palmos",
            "ptcp",
            "tis",
        )
    ),
)


def add_python(tree: Tree, packages: Packages, *, without: Iterable[str] = ()) -> None:
    """Python's interpreter, library and time zones."""
    unused = tuple(f"{_STDLIB}/{name}" for name in (*_UNUSED, *without))
    library = [path for path in packages.matching([f"{_STDLIB}/*"]) if not path.startswith(unused)]
    zones = [
        path
        for path in packages.matching(["usr/share/zoneinfo/*"])
        if not path.startswith(("usr/share/zoneinfo/right/", "usr/share/zoneinfo/posix/"))
    ]
    # The loader is named by no library: the kernel starts it for every program.
    packages.take(tree, [_KERNELS_LOADER, "usr/bin/python3.11", *library, *zones])
    tree.link("usr/bin/python3", "python3.11")


def add_own(tree: Tree, sources: Iterable[Path], skipped: Iterable[str] = ()) -> None:
    """Our packages, as they are in this tree; `skipped` are directories below them."""
    for package in sources:
        for file in sorted(package.rglob("*")):
            name = file.relative_to(package.parent).as_posix()
            if not file.is_file() or "__pycache__" in name or name.startswith(tuple(skipped)):
                continue
            tree.file(f"{SITE}/{name}", file.read_bytes())


def compile_all(
    whole: Tree,
    scratch: Path,
    parts: Iterable[Tree],
    *,
    docstrings: bool = True,
    sources: bool = True,
) -> None:
    """Add the byte code of every module of the `parts`, made by the Python of the `whole` tree.

    Its validity is not checked at run time: the file system is read-only.
    Without `docstrings` a process takes less memory; assertions stay, unlike with Python's own -OO. Tracebacks name lines, but do
    not underline parts of them (-X no_debug_ranges): a third of the byte code's size goes for that.
    Without `sources` byte code stands in their place (PEP 3147), except for our own, whose lines tracebacks show.
    """
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        root = Path(name)
        _write(whole, root)
        library = root / "usr/lib/x86_64-linux-gnu"
        program = ("--library-path", library, root / "usr/bin/python3.11")
        run(
            *("env", f"PYTHONHOME={root / 'usr'}", "PYTHONHASHSEED=0", "PYTHONNODEBUGRANGES=1"),
            *(root / LOADER, *program),
            *("-B", "-S", _COMPILER, root, "keep" if docstrings else "drop"),
            *(root / _STDLIB, root / SITE),
        )
        for part in parts:
            for path in [path for path in part.nodes if path.endswith(".py")]:
                if not path.startswith((_STDLIB, SITE)):
                    continue
                directory, _, file = path.rpartition("/")
                compiled = f"{directory}/__pycache__/{file[:-3]}.cpython-311.pyc"
                if sources or _is_ours(path):
                    part.file(compiled, (root / compiled).read_bytes())
                else:
                    del part.nodes[path]
                    part.file(f"{path}c", (root / compiled).read_bytes())


def _is_ours(path: str) -> bool:
    """Whether a module of a tree belongs to this project."""
    return path.startswith(f"{SITE}/qvirt_")


def _write(tree: Tree, root: Path) -> None:
    for path, node in sorted(tree.nodes.items()):
        place = root / path
        if stat.S_ISDIR(node.mode):
            place.mkdir(exist_ok=True)
        elif stat.S_ISLNK(node.mode):
            place.symlink_to(node.data.decode())
        else:
            place.write_bytes(node.data)
            place.chmod(stat.S_IMODE(node.mode))
