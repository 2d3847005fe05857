"""lmms-eval's own functions on the answers in a JSON file; what they find goes into another.

A process of its own: the folder of lmms-eval brings older libraries, which the tests must not meet.
"""

import json
import os
import random
import sys
from pathlib import Path

OPTIONS = {
    letter: f"{letter}. {word}"
    for letter, word in zip("ABCD", ("star", "square", "ring", "cross"), strict=True)
}


def letters(answers: list[str]) -> dict[str, list[str]]:
    """The letter in each answer by each parser; where one would draw, nothing."""
    from lmms_eval.tasks._task_utils.mcq_extract import extract_mcq_answer
    from lmms_eval.tasks.egoschema.utils import parse_multi_choice_response as first_mention
    from lmms_eval.tasks.mvbench.utils import mcq_acc
    from lmms_eval.tasks.nextqa.utils import parse_multi_choice_response as last_mention
    from lmms_eval.tasks.perceptiontest.val.utils import perceptiontest_val_process_results_mc as lone

    random.choice = lambda choices: ""
    doc = {"video_name": "", "question": "", "answer_id": 0}
    places = dict(enumerate("ABCD"))
    return {
        "ranked-letter": [extract_mcq_answer(answer, choices=list("ABCD")) for answer in answers],
        "last-mention": [last_mention(answer, list("ABCD"), OPTIONS) for answer in answers],
        "first-mention": [first_mention(answer, list("ABCD"), OPTIONS)[0] for answer in answers],
        "lone-letter": [places.get(lone(doc, [answer])["accuracy"]["pred_id"], "") for answer in answers],
        "any-letter": ["".join(one for one in "ABCDE" if mcq_acc(one, answer)) for answer in answers],
    }


def ask_judge(url: str) -> None:
    """Every rubric once, in an order that the test knows."""
    os.environ |= {
        "OPENAI_API_URL": f"{url}/chat/completions",
        "OPENAI_API_KEY": "none",
        "MODEL_VERSION": "judge",
    }
    from lmms_eval.tasks.activitynetqa import utils as activitynet
    from lmms_eval.tasks.video_detail_description import utils as described
    from lmms_eval.tasks.videochatgpt import utils as axes

    told = "What turns?", "a star", "It is a ring."
    activitynet.get_eval(*told, 64)
    for axis in ("correctness", "detailed_orientation", "context", "temporal"):
        axes.get_eval_generic(*told, axis, 64)
    axes.get_eval_consistency("What turns?", "Which turns?", "a star", "It is a ring.", "A star.", 64)
    described.get_eval_generic(*told, 64)


def refusals() -> list[str]:
    """What our plug-in says to what it does not honour."""
    from llava_next_video.errors import LlavaNextVideoError
    from llava_next_video.evaluate.lmms import LmmsModel, settings_of

    said = []
    for try_it in (
        lambda: LmmsModel(num_frame="8"),
        lambda: LmmsModel(batch_size="16"),
        lambda: LmmsModel(sampler="middle"),
        lambda: settings_of({"max_new_tokens": 16, "until": ["\n\n"], "num_beams": 5, "repetition": 1.1}),
    ):
        try:
            try_it()
        except LlavaNextVideoError as error:
            said.append(str(error))
    return said


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text())
    found = {**letters(given["answers"]), "refusals": refusals()}
    Path(sys.argv[2]).write_text(json.dumps(found))
    ask_judge(given["judge"])
