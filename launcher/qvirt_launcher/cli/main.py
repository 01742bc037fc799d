"""Entry point of `qvirt`: parse, hand over to the subcommand's module, turn errors into one line and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from qvirt_launcher.cli import exits
from qvirt_launcher.cli.parser import build_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; the exit code (`exits`)."""
    words = sys.argv[1:] if argv is None else list(argv)
    if words[:1] == ["__complete"]:
        from qvirt_launcher.cli.completion import complete

        return complete(words[1:])
    parser = build_parser()
    arguments = parser.parse_args(["version"] if words == ["--version"] else words)
    if arguments.command is None:
        parser.print_help()
        return exits.USAGE
    return _guarded(arguments)


def _guarded(arguments: object) -> int:
    """Errors that users can act on are a line; anything else is a bug of ours and may show its traceback."""
    from qvirt_crds.errors import QvirtError
    from qvirt_launcher.cli.failure import exit_code, show
    from qvirt_qmp.errors import QmpError

    try:
        module = importlib.import_module(f"qvirt_launcher.cli.{arguments.module}")  # type: ignore[attr-defined]
        code = int(module.run(arguments))
        sys.stdout.flush()
    except (QvirtError, QmpError) as error:
        show(error)
        return exit_code(error)
    except KeyboardInterrupt:
        print("qvirt: interrupted", file=sys.stderr)
        return exits.FAILED
    except BrokenPipeError:
        # The reader of our output has gone; so that the interpreter doesn't complain at its exit, too:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.FAILED
    return code


if __name__ == "__main__":
    sys.exit(main())
