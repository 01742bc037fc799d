"""The hour: residents that stay, rounds of guests that come and go, restarts, and samples all the while."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec

from qvirt_bench import guests
from qvirt_bench.errors import BenchError
from qvirt_bench.live import Live
from qvirt_bench.soak import restarts, watch
from qvirt_bench.soak.samples import Sample
from qvirt_bench.soak.tally import Tally
from qvirt_bench.soak.visits import visit
from qvirt_kube.client import Object
from qvirt_kube.errors import Conflict, NotFound, Unavailable

RESIDENTS: Final[Mapping[str, guests.Binding]] = {
    "resident-bridge": "bridge",
    "resident-masquerade": "masquerade",
}
_SAMPLE_SECONDS: Final = 15.0
#: After the last guest of a round: connections are taken down, the kubelet collects what it killed.
_SETTLE_SECONDS: Final = 10.0
#: A level moment's samples, one second apart: a probe under way counts as no descriptor.
_LEVEL_SAMPLES: Final = 3
_BOOT_SECONDS: Final = 400.0
_GONE_SECONDS: Final = 300.0
#: In all, so that each component has lives that are long enough to show a trend.
_RESTARTS: Final = 9
_SHORTEST_PAUSE: Final = 60.0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How long, and how much at once."""

    seconds: float
    guests: int
    #: Of the dice: which guest is visited when, and how.
    seed: int = 1

    @property
    def between_restarts(self) -> float:
        """Seconds."""
        return max(_SHORTEST_PAUSE, self.seconds / _RESTARTS)

    @property
    def warm_up(self) -> float:
        """Seconds of a life whose samples say nothing of its trend."""
        return min(300.0, self.seconds / 12)


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen."""

    plan: Plan
    samples: tuple[Sample, ...]
    tally: Tally
    rounds: int
    guests: int
    #: Residents that were not the same at the end.
    replaced: tuple[str, ...]


async def soak(live: Live, plan: Plan) -> Run:
    """All of it.

    :raise BenchError: it could not be begun, or a component doesn't come back.
    """
    soaking = Soaking(live, plan)
    await soaking.settle_in()
    async with asyncio.TaskGroup() as group:
        helpers = (
            group.create_task(soaking.sample_forever(), name="samples"),
            group.create_task(
                restarts.restart_forever(live, soaking.tally, plan.between_restarts, soaking.calm),
                name="restarts",
            ),
        )
        await soaking.rounds_until_time()
        for helper in helpers:
            helper.cancel()
    return await soaking.result()


class Soaking:
    """The state of a run."""

    def __init__(self, live: Live, plan: Plan) -> None:
        self._live = live
        self._plan = plan
        self._target = live.target()
        self._dice = random.Random(plan.seed)
        self._samples: list[Sample] = []
        self._rounds = 0
        self._guests = 0
        self._pods: dict[str, str] = {}
        self.tally = Tally()
        #: Held while nothing may be restarted.
        self.calm = asyncio.Lock()

    async def settle_in(self) -> None:
        """The residents run; time begins."""
        await restarts.ready(self._live)
        for name, binding in RESIDENTS.items():
            made = guests.instance(name, guests.spec(binding))
            await self._create("virtualmachineinstances", made)
        for name in RESIDENTS:
            await guests.running(self._live, name, _BOOT_SECONDS)
        self._pods = await self._resident_pods()
        self.tally = Tally()
        print(f"{len(RESIDENTS)} residents run", flush=True)

    async def sample_forever(self) -> None:
        """Every so often, whatever is under way."""
        while True:
            await self._sample(level=False)
            await asyncio.sleep(_SAMPLE_SECONDS)

    async def rounds_until_time(self) -> None:
        """Guests come, are used, and go; after each round all is level."""
        while self.tally.now < self._plan.seconds:
            self._rounds += 1
            names = [f"r{self._rounds}-{number}" for number in range(self._plan.guests)]
            async with asyncio.TaskGroup() as group:
                for number, name in enumerate(names):
                    group.create_task(self._guest(name, number), name=name)
                for name in RESIDENTS:
                    group.create_task(visit(self.tally, self._target, name, self._dice), name=name)
            await self._level()

    async def result(self) -> Run:
        """What was seen."""
        after = await self._resident_pods()
        answering = [name for name in RESIDENTS if await self._answers(name)]
        return Run(
            plan=self._plan,
            samples=tuple(self._samples),
            tally=self.tally,
            rounds=self._rounds,
            guests=self._guests,
            replaced=tuple(
                name
                for name in RESIDENTS
                if after.get(name) != self._pods[name] or name not in answering
            ),
        )

    async def _guest(self, name: str, number: int) -> None:
        """Of every second one a VirtualMachine is in charge; half of them get no grace."""
        binding: guests.Binding = "bridge" if number % 4 < 2 else "masquerade"
        spec = guests.spec(binding, grace=5 if number % 2 else 0)
        if number % 2:
            plural, made = "virtualmachines", guests.machine(name, spec)
        else:
            plural, made = "virtualmachineinstances", guests.instance(name, spec)

        async def come() -> None:
            await self._create(plural, made)
            await guests.running(self._live, name, _BOOT_SECONDS)

        async def go() -> None:
            await self._delete(plural, name)
            await guests.gone(self._live, name, _GONE_SECONDS)

        if await self.tally.attempt("guest created, booted, answers", come):
            self._guests += 1
            await visit(self.tally, self._target, name, self._dice)
        await self.tally.attempt("guest deleted, all of it gone", go)

    async def _create(self, plural: str, made: Object) -> None:
        """While virt-api is away nothing can be created: asked again."""
        await self._again(lambda: self._live.kube.create(self._live.path(plural), made))

    async def _delete(self, plural: str, name: str) -> None:
        await self._again(lambda: self._live.kube.delete(self._live.path(plural, name)))

    async def _again(self, ask: Callable[[], Awaitable[Object]]) -> None:
        for left in reversed(range(20)):
            try:
                await ask()
            except Unavailable:
                if not left:
                    raise
                await asyncio.sleep(2)
            except (Conflict, NotFound):
                # An answer before got lost.
                return
            else:
                return

    async def _level(self) -> None:
        """Wait until nothing is under way, and look."""
        async with self.calm:
            await restarts.ready(self._live)
            await asyncio.sleep(_SETTLE_SECONDS)
            for _ in range(_LEVEL_SAMPLES):
                await self._sample(level=True)
                await asyncio.sleep(1)
        print(
            f"{self.tally.now:6.0f} s: round {self._rounds}, {self._guests} guests so far, "
            f"{sum(self.tally.done.values())} visits, {len(self.tally.failures)} failures",
            flush=True,
        )

    async def _sample(self, *, level: bool) -> None:
        sample = await watch.look(self._live, self.tally.now, level=level)
        if sample is not None:
            self._samples.append(sample)

    async def _resident_pods(self) -> dict[str, str]:
        pods = await self._live.items("pods")
        return {
            str(pod["metadata"]["labels"]["vmi.kubevirt.io/id"]): str(pod["metadata"]["uid"])
            for pod in pods
        }

    async def _answers(self, name: str) -> bool:
        try:
            await guests.running(self._live, name, 60)
        except BenchError:
            return False
        return True
