"""A byte-level BPE tokenizer learnt from any text."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

UNKNOWN, START, END = "<unk>", "<s>", "</s>"
VIDEO, IMAGE = "<video>", "<image>"

SMALL_TALK = """\
What happens in this video? Describe the video in detail. Why is this video funny? What is shown in
this image? Please provide a detailed description of the video, focusing on the main subjects, their
actions, and the background scenes. A chat between a curious user and an artificial intelligence
assistant. The assistant gives helpful, detailed, and polite answers to the user's questions. How
many objects are there? Which way does the red circle move? What color is the square? Is there a
person in the video? The camera moves to the left. USER: How many cats are there in the image?
ASSISTANT: There are two cats. USER: What is shown in this image? ASSISTANT: This image shows a red
stop sign."""


def byte_level_bpe(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A tokenizer of at most `vocabulary` entries that can write any text: unknown words fall back to bytes.

    Ids 0, 1, 2 are `<unk>` (also the padding), `<s>` and `</s>`, as in Llama; `<video>` and `<image>` come
    last, in the order in which the released checkpoints added them. A prompt starts with `<s>`.

    >>> tokenizer = byte_level_bpe(["a red circle"], vocabulary=300)
    >>> tokenizer.decode(tokenizer("naïve 圆")["input_ids"], skip_special_tokens=True)
    'naïve 圆'
    """
    core = Tokenizer(models.BPE(unk_token=UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - 2,
        special_tokens=[UNKNOWN, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    core.add_special_tokens([AddedToken(VIDEO, normalized=False), AddedToken(IMAGE, normalized=False)])
    core.post_processor = processors.TemplateProcessing(
        single=f"{START} $A", pair=f"{START} $A $B", special_tokens=[(START, core.token_to_id(START))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token=UNKNOWN,
        bos_token=START,
        eos_token=END,
        pad_token=UNKNOWN,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=10**9,
    )
