"""The videos of a desk through Ray Data, on one machine or many.

Reading actors (one CPU each) turn videos into prompts with pixels; model actors (a GPU each, where there are
any) answer them, many at once. Both only carry: the desk, in the process that started it all, writes every
row, as it does without Ray. So what makes each id appear once does not depend on Ray. An actor that dies is
started again, and what it had in hand is done again; what the desk had heard of it is left out.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import math
import pickle
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from llava_next_video.caption.desk import Desk, Event
from llava_next_video.caption.feed import Task
from llava_next_video.caption.figures import Figures
from llava_next_video.caption.local import Recipe, prepare
from llava_next_video.caption.outcome import DescriberGoneError, Model, Outcome, Sight
from llava_next_video.caption.run import known
from llava_next_video.caption.seeing import see_frames
from llava_next_video.caption.table import arrow
from llava_next_video.data.decoder import Decoder
from llava_next_video.errors import ConfigError, MissingExtraError
from llava_next_video.inputs import ModelInputs
from llava_next_video.media import Clip

TOGETHER = 8
BLOCKS_AT_ONCE = 4
IDLE_S = 0.2
SPARE_CPUS = 2
REACHED_S = 5.0
OTHERWISE = "name a cluster with --ray host:port, or start one on this machine with --ray local"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Where to work, and with how many.

    Attributes:
        address: `local` starts Ray here, for this run; `auto` joins the one that runs here; else host:port.
        readers: Actors that read videos, one CPU each.
        models: Actors with a model, one GPU each if the cluster has GPUs.

    Raises:
        ConfigError: An address that is none of these.
    """

    address: str = "local"
    readers: int = 2
    models: int = 1

    def __post_init__(self) -> None:
        host, _, port = self.place
        if self.address not in ("local", "auto") and not (host and port.isdecimal() and int(port) < 1 << 16):
            raise ConfigError(f"--ray {self.address}: that is no address; {OTHERWISE}")

    @property
    def place(self) -> tuple[str, str, str]:
        """Host, colon and port of an address that has them."""
        return self.address.removeprefix("ray://").rpartition(":")


@contextmanager
def on_ray(
    cluster: Cluster, recipe: Recipe
) -> Iterator[Callable[[Desk, Model, Callable[[Figures], None]], Figures]]:
    """Joins a cluster; what it gives does the work of `caption` there, with a model of this recipe.

    Raises:
        MissingExtraError: Ray is not installed.
        ConfigError: There is no such cluster, or it is too small.
    """
    ray = _ray()

    def work(desk: Desk, model: Model, told: Callable[[Figures], None]) -> Figures:
        timeout_s = desk.settings.decode_timeout_s
        while not desk.feed.over:
            open_tasks = {task.item.id: task for task in iter(desk.next, None)}
            for event in _events(list(open_tasks.values()), recipe, cluster, gpus, timeout_s):
                # What an actor did before it died may come again.
                if open_tasks.pop(event.task.item.id, None) is not None:
                    desk.settle(event)
                desk.keep_house()
                told(desk.figures())
            for task in open_tasks.values():
                desk.feed.again(task, 0.0, counted=False)
            desk.keep_house()
            time.sleep(IDLE_S)
        return desk.figures(over=True)

    try:
        gpus = _join(ray, cluster)
        yield work
    finally:
        ray.shutdown()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """A video that was read, on its way to a model."""

    task: Task
    sight: Sight
    times_s: tuple[float, ...]
    read_ms: float
    inputs: ModelInputs


class Reader:
    """An actor that reads videos."""

    def __init__(self, recipe: Recipe, timeout_s: float) -> None:
        """Load what turns words and frames into prompts, but no weights."""
        self._recipe = recipe
        self._processor = recipe.processor()
        self._decoder = Decoder(timeout_s=timeout_s, threads=1)

    def __call__(self, batch: Any) -> Any:
        """Each task as a prompt, or as the event of its failure."""
        return _column("read", [self._read(pickle.loads(task)) for task in batch["task"].to_pylist()])

    def _read(self, task: Task) -> _Read | Event:
        started = time.perf_counter()
        try:
            seen = see_frames(task.item, self._decoder, self._recipe.sampling, look=self._recipe.look)
            assert isinstance(seen.content, Clip)
            inputs = prepare(self._processor, task.item.prompt, seen.content)
        except Exception as error:  # The outermost wall: one video of a million.
            return Event(task=task, outcome=known(error))
        read_ms = 1000 * (time.perf_counter() - started)
        return _Read(task=task, sight=seen.sight, times_s=seen.times_s, read_ms=read_ms, inputs=inputs)


