"""Shell completion: the shells ask ``qvirt __complete`` at each Tab, which answers from the parser itself.

So the scripts are a few lines, never go stale, and know the names of running VMs.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Final

from qvirt_launcher.cli import exits
from qvirt_launcher.cli.parser import Parser, build_parser

_BASH: Final = """\
_qvirt() {
    local IFS=$'\\n'
    COMPREPLY=($(compgen -W "$(qvirt __complete "${COMP_WORDS[@]:1:COMP_CWORD-1}" 2>/dev/null)" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _qvirt qvirt
"""
_ZSH: Final = """\
#compdef qvirt
_qvirt() {
    local -a found
    found=(${(f)"$(qvirt __complete ${words[2,CURRENT-1]} 2>/dev/null)"})
    compadd -a found || _files
}
compdef _qvirt qvirt
"""
_FISH: Final = """\
complete -c qvirt -a '(qvirt __complete (commandline -opc)[2..-1] 2>/dev/null)'
"""
_SCRIPTS: Final = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def run(arguments: argparse.Namespace) -> int:
    """Print the script of one shell."""
    print(_SCRIPTS[arguments.shell], end="")
    return exits.OK


def complete(words: Sequence[str]) -> int:
    """Print what may follow ``words`` (all words after `qvirt` and before the cursor's), one a line."""
    for candidate in candidates(words):
        print(candidate)
    return exits.OK


def candidates(words: Sequence[str]) -> list[str]:
    """What may follow; empty where a file name or a free text is expected."""
    parser = build_parser()
    rest = list(words)
    while rest:
        word = rest.pop(0)
        child = _subparsers(parser).get(word)
        if child is not None:
            return _of_command(child, rest)
    return [*_subparsers(parser), *_options(parser)]


def _of_command(parser: Parser, words: list[str]) -> list[str]:
    waiting = _waiting(parser, words)
    if waiting is not None:
        return _values(waiting)
    free = [a for a in parser._actions if not a.option_strings]
    given = _positionals(parser, words)
    following = free[given : given + 1] or [a for a in free[-1:] if a.nargs in {"*", "+"}]
    return [*(v for action in following for v in _values(action)), *_options(parser)]


def _waiting(parser: Parser, words: Sequence[str]) -> argparse.Action | None:
    """The option whose value comes next."""
    if not words:
        return None
    action = parser._option_string_actions.get(words[-1])
    return action if action is not None and action.nargs != 0 else None


def _positionals(parser: Parser, words: Sequence[str]) -> int:
    """How many of the words are neither options nor options' values."""
    count = 0
    for index, word in enumerate(words):
        if not word.startswith("-") and _waiting(parser, words[:index]) is None:
            count += 1
    return count


def _values(action: argparse.Action) -> list[str]:
    if action.choices is not None:
        return [str(choice) for choice in action.choices]
    if action.dest == "vm":
        return list(_running())
    if action.dest == "execute":
        return list(_COMMANDS)
    return []


def _options(parser: Parser) -> list[str]:
    return [o for a in parser._actions for o in a.option_strings if o.startswith("--")]


def _subparsers(parser: Parser) -> dict[str, Parser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _running() -> Iterator[str]:
    from qvirt_launcher.rundir import list_vms, runtime_root

    for vm in list_vms(runtime_root()):
        if vm.state != "dead":
            yield vm.record.name


#: What people ask most often (QEMU's QMP reference); any other command can be typed.
_COMMANDS: Final = (
    "query-status",
    "query-block",
    "query-blockstats",
    "query-chardev",
    "query-commands",
    "query-cpus-fast",
    "query-kvm",
    "query-machines",
    "query-memory-size-summary",
    "query-name",
    "query-pci",
    "query-qmp-schema",
    "query-rx-filter",
    "query-version",
    "query-vnc",
    "stop",
    "cont",
    "system_reset",
    "system_powerdown",
)
