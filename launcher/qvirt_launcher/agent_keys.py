"""Who may log in to the guest, as its agent can arrange it: passwords and ssh keys."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Final

from qvirt_launcher.agent import Agent
from qvirt_launcher.agent_exec import Programs
from qvirt_launcher.errors import AgentCommandMissing, AgentRefused

#: As the user, so that nothing in a directory of the user's can lead root astray. HOME is set by su(1).
_WRITE: Final = (
    'umask 077; mkdir -p "$HOME/.ssh" && cat > "$HOME/.ssh/authorized_keys.new"'
    ' && mv "$HOME/.ssh/authorized_keys.new" "$HOME/.ssh/authorized_keys"'
)
_SECONDS: Final = 30.0


async def set_password(agent: Agent, user: str, password: str, *, crypted: bool = False) -> None:
    """Give a user of the guest another password.

    :raise AgentError: it stays what it was.
    """
    data = base64.b64encode(password.encode()).decode()
    await agent.channel.execute(
        "guest-set-user-password", {"username": user, "password": data, "crypted": crypted}
    )


async def authorize(
    agent: Agent, programs: Programs, user: str, keys: Iterable[str], *, reset: bool
) -> None:
    """Let these ssh keys open a user's account.

    Agents before QEMU 5.2 have no command for it; there the file is written, in which these keys are the only ones then.

    :param reset: they become the only ones in any case.
    :raise AgentError: they don't open it.
    """
    wanted = list(keys)
    try:
        await agent.channel.execute(
            "guest-ssh-add-authorized-keys", {"username": user, "keys": wanted, "reset": reset}
        )
    except AgentCommandMissing:
        await _write(programs, user, wanted)


async def _write(programs: Programs, user: str, keys: list[str]) -> None:
    text = "".join(f"{key}\n" for key in keys).encode()
    args = ("-s", "/bin/sh", "-c", _WRITE, user)
    done = await programs.run("su", args, seconds=_SECONDS, given=text)
    if done.exit_code != 0:
        raise AgentRefused(
            f"the ssh keys of {user} can't be written in the guest: {done.stderr.strip() or done.exit_code}"
        )
