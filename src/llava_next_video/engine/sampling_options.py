"""What a caller may ask of the choice of tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from jaxtyping import Bool
from torch import Tensor

from llava_next_video.errors import SamplingError

Guide = Callable[[Sequence[int]], Bool[Tensor, " vocabulary"] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingOptions:
    """How the tokens of one request are chosen, in the names of transformers' `GenerationConfig`.

    Attributes:
        max_new_tokens: Tokens to generate at most.
        min_new_tokens: Tokens before which no end token and no stop token can be chosen.
        temperature: 0 takes the likeliest token; 1 follows the model.
        top_k: Choose among this many likeliest tokens; 0: among all.
        top_p: Choose among the likeliest tokens that together have this probability.
        min_p: Leave out tokens less likely than this share of the likeliest.
        repetition_penalty: Divides positive (multiplies negative) logits of tokens in prompt and answer.
        presence_penalty: Subtracted from the logits of tokens that stand in the answer.
        frequency_penalty: Subtracted once for each time a token stands in the answer.
        seed: Makes the choice repeatable, whatever runs beside it; sample `i` of `n` uses `seed + i`.
        stop: Strings that end the answer. The engine knows no text: whoever turns ids into text matches them
            and calls `Engine.stop`.
        stop_token_ids: Ids that end the answer beside the model's own end tokens.
        logit_bias: Added to the logits of single ids, -100 to 100.
        logprobs: Report the log probability of each token and of this many likeliest; None: report nothing.
        n: Answers to the same prompt.
        ignore_eos: Never choose an end token.
        guide: Gives the ids that may follow the answer so far (None: all), e.g. from a grammar.
    """

    max_new_tokens: int = 256
    min_new_tokens: int = 0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: int | None = None
    n: int = 1
    ignore_eos: bool = False
    guide: Guide | None = None

    @property
    def plain(self) -> bool:
        """Whether a token depends on its logits and on chance only, and nothing but its id is asked for."""
        return not (
            self.min_new_tokens
            or self.repetition_penalty != 1
            or self.presence_penalty
            or self.frequency_penalty
            or self.logit_bias
            or self.logprobs is not None
            or self.guide is not None
        )

    def __post_init__(self) -> None:
        self._refuse_counts()
        self._refuse_numbers()
        if any(not text for text in self.stop):
            raise SamplingError(
                "stop has an empty string, which would end every answer at once; leave it out"
            )
        if any(token < 0 for token in (*self.stop_token_ids, *self.logit_bias)):
            raise SamplingError("stop_token_ids and logit_bias take token ids, which are not negative")

    def _refuse_counts(self) -> None:
        if self.max_new_tokens < 1:
            raise SamplingError(f"max_new_tokens is {self.max_new_tokens}; ask for at least 1 token")
        if not 0 <= self.min_new_tokens <= self.max_new_tokens:
            raise SamplingError(
                f"min_new_tokens is {self.min_new_tokens}; it must lie between 0 and max_new_tokens, "
                f"{self.max_new_tokens}"
            )
        if self.top_k < 0:
            raise SamplingError(f"top_k is {self.top_k}; give a count of tokens, or 0 for all of them")
        if self.n < 1:
            raise SamplingError(f"n is {self.n}; ask for at least 1 answer")
        if self.logprobs is not None and not 0 <= self.logprobs <= 100:
            raise SamplingError(f"logprobs is {self.logprobs}; it must lie between 0 and 100")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise SamplingError(f"seed is {self.seed}; it must lie between 0 and 2**63 - 1")

    def _refuse_numbers(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise SamplingError(f"temperature is {self.temperature}; it must be 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise SamplingError(f"top_p is {self.top_p}; it must be more than 0 and at most 1")
        if not 0 <= self.min_p <= 1:
            raise SamplingError(f"min_p is {self.min_p}; it must lie between 0 and 1")
        if not 0 < self.repetition_penalty < float("inf"):
            raise SamplingError(f"repetition_penalty is {self.repetition_penalty}; it must be more than 0")
        for name in ("presence_penalty", "frequency_penalty"):
            if not -2 <= getattr(self, name) <= 2:
                raise SamplingError(f"{name} is {getattr(self, name)}; it must lie between -2 and 2")
        if any(not -100 <= bias <= 100 for bias in self.logit_bias.values()):
            raise SamplingError("logit_bias has a value outside -100 to 100")
