"""The door to kopf: its watches, and nothing else of it; and a look every half minute at whether they have missed something.

kopf's own persistence (annotations, finalizers, retries) is never used: only its event handlers are. What it doesn't do is
done here: it ends for good when the API server refuses a token or a request for a while, as one does that is starting;
one of its watches may end alone, which it only logs; and it never tells of objects that went away during an outage.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, Final

import kopf
import msgspec

from qvirt_kube.address import in_cluster_server
from qvirt_kube.client import Kube, Object
from qvirt_kube.errors import KubeError, NotFound
from qvirt_kube.mirror import Doubt, Listed, Mirror, older, whole

_log = logging.getLogger(__name__)

#: Takes an object, without its managedFields, and whether it is gone; then it may have kind and metadata only.
Tell = Callable[[Object, bool], None]

#: Seconds between two looks at what the API server lists (from its cache), up to a fifth more.
PERIOD: Final = 30.0
#: Seconds that list and watch may disagree because one of both is on its way.
LATE: Final = 3.0
#: Seconds before another try after kopf has ended, or had no credentials.
_AGAIN: Final = 2.0
_STOP_DEADLINE: Final = 3.0
_LINGER: Final = 0.25
_GLANCE: Final = 0.1
#: Seconds between kopf's tries to reach the API server: about an hour in all, then it is started anew.
_BACKOFFS: Final = (0.2, 0.5, 1.0, 2.0, *(4.0 for _ in range(900)))


class Interest(msgspec.Struct, frozen=True, kw_only=True):
    """Objects to watch."""

    #: Empty: the core group.
    group: str = ""
    version: str = "v1"
    plural: str
    #: ``key=value``, narrowed by the API server; empty: all.
    label: str = ""
    namespaced: bool = True

    def path(self, namespace: str = "", name: str = "") -> str:
        """Of the collection, or of one object."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        inside = f"/namespaces/{namespace}" if namespace and self.namespaced else ""
        return f"{root}{inside}/{self.plural}" + (f"/{name}" if name else "")

    def fits(self, item: Object) -> bool:
        """Whether an object has the label."""
        key, _, value = self.label.partition("=")
        return not key or item["metadata"].get("labels", {}).get(key) == value


