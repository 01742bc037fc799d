"""Keeps who may log in to the guest as the Secrets say, through its agent.

Intervals and behaviour are KubeVirt's: a change is carried into the guest within 15 seconds (after the kubelet has brought it), and
everything again every 5 minutes. The keys of a user are replaced as a whole: one that left its Secret opens nothing any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import Final

import msgspec

from qvirt_crds.agent import CredentialsSync
from qvirt_launcher import secretfiles
from qvirt_launcher.agent import Agent
from qvirt_launcher.agent_exec import Programs
from qvirt_launcher.agent_keys import authorize, set_password
from qvirt_launcher.errors import AgentAway, AgentError, AgentSilent, HostError
from qvirt_launcher.secretfiles import Credential

_log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 15.0
AGAIN_SECONDS: Final = 300.0

_OFFLINE: Final = CredentialsSync(synchronized=False, message="Guest agent is offline")


class Keys(msgspec.Struct, frozen=True):
    """A user's ssh keys, all of them."""

    user: str
    keys: tuple[str, ...]


class Password(msgspec.Struct, frozen=True):
    """A user's password."""

    user: str
    password: str


Item = Keys | Password


class Credentials:
    """See the module. `run` is its life, which ends with the agent's."""

    def __init__(
        self, agent: Agent, programs: Programs, credentials: tuple[Credential, ...]
    ) -> None:
        self._agent = agent
        self._programs = programs
        self._credentials = credentials
        self._wake = asyncio.Event()
        #: What is in the guest since when, by the loop's clock, by our doing; and in which session of the agent it came there.
        self._done: dict[Item, float] = {}
        self._session = 0
        agent.needs_keys = any(c.kind == "keys" for c in credentials)
        agent.needs_passwords = any(c.kind == "passwords" for c in credentials)
        agent.listen(self._wake.set)

    async def run(self) -> None:
        """Look after them until the agent is closed."""
        while not self._agent.over:
            self._wake.clear()
            await self._look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._wake.wait()

    async def _look(self) -> None:
        if not self._agent.connected:
            self._agent.credentials(_OFFLINE)
            return
        if self._agent.paused or self._agent.frozen:
            return
        if self._session != self._agent.channel.session:
            # Another boot, maybe of another system.
            self._session = self._agent.channel.session
            self._done.clear()
        try:
            wanted = set(self._wanted())
        except HostError as error:
            self._tell(str(error))
            return
        self._done = {item: when for item, when in self._done.items() if item in wanted}
        await self._bring(sorted(wanted - self._fresh(), key=repr))

    def _wanted(self) -> Iterator[Item]:
        for user, keys in secretfiles.keys_by_user(self._credentials).items():
            yield Keys(user, keys)
        for user, password in secretfiles.passwords(self._credentials).items():
            yield Password(user, password)

    def _fresh(self) -> set[Item]:
        then = asyncio.get_running_loop().time() - AGAIN_SECONDS
        return {item for item, when in self._done.items() if when > then}

    async def _bring(self, items: list[Item]) -> None:
        troubles: list[str] = []
        for item in items:
            try:
                await self._carry(item)
            except AgentAway:
                self._agent.credentials(_OFFLINE)
                return
            except AgentSilent as error:
                troubles.append(str(error))
                break  # it won't answer the next one either
            except AgentError as error:
                troubles.append(str(error))
            else:
                self._done[item] = asyncio.get_running_loop().time()
        self._tell("; ".join(troubles))

    async def _carry(self, item: Item) -> None:
        match item:
            case Keys(user=user, keys=keys):
                await authorize(self._agent, self._programs, user, keys, reset=True)
            case Password(user=user, password=password):
                await set_password(self._agent, user, password)
        if item not in self._done:
            _log.info("the %s of %s came into the guest", type(item).__name__.lower(), item.user)

    def _tell(self, trouble: str) -> None:
        self._agent.credentials(CredentialsSync(synchronized=not trouble, message=trouble))
