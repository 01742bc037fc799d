"""virt-launcher's first steps: options, directories, the worker, privileges. Then `service`, until the guest's end.

Imports little: it is what launcher and worker have in common. The worker is split off here, and both import the rest, at the same
time where there are two processors (docs/adr/0008).
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import Final

from qvirt_crds import names
from qvirt_crds.errors import QvirtError
from qvirt_launcher import forked, privileges, small_inspect
from qvirt_launcher.holders import end_holders, show_life
from qvirt_launcher.job import Birth
from qvirt_launcher.options import Options, Usage, parse
from qvirt_launcher.place import settle_in
from qvirt_qmp.errors import ListenFailed

_log = logging.getLogger(__name__)

_WORKER: Final = "launcher-worker"
_EXIT_HOST: Final = 4
_EXIT_BUG: Final = 70


def run(arguments: Sequence[str], signals: Sequence[int], early: Sequence[int]) -> int:
    """Serve one guest; returns the exit code (`phases.EXIT_CODES`, 2 for a wrong option, 4 when this host can't).

    :param signals: those that mean "stop".
    :param early: such signals that came already.
    """
    try:
        options = parse(arguments)
    except Usage as usage:
        stream = sys.stderr if usage.code else sys.stdout
        stream.write(f"{usage}\n")
        return usage.code
    logging.basicConfig(
        format=f"virt-launcher {options.namespace}/{options.name}: %(message)s",
        level=logging.DEBUG if options.verbose else logging.INFO,
        stream=sys.stderr,
    )
    if options.pod:
        show_life()
    code = _EXIT_BUG
    try:
        code = _start(options, signals, early)
    except (QvirtError, ListenFailed) as error:
        _log.error("%s", error)
        code = _EXIT_HOST
    except Exception:  # noqa: BLE001  the last door: a bug gets a traceback in the log and an exit code
        _log.exception("this is a bug")
    finally:
        # They stay where the kubelet (or podman) starts this container again.
        if options.pod and (options.restart_policy == "Never" or code == 0):
            end_holders()
    return code


def _start(options: Options, signals: Sequence[int], early: Sequence[int]) -> int:
    user = None
    if os.geteuid() == 0:
        user = privileges.resolve(options.user or str(names.RUNTIME_UID))
    place = settle_in(options, user)
    birth = Birth(user=user, cache_dir=options.cache_dir)
    worker = forked.fork(lambda: _work(birth), _WORKER, signals)
    small_inspect.take_its_place()
    # Late on purpose, see above; and before privileges go, with which the files may become unreadable.
    from qvirt_launcher.service import serve

    privileges.drop(user)
    return serve(options, place, worker, signals, early)


def _work(birth: Birth) -> None:
    from qvirt_launcher.worker import main

    main(birth)