@asynccontextmanager
async def watching(
    kube: Kube,
    interests: tuple[Interest, ...],
    tell: Tell,
    namespace: str | None = None,
    period: float = PERIOD,
    mirrors: Mapping[Interest, Mirror] = {},
) -> AsyncIterator[None]:
    """Tell what there is and each change of it, while inside.

    The same thing may be told twice, and late, and changes in between may be left out; the last state never is.

    :param tell: called in the caller's loop.
    :param namespace: only this one; None: the cluster.
    :param mirrors: kept up to date, each before `tell` is called; others need not be read by anybody.
    """
    for name in ("kopf", "aiohttp", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Each time: that signals don't reach it in a thread.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
    watches = tuple(
        _Watch(it, tell, mirrors[it] if it in mirrors else Mirror()) for it in interests
    )
    thread = _Thread(watches, namespace)
    tasks = (
        asyncio.create_task(thread.keep(), name="watch"),
        asyncio.create_task(_resync(kube, watches, thread, namespace, period), name="resync"),
    )
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await thread.stop()


async def caught_up(
    kube: Kube, interest: Interest, mirror: Mirror, namespace: str | None, within: float
) -> None:
    """Wait until the watch has told of all that there is now, or so many seconds: what it tells later is told, too."""
    try:
        async with asyncio.timeout(within):
            waiting = {listed.uid for listed in await _listed(kube, interest, namespace or "")}
            while waiting := {uid for uid in waiting if not mirror.version(uid)}:  # noqa: ASYNC110
                await asyncio.sleep(_GLANCE)
    except (KubeError, TimeoutError) as error:
        _log.warning("%s: not waited for: %s", interest.plural, error or "the watch is late")


class _Watch:
    def __init__(self, interest: Interest, tell: Tell, mirror: Mirror) -> None:
        self.interest = interest
        self.mirror = mirror
        self.tell = tell
        #: What it was behind with when it was looked at last.
        self.behind: frozenset[Doubt] = frozenset()

    def take(self, item: Object, *, gone: bool) -> None:
        self.mirror.take(item, gone=gone)
        self.tell(item, gone)


class _Inbox:
    """Hands objects from one thread to another, which is woken once for all that wait: it costs a system call and a turn of the interpreter's lock.

    :param call: has a function called in the other thread.
    """

    def __init__(self, call: Callable[..., None], take: Callable[[Object, bool], None]) -> None:
        self._call = call
        self._take = take
        self._waiting: deque[tuple[Object, bool]] = deque()
        self._woken = False

    def put(self, item: Object, gone: bool) -> None:
        """In the one thread."""
        self._waiting.append((item, gone))
        if not self._woken:
            self._woken = True
            self._call(self._empty)

    def _empty(self) -> None:
        """In the other. What is put from now on wakes it again, or is among what it takes now."""
        self._woken = False
        while self._waiting:
            self._take(*self._waiting.popleft())


class _Thread:
    """Runs kopf in a thread and a loop of its own: at its end it cancels every task of its loop that is younger than itself."""

    def __init__(self, watches: tuple[_Watch, ...], namespace: str | None) -> None:
        self._watches = watches
        self._namespace = namespace
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._ended = asyncio.Event()
        self._ended.set()

    async def keep(self) -> None:
        """Start kopf whenever it has ended. Never returns."""
        while True:
            self._start()
            await self._ended.wait()
            await asyncio.sleep(_AGAIN)

    async def stop(self) -> None:
        """End it; `keep` starts another."""
        self._stop.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_DEADLINE):
                await self._ended.wait()
        # One that does not end is a daemon, and nobody listens to it any more.
        self._ended.set()

    def _start(self) -> None:
        stop, ended = threading.Event(), asyncio.Event()
        self._stop, self._ended = stop, ended
        arguments = (stop, ended)
        threading.Thread(target=self._body, args=arguments, name="watch", daemon=True).start()

    def _body(self, stop: threading.Event, ended: asyncio.Event) -> None:
        try:
            asyncio.run(self._run(stop))
        except Exception as error:  # noqa: BLE001  whatever ends kopf, it is started again
            if not stop.is_set():
                _log.warning("the watch has ended: %s: %s", type(error).__name__, error)
        finally:
            self._call(ended.set)

    def _call(self, callback: Callable[..., object], *arguments: object) -> None:
        # At the very end our loop may be gone before kopf's last words.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *arguments)

    async def _run(self, stop: threading.Event) -> None:
        try:
            await self._operator(stop)
        finally:
            # aiohttp closes encrypted connections a little later than it says.
            await asyncio.sleep(_LINGER)

    async def _operator(self, stop: threading.Event) -> None:
        await kopf.operator(
            registry=self._registry(stop),
            settings=_settings(tuple(watch.interest for watch in self._watches)),
            standalone=True,
            stop_flag=stop,
            clusterwide=self._namespace is None,
            namespaces=[] if self._namespace is None else [self._namespace],
        )

    def _registry(self, stop: threading.Event) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        for watch in self._watches:
            interest = watch.interest
            handler = self._handler(watch, stop)
            where = (interest.group, interest.version, interest.plural)
            kopf.on.event(*where, registry=registry, id=interest.plural)(handler)
        # A kubeconfig may be read while somebody writes it; kopf would look again after a minute.
        kopf.on.login(registry=registry, id="login", backoff=_AGAIN)(_login)
        return registry

    def _handler(self, watch: _Watch, stop: threading.Event) -> Callable[..., Any]:
        def take(item: Object, gone: bool) -> None:
            if not stop.is_set():
                watch.take(item, gone=gone)

        inbox = _Inbox(self._call, take)

        async def changed(type: str | None, body: kopf.Body, **_: Any) -> None:
            inbox.put(whole(dict(body)), type == "DELETED")

        return changed


