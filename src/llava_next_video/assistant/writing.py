"""Ids of the network to an answer in words."""

from __future__ import annotations

from dataclasses import dataclass, field

from llava_next_video.assistant.answers import Answer, Prompt, Usage
from llava_next_video.engine import Output, TokenLogprob
from llava_next_video.processing.detokenize import TextStream


@dataclass(slots=True, kw_only=True)
class Writer:
    """Writes one answer, output by output."""

    prompt: Prompt
    text: TextStream
    _pieces: list[str] = field(default_factory=list)
    _logprobs: list[TokenLogprob] = field(default_factory=list)

    @property
    def stopped(self) -> bool:
        """Whether a stop string ended the text, so that more ids would change nothing."""
        return self.text.stopped

    def push(self, output: Output) -> list[str]:
        """The pieces of text that this output makes certain."""
        pieces = [self.text.push(token) for token in output.ids]
        if output.finish is not None:
            pieces.append(self.text.finish())
        said = [piece for piece in pieces if piece]
        self._pieces += said
        self._logprobs += output.logprobs
        return said

    def answer(self, last: Output) -> Answer:
        """The whole answer, after its last output."""
        timings = last.timings
        ended_s = timings.finished_s or timings.arrived_s
        return Answer(
            text="".join(self._pieces),
            finish_reason="length" if last.finish == "length" else "stop",
            seen=self.prompt.seen,
            logprobs=tuple(self._logprobs),
            usage=Usage(
                prompt_tokens=last.prompt_tokens,
                visual_tokens=self.prompt.inputs.visual_tokens,
                cached_tokens=last.cached_tokens,
                completion_tokens=last.completion_tokens,
                read_s=self.prompt.read_s,
                first_token_s=(timings.first_token_s or ended_s) - timings.arrived_s,
                generate_s=ended_s - timings.arrived_s,
            ),
        )