class Answerer:
    """An actor with a model; its calls overlap, so the engine never waits for the end of a batch."""

    def __init__(self, recipe: Recipe) -> None:
        """Load the weights."""
        self._model = recipe.load()

    async def __call__(self, batch: Any) -> AsyncIterator[Any]:
        """What came of each task, as it comes."""
        asked = [self._ask(pickle.loads(read)) for read in batch["read"].to_pylist()]
        for answer in asyncio.as_completed(asked):
            yield _column("event", [await answer])

    async def _ask(self, read: _Read | Event) -> Event:
        if isinstance(read, Event):
            return read
        loop = asyncio.get_running_loop()
        promise: asyncio.Future[Outcome] = loop.create_future()

        def tell(outcome: Outcome) -> None:
            loop.call_soon_threadsafe(promise.set_result, outcome)

        self._model.submit(read.inputs, tell)
        outcome = await promise
        if isinstance(outcome, DescriberGoneError):
            raise outcome
        return Event(
            task=read.task, outcome=outcome, sight=read.sight, times_s=read.times_s, read_ms=read.read_ms
        )


def _column(name: str, values: Sequence[object]) -> Any:
    return arrow().table({name: [pickle.dumps(value) for value in values]})


def _events(
    tasks: Sequence[Task], recipe: Recipe, cluster: Cluster, gpus: bool, timeout_s: float
) -> Iterator[Event]:
    """What comes of the tasks, in any order."""
    if not tasks:
        return
    data = importlib.import_module("ray.data")
    # What an actor loses when it dies is a block.
    blocks = math.ceil(len(tasks) / TOGETHER)
    stream = (
        data.from_items([{"task": pickle.dumps(task)} for task in tasks], override_num_blocks=blocks)
        .map_batches(
            Reader,
            fn_constructor_args=(recipe, timeout_s),
            batch_size=TOGETHER,
            batch_format="pyarrow",
            compute=data.ActorPoolStrategy(size=min(cluster.readers, blocks)),
            num_cpus=1,
        )
        .map_batches(
            Answerer,
            fn_constructor_args=(recipe,),
            batch_size=TOGETHER,
            batch_format="pyarrow",
            compute=data.ActorPoolStrategy(
                size=min(cluster.models, blocks),
                max_concurrent_calls_per_actor=BLOCKS_AT_ONCE,
                max_tasks_in_flight_per_actor=2 * BLOCKS_AT_ONCE,
            ),
            num_cpus=1,
            num_gpus=1 if gpus else 0,
        )
    )
    for row in stream.iter_rows():
        yield pickle.loads(row["event"])


def _join(ray: Any, cluster: Cluster) -> bool:
    """Start Ray or join it; says whether there are GPUs for all models.

    Raises:
        ConfigError: There is no cluster, or it has fewer CPUs than the actors need; Ray would wait for ever.
    """
    needed = cluster.readers + cluster.models + SPARE_CPUS
    where = {"num_cpus": needed, "include_dashboard": False} if cluster.address == "local" else {}
    _refuse_unreached(cluster)
    try:
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR", **where)
    except (ConnectionError, ValueError) as error:
        told = "no cluster runs here" if cluster.address == "auto" else f"not joined ({error})"
        raise ConfigError(f"--ray {cluster.address}: {told}; {OTHERWISE}") from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = importlib.import_module("ray.data").DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    there = ray.cluster_resources()
    if there.get("CPU", 0) < needed:
        raise ConfigError(
            f"the cluster at {cluster.address} has {there.get('CPU', 0):g} CPUs; {cluster.readers} readers "
            f"and {cluster.models} models need {needed}: ask for fewer, or add machines"
        )
    return bool(there.get("GPU", 0) >= cluster.models)


def _refuse_unreached(cluster: Cluster) -> None:
    """Raise where nobody listens; Ray itself would wait for a minute, then end the process."""
    if cluster.address in ("local", "auto"):
        return
    host, _, port = cluster.place
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACHED_S).close()
    except OSError as error:
        raise ConfigError(
            f"--ray {cluster.address}: no cluster answers there ({error}); {OTHERWISE}"
        ) from error


def _ray() -> Any:
    try:
        importlib.import_module("ray.data")
        return importlib.import_module("ray")
    except ImportError as error:
        raise MissingExtraError("Ray Data is not installed; pip install 'llava-next-video[ray]'") from error