def _settings(interests: tuple[Interest, ...]) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    # Neither the CRDs nor the namespaces of the cluster are ours to look at; whoever watches waits for the kinds before.
    settings.scanning.disabled = True
    settings.watching.server_timeout = 600
    settings.watching.connect_timeout = 10
    settings.networking.connect_timeout = 10
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = _BACKOFFS
    settings.queueing.exit_timeout = 1.0
    # An object that changes has a task and a queue for so long after.
    settings.queueing.idle_timeout = 0.2
    # kopf would keep each list whole, with a task for each of its objects.
    settings.watching.chunk_size = 500
    # It looks for differences to what it has noted in annotations, also where nobody has asked for any.
    settings.persistence.diffbase_storage = _NoNotes()
    settings.persistence.progress_storage = kopf.StatusProgressStorage()
    # kopf would kill the process some minutes after its own end.
    settings.process.ultimate_exiting_timeout = None
    for interest in interests:
        if interest.label:
            where = (interest.group, interest.version, interest.plural)
            settings.watching.label_selectors[where] = interest.label
    return settings


class _NoNotes(kopf.DiffBaseStorage):
    """kopf's own memory of objects, which nobody here uses."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence({})

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        return None

    def store(self, **_: Any) -> None:
        pass


async def _login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    # Both read files.
    return await asyncio.to_thread(_credentials, **kwargs)


def _credentials(**kwargs: Any) -> kopf.ConnectionInfo | None:
    found = kopf.login_with_service_account(**kwargs)
    if found is None:
        return kopf.login_with_kubeconfig(**kwargs)
    # kopf would ask DNS for the API server.
    return replace(found, server=in_cluster_server(found.server))


async def _resync(
    kube: Kube,
    watches: tuple[_Watch, ...],
    thread: _Thread,
    namespace: str | None,
    period: float,
) -> None:
    while True:
        await asyncio.sleep(period * (1 + 0.2 * random.random()))
        blind = []
        for watch in watches:
            try:
                if await _tell_missed(kube, watch, namespace or ""):
                    blind.append(watch.interest.plural)
            except KubeError as error:
                _log.warning("%s: not compared: %s", watch.interest.plural, error)
            except Exception:  # noqa: BLE001  an odd object must not end the care for the others
                _log.exception("%s: not compared: this is a bug", watch.interest.plural)
        if blind:
            _log.warning("the watch has missed changes of %s: starting it anew", ", ".join(blind))
            await thread.stop()


async def _tell_missed(kube: Kube, watch: _Watch, namespace: str) -> bool:
    """Tell what the watch has not; True: it has missed what it should have seen.

    A watch that goes on, but has not come to what the list says, is only behind, as on a busy machine: to start it anew would
    put it back to the beginning. What it is behind with a second time is told without it.

    :raises KubeError: no telling what is there.
    """
    interest, mirror = watch.interest, watch.mirror
    before = mirror.reached
    doubts = mirror.doubts(await _listed(kube, interest, namespace))
    if doubts:
        await asyncio.sleep(LATE)
    doubts = tuple(doubt for doubt in doubts if mirror.version(doubt.uid) == doubt.told)
    behind = frozenset(
        doubt
        for doubt in doubts
        if mirror.reached != before and not (doubt.listed and older(doubt.listed, mirror.reached))
    )
    known, watch.behind = watch.behind, behind
    blind = False
    for doubt in doubts:
        if doubt not in behind:
            blind = await _clear_up(kube, watch, doubt) or blind
        elif doubt in known:
            await _clear_up(kube, watch, doubt)
    return blind


async def _listed(kube: Kube, interest: Interest, namespace: str) -> tuple[Listed, ...]:
    """:raises KubeError: no telling."""
    query = {"labelSelector": interest.label} if interest.label else {}
    # Version 0: from the API server's cache, which may be late as well.
    return await kube.list_versions(interest.path(namespace), resourceVersion="0", **query)


async def _clear_up(kube: Kube, watch: _Watch, doubt: Doubt) -> bool:
    interest = watch.interest
    try:
        item = await kube.get(interest.path(doubt.namespace, doubt.name))
    except NotFound:
        item = None
    if watch.mirror.version(doubt.uid) != doubt.told:
        return False  # told in the meantime
    item = None if item is None else whole(item)
    if item is None or item["metadata"]["uid"] != doubt.uid or not interest.fits(item):
        known = watch.mirror.drop(doubt.uid)
        if known is not None:
            watch.tell(known, True)
        # After an outage this is as it must be.
        return False
    if item["metadata"]["resourceVersion"] == doubt.told:
        return False  # the list was late
    watch.mirror.put(item)
    watch.tell(item, False)
    return True
