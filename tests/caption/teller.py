"""Captions a list with a describer that needs no network; run as a program, it can be killed.

python teller.py OUTPUT LOG SETTINGS(JSON) INPUT...

It names the mean colour of the frames, and writes each id that it is asked about into LOG.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from llava_next_video.caption import Item, Model, Said, Seen, Settings, caption, list_items, see_frames
from llava_next_video.caption.outcome import Tell
from llava_next_video.data.decoder import Decoder
from llava_next_video.errors import LlavaNextVideoError
from llava_next_video.media import Clip, Sampling


@dataclass
class Teller:
    """Describes each clip by its mean colour, after `delay_s`."""

    log: Path
    delay_s: float = 0.0
    at_once: int = 4
    look: bool = False
    hands: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(4))

    def see(self, item: Item, decoder: Decoder) -> Seen:
        return see_frames(item, decoder, Sampling(frames=4), look=self.look)

    def ask(self, item: Item, seen: Seen, tell: Tell) -> None:
        with self.log.open("a") as log:
            log.write(f"{item.id}\n")
        self.hands.submit(self._tell, seen, tell)

    def _tell(self, seen: Seen, tell: Tell) -> None:
        time.sleep(self.delay_s)
        assert isinstance(seen.content, Clip)
        red, green, blue = seen.content.frames.mean(axis=(0, 1, 2)).round().astype(int).tolist()
        tell(
            Said(
                caption=f"{red} red, {green} green, {blue} blue",
                finish_reason="stop",
                prompt_tokens=10,
                visual_tokens=4,
                cached_tokens=0,
                completion_tokens=6,
                wait_ms=0.0,
                generate_ms=1000 * self.delay_s,
            )
        )

    def close(self) -> None:
        self.hands.shutdown(wait=False, cancel_futures=True)


def teller(log: Path, delay_s: float = 0.0, *, colour: str = "mean", look: bool = False) -> Model:
    """The teller as a model; another `colour` makes it another model."""
    return Model(
        name="teller", identity={"colour": colour}, load=lambda: Teller(log=log, delay_s=delay_s, look=look)
    )


def main() -> int:
    output, log, spelled, *inputs = sys.argv[1:]
    settings = json.loads(spelled)
    delay_s = settings.pop("delay_s", 0.0)
    if (file_bytes := settings.pop("file_bytes", None)) is not None:  # a disk that is full after so many
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    try:
        caption(
            list_items(inputs, "What colour?"),
            Path(output),
            teller(Path(log), delay_s),
            Settings(**settings),
            report=False,
        )
    except (LlavaNextVideoError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
