"""The command line itself: help, errors, completion, the manual."""

from __future__ import annotations

import argparse
import importlib
import subprocess
from pathlib import Path

import pytest
from tests.cli.conftest import ROOT, Command

from qvirt_launcher.cli import exits
from qvirt_launcher.cli.completion import candidates
from qvirt_launcher.cli.main import main
from qvirt_launcher.cli.manual import manual
from qvirt_launcher.cli.parser import Parser, build_parser
from qvirt_launcher.cli.qmp import parse_arguments
from qvirt_launcher.errors import UsageError
from qvirt_launcher.publish import parse_publish


def commands() -> dict[str, Parser]:
    for action in build_parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    raise AssertionError("no subcommands")


@pytest.mark.parametrize("name", commands())
def test_every_command_explains_itself_and_has_a_module(name: str) -> None:
    parser = commands()[name]
    assert parser.description
    assert name == "version" or "examples:" in (parser.epilog or "")
    assert callable(
        importlib.import_module(f"qvirt_launcher.cli.{parser.get_default('module')}").run
    )
    for action in parser._actions:
        assert action.help, action.dest


def test_examples_in_help_can_be_parsed() -> None:
    """Whoever pastes an example from a help text gets past the parser."""
    for name, parser in commands().items():
        for line in (parser.epilog or "").splitlines()[1:]:
            words = line.split("qvirt ", 1)[-1].replace("'", "").split()
            while {"|", ">", "<"} & set(words):
                words = words[: min(words.index(w) for w in ("|", ">", "<") if w in words)]
            words = [w.rstrip(")") for w in words]
            assert build_parser().parse_args(words).module == name.replace("-", "_"), line


def test_help_lists_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["--help"])
    assert leaving.value.code == 0
    shown = capsys.readouterr().out
    for code, meaning in exits.MEANINGS.items():
        assert f"{code}  {meaning}" in shown


def test_nothing_typed_is_a_usage_error_with_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == exits.USAGE
    assert "qvirt COMMAND --help" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["run"],
            "qvirt: error: qvirt run: the following arguments are required: FILE; see `qvirt run --help`",
        ),
        (["fly"], "qvirt: error: qvirt: argument COMMAND: invalid choice: 'fly'"),
        (["run", "x", "--detach", "--console"], "not allowed with argument"),
        (["console", "x", "--timeout", "soon"], "invalid seconds value: 'soon'"),
        (["console", "x", "--timeout", "nan"], "invalid seconds value: 'nan'"),
        (["stop", "x", "--grace-period", "-1"], "invalid seconds value: '-1'"),
        (["vnc", "x", "--port", "65536"], "invalid port value: '65536'"),
    ],
)
def test_a_wrong_command_line_is_one_line(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(words)
    assert leaving.value.code == exits.USAGE
    shown = capsys.readouterr().err
    assert expected in shown
    assert shown.count("\n") == 1


def test_the_manual_is_the_parsers(request: pytest.FixtureRequest) -> None:
    page = ROOT / "docs/cli.md"
    if request.config.getoption("--update-golden"):
        page.write_text(manual())
    assert page.read_text() == manual(), "python -m qvirt_launcher.cli.manual > docs/cli.md"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080:80", ("127.0.0.1", 8080, 80, "tcp")),
        ("8080:80/tcp", ("127.0.0.1", 8080, 80, "tcp")),
        ("0.0.0.0:53:5353/udp", ("0.0.0.0", 53, 5353, "udp")),
        ("[::1]:8080:80", ("::1", 8080, 80, "tcp")),
    ],
)
def test_published_ports(text: str, expected: tuple[str, int, int, str]) -> None:
    port = parse_publish(text)
    assert (port.host_address, port.host_port, port.guest_port, port.protocol) == expected


@pytest.mark.parametrize(
    "text", ["80", ":80", "80:", "0:80", "80:65536", "80:80/sctp", "x:80:80", "²:80", "-1:80", ""]
)
def test_ports_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="HOSTPORT:GUESTPORT"):
        parse_publish(text)


def test_qmp_arguments_are_json_where_they_are_json() -> None:
    words = ["path=/machine", "n=5", "on=true", "text=on", 'o={"a": [1]}', "empty=", "eq=a=b"]
    assert parse_arguments(words) == {
        "path": "/machine",
        "n": 5,
        "on": True,
        "text": "on",
        "o": {"a": [1]},
        "empty": "",
        "eq": "a=b",
    }
    assert parse_arguments(['{"a": 1}']) == {"a": 1}
    assert parse_arguments([]) == {}


@pytest.mark.parametrize("words", [["query"], ["=x"], ["{'a': 1}"], ["a=1", "{}"]])
def test_qmp_arguments_that_are_neither(words: list[str]) -> None:
    with pytest.raises(UsageError):
        parse_arguments(words)


def test_completion_knows_commands_options_and_values() -> None:
    assert set(commands()) <= set(candidates([]))
    assert "--detach" in candidates(["run"])
    assert candidates(["run", "vm.yaml", "--network"]) == [
        "auto",
        "nat",
        "takeover",
        "user",
        "passt",
        "none",
    ]
    assert candidates(["run", "--pvc"]) == []  # a free text: the shell's own completion helps
    assert "query-status" in candidates(["qmp", "myvm"])
    assert candidates(["completion"])[:3] == ["bash", "zsh", "fish"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [("qvirt val", "validate"), ("qvirt run --netw", "--network"), ("qvirt run --accel t", "tcg")],
)
def test_bash_completes(words: str, expected: str, qvirt: Command, tmp_path: Path) -> None:
    """In a real bash, with the real script and the real command behind it."""
    command = tmp_path / "qvirt"
    command.write_text(f'#!/bin/sh\nexec {" ".join(qvirt.argv())} "$@"\n')
    command.chmod(0o755)
    script = f"""
        PATH={tmp_path}:$PATH
        source <(qvirt completion bash)
        COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        _qvirt
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [expected]


def test_help_loads_nothing_heavy(qvirt: Command) -> None:
    """Start-up is quick because of what isn't imported; no clock is needed to hold that."""
    code = (
        "import sys; from qvirt_launcher.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('asyncio', 'msgspec', 'yaml', 'jinja2', 'pyroute2', 'qemu') if m in sys.modules])"
    )
    done = subprocess.run(
        [*qvirt.prefix, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=dict(qvirt.environment),
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_version_names_what_is_installed(qvirt: Command) -> None:
    done = qvirt.run("version")
    assert done.code == exits.OK
    assert done.out.startswith("qvirt   0.")
    assert qvirt.run("--version").out == done.out
