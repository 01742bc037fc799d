"""``qvirt render``: QEMU's command line for a manifest, offline."""

from __future__ import annotations

import argparse
import json
import shlex

from qvirt_launcher.cli import exits
from qvirt_launcher.cli.manifest import choose_instance, read_manifests


def run(arguments: argparse.Namespace) -> int:
    """Print argv as shell words, an option a line, or as JSON."""
    vmi = choose_instance(read_manifests(arguments.file), arguments.name, arguments.file)
    # jinja2 is loaded only once the manifest is known to be right.
    from qvirt_launcher.machine import build_machine
    from qvirt_launcher.offline import offline_facts
    from qvirt_launcher.render import render

    argv = render(build_machine(vmi, offline_facts(vmi, accel=arguments.accel)))
    print(json.dumps(argv, indent=1) if arguments.json else shell_words(argv))
    return exits.OK


def shell_words(argv: tuple[str, ...]) -> str:
    """The command as one can paste it: a backslash at each line's end, an option with its value on one line."""
    lines = [shlex.quote(argv[0])]
    for word in argv[1:]:
        if word.startswith("-") or not lines[-1].startswith("-"):
            lines.append(shlex.quote(word))
        else:
            lines[-1] += f" {shlex.quote(word)}"
    return " \\\n    ".join(lines)
