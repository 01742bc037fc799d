"""What a launcher does without, so that it stays small: modules that it must not load, pages that it gives back."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import subprocess
import sys
import types
from collections.abc import Iterator
from typing import get_args, get_type_hints

import msgspec
import pytest
from tests.launcher.conftest import Launch, firmware_only

from qvirt_crds.sync import SyncArguments
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_launcher import settle, small_inspect, taken
from qvirt_launcher.options import Options, Usage, parse

#: Each costs 0.1 to 5 MiB for as long as the guest lives.
HEAVY = {
    *("ssl", "_ssl", "_hashlib", "argparse", "shutil", "pathlib", "fractions", "email", "http.client"),
    *("multiprocessing", "concurrent.futures.process", "concurrent.futures.thread", "tempfile"),
    *("ast", "dis", "opcode", "argparse"),
    *("jinja2", "pyroute2", "pycdlib", "yaml", "kopf", "kubernetes"),
    *("qvirt_crds.vm", "qvirt_crds.domain", "qvirt_crds.devices", "qvirt_crds.volumes"),
}  # fmt: skip


def modules_of(start: str) -> set[str]:
    """Modules that are loaded in a fresh Python after these lines."""
    script = f"{start}\nimport sys\nprint(*[n for n, m in sys.modules.items() if m is not None])"
    run = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    return set(run.stdout.splitlines()[-1].split())


def test_the_launcher_loads_nothing_heavy() -> None:
    help_wanted = (
        "import sys; sys.argv = ['virt-launcher', '--help']\n"
        "from qvirt_launcher.main import main\nassert main() == 0\n"
        # What it goes on with once it has split off its worker.
        "from qvirt_launcher import small_inspect\nsmall_inspect.take_its_place()\n"
        "import qvirt_launcher.service"
    )
    loaded = modules_of(help_wanted)
    assert {"asyncio", "qemu.qmp", "qvirt_launcher.service"} <= loaded
    assert loaded & HEAVY == set()


async def coroutine_function() -> None: ...


def generator_function() -> Iterator[None]:
    yield


class Waitable:
    def __await__(self) -> Iterator[None]:
        yield

    async def method(self) -> None: ...


def things() -> list[object]:
    coroutine = coroutine_function()
    coroutine.close()
    return [
        *(1, None, len, str, lambda: 1, coroutine, coroutine_function, generator_function, generator_function()),
        *(types.coroutine(generator_function)(), Waitable(), Waitable().method, Waitable.method),
        *(functools.partial(coroutine_function), functools.partial(functools.partial(Waitable().method))),
        *(functools.partial(len), functools.wraps(len)(lambda: 1), asyncio.sleep, asyncio.Future),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "question", ["isfunction", "isgenerator", "iscoroutine", "isawaitable", "iscoroutinefunction"]
)
def test_the_small_inspect_answers_as_the_real_one(question: str) -> None:
    for thing in things():
        assert getattr(small_inspect, question)(thing) is getattr(inspect, question)(thing), thing


def test_the_small_inspect_unwraps_as_the_real_one() -> None:
    @functools.wraps(generator_function)
    @functools.wraps(len)
    def wrapped() -> None: ...

    assert small_inspect.unwrap(wrapped) is inspect.unwrap(wrapped) is generator_function
    wrapped.__wrapped__ = wrapped  # type: ignore[assignment]
    with pytest.raises(ValueError, match="wraps itself"):
        small_inspect.unwrap(wrapped)


def test_what_the_small_inspect_lacks_comes_from_the_real_one() -> None:
    small = (
        "from qvirt_launcher import small_inspect\nsmall_inspect.take_its_place()\nimport inspect\n"
    )
    assert "ast" not in modules_of(small + "assert inspect.isfunction(lambda: 1)")
    assert "ast" in modules_of(small + "assert str(inspect.signature(lambda a: 1)) == '(a)'")
    assert "ast" in modules_of(small + "from inspect import Parameter\nimport dataclasses")


def test_without_openssl_the_library_loads_and_ssl_stays_away() -> None:
    loaded = modules_of("import sys; sys.modules['ssl'] = None\nimport qvirt_qmp.client")
    assert "qemu.qmp.protocol" in loaded
    assert loaded & {"ssl", "_ssl"} == set()


def test_with_openssl_everybody_gets_the_real_one() -> None:
    loaded = modules_of("import qvirt_qmp.client, ssl\nassert ssl.create_default_context()")
    assert {"qemu.qmp.protocol", "_ssl"} <= loaded


def fields(kind: type) -> dict[str, type]:
    """Attributes and their types, without None."""
    return {
        name: next(iter(set(get_args(hint)) - {type(None)}), hint)
        if type(None) in get_args(hint)
        else hint
        for name, hint in get_type_hints(kind).items()
    }


def test_what_is_taken_is_what_is_sent() -> None:
    sent, kept = fields(SyncArguments), fields(taken.Taken)
    assert sent | {"vmi": taken.Vmi} == kept


def test_the_views_name_fields_of_the_object() -> None:
    waiting: list[tuple[type, type]] = [(VirtualMachineInstance, taken.Vmi)]
    seen = 0
    while waiting:
        whole, view = waiting.pop()
        names = {field.name: field for field in msgspec.structs.fields(view)}
        assert set(names) <= set(fields(whole)), view
        for name, field in names.items():
            seen += 1
            kind = fields(view)[name]
            assert field.encode_name in {f.encode_name for f in msgspec.structs.fields(whole)}
            if isinstance(kind, type) and issubclass(kind, taken.View):
                waiting.append((fields(whole)[name], kind))
    assert seen > 8


def test_a_view_says_what_the_object_says() -> None:
    vmi = firmware_only(terminationGracePeriodSeconds=7, startStrategy="Paused")
    seen = msgspec.convert(msgspec.to_builtins(vmi), taken.Vmi)
    assert (seen.metadata.name, seen.metadata.uid) == ("tiny", "one")
    assert seen.spec.termination_grace_period_seconds == 7
    assert seen.spec.start_strategy == "Paused"
    assert seen.has_acpi is True


@pytest.mark.qemu
async def test_an_object_that_is_none_ends_in_a_report(launch: Launch) -> None:
    async with launch() as launched:
        monitor = await launched.connect()
        vmi = msgspec.to_builtins(firmware_only())
        vmi["spec"]["colour"] = "red"
        await monitor.execute("vm-sync", {"vmi": vmi, "accel": "tcg"})
        last = await launched.last_report()
        assert (last.phase, last.end_reason) == ("Failed", "PrepareFailed")
        assert "colour" in last.message


def test_options_in_both_forms() -> None:
    given = parse(["--run-dir=/a", "--name", "b", "--pod", "--run-dir", "/c=d"])
    assert given == Options(run_dir="/c=d", name="b", pod=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--run-dir is missing"),
        (["--run-dir"], "--run-dir needs a value"),
        (["--run-dir", "--pod"], "--run-dir needs a value"),
        (["--run-dir="], "--run-dir is missing"),
        (["--pod=yes", "--run-dir=/a"], "unknown argument '--pod=yes'"),
        (["--color", "--run-dir=/a"], "unknown argument '--color'"),
        (["/a"], "unknown argument '/a'"),
    ],
)
def test_wrong_options_are_told(arguments: list[str], message: str) -> None:
    with pytest.raises(Usage, match=message) as caught:
        parse(arguments)
    assert caught.value.code == 2


def test_help_names_every_option() -> None:
    with pytest.raises(Usage) as caught:
        parse(["--help"])
    assert caught.value.code == 0
    for field in msgspec.structs.fields(Options):
        assert f"--{field.name.replace('_', '-')}" in str(caught.value)


SMAPS = """\
00400000-00420000 r--p 00000000 00:2a 1234                               /usr/bin/python3.11
Size:                128 kB
Anonymous:             0 kB
VmFlags: rd mr mw me
00420000-006a0000 r-xp 0001f000 00:2a 1234                               /usr/bin/python3.11
Size:               2560 kB
Anonymous:             0 kB
00a10000-00a12000 r--p 0060f000 00:2a 1234                               /usr/bin/python3.11
Anonymous:             8 kB
00a12000-00b82000 rw-p 00611000 00:2a 1234                               /usr/bin/python3.11
Anonymous:             0 kB
7ffd1000-7ffd2000 r-xp 00000000 00:00 0                                  [vdso]
Anonymous:             0 kB
7fff0000-7fff1000 r--s 00000000 00:2a 77                                 /some/shared file
Anonymous:             0 kB
"""


def test_only_unchanged_private_pages_of_files_are_given_back() -> None:
    assert list(settle.unchanged(SMAPS)) == [(0x400000, 0x20000), (0x420000, 0x280000)]


def test_before_a_long_wait_pages_are_given_back_and_work_goes_on() -> None:
    """In a process of its own: the collector would be frozen in ours."""
    script = """
import asyncio, os, re
from qvirt_launcher import settle
settle.QUIET = 0.05
def pages():
    return int(re.search(r"RssFile:\\s+(\\d+)", open("/proc/self/status").read())[1])
seen = []
class Watched(settle.Selector):
    def select(self, timeout=None):
        before = pages()
        events = super().select(timeout)
        seen.append(before - pages())
        return events
async def main():
    await asyncio.sleep(0.4)
    return sum(range(1000))
with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(Watched())) as runner:
    print(runner.run(main()), max(seen))
"""
    run = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ},
    )
    total, freed = map(int, run.stdout.split())
    assert total == 499500
    assert freed > 1000, "kB"
