"""Many requests, one device: add, step, abort.

The engine takes ids and pixels and gives ids. It knows nothing about text or files.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch

from llava_next_video.engine.assembly import assembled, longest_request
from llava_next_video.engine.build import Parts, build
from llava_next_video.engine.door import Door
from llava_next_video.engine.encoder import Encoder, pixels_ready
from llava_next_video.engine.features import FeatureCache
from llava_next_video.engine.followers import Followers
from llava_next_video.engine.memory import kv_bytes_for, page_bytes
from llava_next_video.engine.pages import PagePool
from llava_next_video.engine.report import Answer, Load
from llava_next_video.engine.request import FinishReason, Output, Request, State
from llava_next_video.engine.runner import Step
from llava_next_video.engine.sampling_options import SamplingOptions
from llava_next_video.engine.scheduler import Scheduler
from llava_next_video.engine.settings import EngineSettings
from llava_next_video.engine.weights import LoadedWeights
from llava_next_video.errors import CapacityError, ConfigError
from llava_next_video.inputs import ModelInputs
from llava_next_video.model import LlavaNextVideoConfig
from llava_next_video.model.adapter import Adapter
from llava_next_video.model.weights import FolderWeights


class Engine:
    """Answers many requests at once, and computes nothing twice.

    One thread calls `step`; `add`, `stop` and `abort` may come from any thread.
    """

    def __init__(self, parts: Parts, followers: Followers | None = None) -> None:
        decoder, words, vision, settings = parts.decoder, parts.words, parts.vision, parts.settings
        of_page = page_bytes(decoder, settings)
        kv_bytes = kv_bytes_for(decoder, words, vision, settings)
        if kv_bytes < of_page:
            raise CapacityError(f"kv_bytes {kv_bytes} hold no page of {of_page} bytes; raise kv_bytes")
        self.settings = settings
        self.pages = PagePool(kv_bytes // of_page, settings.page_tokens)
        self.features = FeatureCache(settings.feature_bytes)
        self.scheduler = Scheduler(settings, self.pages, self.features)
        self.encoder = Encoder(vision, self.features, settings.frame_budget)
        self.decoder, self.words = decoder, words
        self._followers = followers
        leading = None if followers is None else followers.step
        self.runner = assembled(parts, pages=self.pages.count, leading=leading)
        if followers is not None:
            followers.begin(self.pages.count)
        on_gpu = decoder.device.type != "cpu"
        self._ahead = on_gpu if settings.ahead is None else settings.ahead
        self._device = torch.cuda.device(decoder.device) if on_gpu else nullcontext()
        self._under_way: Step | None = None
        config = vision.config
        self._door = Door(
            config=config,
            context=decoder.context,
            most=longest_request(decoder, settings, pages=self.pages.count),
            room=self.pages.count * settings.page_tokens,
            vocabulary=words.vocabulary,
            placeholders={"image": config.image_token_index, "video": config.video_token_index},
        )
        self._end_ids = parts.end_ids
        self._numbers = count()
        self._inbox: deque[Request] = deque()
        self._endings: deque[tuple[int, FinishReason]] = deque()
        self._rested = False  # the last step encoded nothing, to compute prompts first
        self._known: dict[int, int] = {}  # answers still to come for each request

    @classmethod
    def from_model(
        cls,
        model: Any,
        settings: EngineSettings | None = None,
        *,
        tokens: int | None = None,
        consume: bool = False,
    ) -> Engine:
        """An engine with the weights of a loaded reference model.

        Args:
            model: The reference network, or transformers' own `LlavaNextVideoForConditionalGeneration`.
            settings: Limits and choices.
            tokens: How many ids the tokenizer knows; ids beyond are never chosen. None: all.
            consume: The caller gives the model up, so that there is never a second copy of its weights.

        Raises:
            ConfigError: the engine does not know this text family, device or setting.
        """
        settings = settings or EngineSettings()
        if settings.tensor_parallel > 1:
            raise ConfigError(
                f"tensor_parallel is {settings.tensor_parallel}, and shares are read from a folder; take "
                "Engine.from_folder"
            )
        return cls(build(model, LoadedWeights(consume=consume), settings, tokens))

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        settings: EngineSettings | None = None,
        *,
        tokens: int | None = None,
        config: LlavaNextVideoConfig | None = None,
        adapter: Adapter | None = None,
    ) -> Engine:
        """An engine straight from the files of a checkpoint, a layer at a time.

        With `tensor_parallel` above 1 it starts processes that read the other shares; they end with `close`,
        or with this process, however it ends.

        Args:
            folder: What `save_pretrained` wrote.
            settings: Limits and choices.
            tokens: How many ids the tokenizer knows; ids beyond are never chosen. None: all.
            config: Instead of the folder's own.
            adapter: LoRA weights to add.

        Raises:
            CheckpointError: the folder does not hold a whole model, or the adapter is for another.
            ConfigError: the engine does not know this text family, device or setting, or so many processes
                cannot share it.
            LlavaNextVideoError: one of those processes ended, or could not load its share.
        """
        settings = settings or EngineSettings()
        config = config or LlavaNextVideoConfig.from_pretrained(folder)
        weights = FolderWeights(folder, config, adapter)
        if settings.tensor_parallel == 1:
            return cls(build(weights.model, weights, settings, tokens))
        added = None if adapter is None else adapter.folder
        with Followers.starting(folder, config, added, settings) as followers:
            parts = build(weights.model, weights, followers.settings, tokens, followers.share)
            followers.loaded()
            return cls(parts, followers)

    @property
    def busy(self) -> bool:
        """Whether some request waits or runs."""
        return bool(
            self._inbox
            or self._endings
            or self._under_way
            or self.scheduler.waiting
            or self.scheduler.running
        )

    def add(
        self,
        inputs: ModelInputs,
        options: SamplingOptions | None = None,
        *,
        timeout_s: float | None = None,
        salt: bytes = b"",
    ) -> int:
        """Queue a prompt; gives the id under which its outputs come.

        Args:
            inputs: The prompt.
            options: How to choose tokens.
            timeout_s: End the request, whatever it has, after so many seconds.
            salt: Pages are shared only among requests with equal salt.

        Raises:
            CapacityError: it can never fit, or too many wait already.
            ConfigError: its positions cannot be scaled as it asks.
            PromptError: ids and media do not agree.
            SamplingError: an option names an id that the model does not have.
        """
        options = options or SamplingOptions()
        rope = self._door.admit(inputs, options)
        if len(self.scheduler.waiting) + len(self._inbox) + options.n > self.settings.max_waiting:
            raise CapacityError(
                f"{len(self.scheduler.waiting) + len(self._inbox)} requests wait, and at most "
                f"{self.settings.max_waiting} may; try again later"
            )
        number = next(self._numbers)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        ends = frozenset(options.stop_token_ids) | (frozenset() if options.ignore_eos else self._end_ids)
        self._known[number] = options.n
        answer = partial(
            Request.of, inputs, options, id=number, end_ids=ends, deadline_s=deadline, salt=salt, rope=rope
        )
        self._inbox.extend(answer(index=index) for index in range(options.n))
        return number

    def abort(self, request_id: int) -> bool:
        """End a request with reason "abort"; gives whether it was still there."""
        return self._end_soon(request_id, "abort")

    def stop(self, request_id: int) -> bool:
        """End a request with reason "stop", as its text is complete; gives whether it was still there."""
        return self._end_soon(request_id, "stop")

    def step(self) -> list[Output]:
        """Do some work for everyone; gives what is new.

        On a GPU (see `EngineSettings.ahead`) that is what the step before has chosen: its tokens are looked
        at while the device computes this one.
        """
        with torch.inference_mode(), self._device:
            outputs = self._sort_out()
            self.scheduler.admit(pixels_ready)
            ahead = self._ahead and all(request.options.plain for request in self.scheduler.running)
            if not ahead:
                outputs += self._settle()
            encoding = [request for request in self.scheduler.running if request.state is State.ENCODING]
            if self._encodes():
                for request, error in self.encoder.step(encoding):
                    outputs.append(self.scheduler.end(request, "error", error))
            chunks = self.scheduler.chunks()
            waited_for = self._under_way
            if chunks:
                started = self.runner.start(chunks, ahead=ahead)
                self.scheduler.book(chunks)
            outputs += self._settle()
            if chunks:
                self._under_way = started
                if not ahead:
                    outputs += self._settle()
            elif self.scheduler.waiting and not encoding and waited_for is None:
                time.sleep(0.001)  # all that wait, wait for pixels
        for output in outputs:
            self._forget(output)
        if outputs and not self.busy:
            self._check_idle()
        return outputs

    def generate(
        self,
        prompts: Sequence[ModelInputs],
        options: SamplingOptions | Sequence[SamplingOptions] | None = None,
    ) -> list[Answer]:
        """All answers to all prompts, in order; the `n` answers to one prompt stand together.

        The queue limit does not count here: as many prompts are added as fit, whenever there is room.
        """
        each = options if isinstance(options, Sequence) else [options or SamplingOptions()] * len(prompts)
        todo = deque(enumerate(zip(prompts, each, strict=True)))
        places: dict[int, int] = {}
        ids: dict[tuple[int, int], list[int]] = {}
        last: dict[tuple[int, int], Output] = {}
        while todo or places.keys() & self._known.keys():
            while (
                todo
                and len(self.scheduler.waiting) + len(self._inbox) + todo[0][1][1].n
                <= self.settings.max_waiting
            ):
                place, (prompt, wanted) = todo.popleft()
                places[self.add(prompt, wanted)] = place
            for output in self.step():
                if output.request_id in places:
                    where = places[output.request_id], output.index
                    ids.setdefault(where, []).extend(output.ids)
                    last[where] = output
        return [Answer(ids=tuple(ids[where]), last=last[where]) for where in sorted(last)]

    def load(self) -> Load:
        """Numbers for a dashboard."""
        counters, pages = self.scheduler.counters, self.pages.counts()
        return Load(
            waiting=len(self.scheduler.waiting) + len(self._inbox),
            running=len(self.scheduler.running),
            pages=self.pages.count,
            pages_used=pages.used,
            pages_cached=pages.cached,
            features_in_use=self.features.in_use,
            feature_bytes_idle=self.features.idle_bytes,
            preemptions=counters.preemptions,
            prompt_tokens=counters.prompt_tokens,
            cached_tokens=counters.cached_tokens,
            generated_tokens=counters.generated_tokens,
            frames=self.encoder.frames,
            finished=counters.finished,
        )

    def close(self) -> None:
        """End the processes that share the network, after which it computes nothing; one alone goes on."""
        if self._followers is not None:
            self._followers.close()

    def check(self) -> None:
        """Raise AssertionError if pages or features were lost or are held by nobody."""
        self.pages.check(request.pages for request in self.scheduler)
        users = {key for request in self.scheduler for key in request.features}
        assert self.features.in_use == len(users), (
            f"{self.features.in_use} features in use, {len(users)} needed"
        )
        if not self.busy:
            self._check_idle()

    def _check_idle(self) -> None:
        """What of `check` costs next to nothing, whenever the last request is done."""
        held = self.pages.held
        assert not held, f"{held} pages are held by nobody"
        assert not self.features.in_use, f"features of {self.features.in_use} media are held by nobody"
        assert not self.encoder.open_jobs, "a medium is half encoded for nobody"

    def _settle(self) -> list[Output]:
        """Take in what the step under way has chosen."""
        step, self._under_way = self._under_way, None
        if step is None:
            return []
        results = step.results()
        if self._followers is not None:
            self._followers.refuse_gone()
        return self.scheduler.settle(step.chunks, results)

    def _encodes(self) -> bool:
        """Whether this step encodes: not if prompts fill it, but then the next one does.

        So the first of many requests is answered before the media of the last are encoded.
        """
        self._rested = not self._rested and self.scheduler.prompt_tokens_ready() >= self.settings.token_budget
        return not self._rested

    def _sort_out(self) -> list[Output]:
        """Take in what arrived, and take out what was aborted or is too late."""
        while self._inbox:
            self.scheduler.waiting.append(self._inbox.popleft())
        outputs = []
        while self._endings:
            number, reason = self._endings.popleft()
            outputs += [self.scheduler.end(r, reason) for r in list(self.scheduler) if r.id == number]
        now = time.monotonic()
        late = [r for r in self.scheduler if r.deadline_s is not None and r.deadline_s <= now]
        return outputs + [self.scheduler.end(request, "timeout") for request in late]

    def _end_soon(self, request_id: int, reason: FinishReason) -> bool:
        if request_id not in self._known:
            return False
        self._endings.append((request_id, reason))
        return True

    def _forget(self, output: Output) -> None:
        if output.finish is not None:
            self._known[output.request_id] -= 1
            if not self._known[output.request_id]:
                del self._known[output.request_id]
