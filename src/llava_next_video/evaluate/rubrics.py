"""What judges are asked about open answers, word for word as published, and the grade in their replies."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from llava_next_video.evaluate.items import Item

HIGHEST = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """A score from 0 to 5, and whether the answer is right where that was asked."""

    score: float
    right: bool | None = None
    reply: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rubric:
    """One thing that is judged about an answer.

    Attributes:
        name: What the score is called in a report.
        words: The prompt, with `{pairs}` for questions and answers.
        decides: Whether the judge also says yes or no.
        whole: Whether a score such as 4.8 is cut down to 4, as published harnesses do.
    """

    name: str
    system: str
    words: str
    decides: bool = False
    whole: bool = True

    @property
    def version(self) -> str:
        """A hash that changes with the words and with how the reply is read."""
        told = f"{self.system}\0{self.words}\0{self.decides}\0{self.whole}"
        return hashlib.sha256(told.encode()).hexdigest()[:12]

    def prompt(self, item: Item, answers: Sequence[str]) -> str:
        """What the judge is asked about the answers to an item."""
        if len(answers) == 1:
            pairs = f"Question: {item.questions[0]}\nCorrect Answer: {item.truth}\n"
            pairs += f"Predicted Answer: {answers[0]}"
        else:
            asked = enumerate(item.questions, start=1)
            pairs = "".join(f"Question {number}: {question}\n" for number, question in asked)
            pairs += f"Correct Answer: {item.truth}\n"
            told = enumerate(answers, start=1)
            pairs += "\n".join(f"Predicted Answer to Question {number}: {answer}" for number, answer in told)
        return self.words.replace("{pairs}", pairs)

    def read(self, reply: str) -> Grade | None:
        """The grade in a reply; None where it has none, or one that is not on the scale."""
        score = re.search(r"['\"]*score['\"]*\s*:\s*['\"]?(\d+(?:\.\d+)?)", reply, re.IGNORECASE)
        if score is None or float(score[1]) > HIGHEST:
            return None
        value = float(int(float(score[1]))) if self.whole else float(score[1])
        if not self.decides:
            return Grade(score=value, reply=reply)
        decided = re.search(r"['\"]*pred['\"]*\s*:\s*['\"]*\s*(yes|no)\b", reply, re.IGNORECASE)
        if decided is None:
            return None
        return Grade(score=value, right=decided[1].lower() == "yes", reply=reply)


_TASK = (
    "You are an intelligent chatbot designed for evaluating the {aim} of generative outputs for {what}. "
    "Your task is to compare {compare}. Here's how you can accomplish the task:------##INSTRUCTIONS: {how}"
)
_ASK = "Please evaluate the following video-based question-answer pair:\n\n{pairs}\n\n"
_FORM = (
    "DO NOT PROVIDE ANY OTHER OUTPUT TEXT OR EXPLANATION. Only provide the Python dictionary string. "
    "For example, your response should look like this: {example}."
)
_SYNONYMS = "- Consider synonyms or paraphrases as valid matches{}.\n"
_PAIRS = "video-based question-answer pairs"
_WITH_TRUTH = "the predicted answer with the correct answer and determine "


def _graded(name: str, level: str, example: str, the: str = "the ") -> str:
    return (
        f"{_ASK}Provide your evaluation only as a {name} score where the {name} score is an integer value "
        f"between 0 and 5, with 5 indicating the highest level of {level}. Please generate the response in "
        f"the form of a Python dictionary string with keys 'score', where its value is {the}{name} score in "
        f"INTEGER, not STRING.{_FORM.replace('{example}', example)}"
    )


_EXAMPLE, _EXAMPLE_TWICE = "{'score': 4.8}", "{''score': 4.8}"

MATCH = Rubric(
    name="match",
    system=_TASK.format(
        aim="correctness",
        what="question-answer pairs",
        compare=_WITH_TRUTH + "if they match meaningfully",
        how="- Focus on the meaningful match between the predicted answer and the correct answer.\n"
        + _SYNONYMS.format("")
        + "- Evaluate the correctness of the prediction compared to the answer.",
    ),
    words=_ASK
    + "Provide your evaluation only as a yes/no and score where the score is an integer value between 0 and "
    "5, with 5 indicating the highest meaningful match. Please generate the response in the form of a Python "
    "dictionary string with keys 'pred' and 'score', where value of 'pred' is  a string of 'yes' or 'no' and "
    "value of 'score' is in INTEGER, not STRING."
    + _FORM.replace("{example}", "{'pred': 'yes', 'score': 4.8}"),
    decides=True,
)
"""Source: Video-ChatGPT, `quantitative_evaluation/evaluate_activitynet_qa.py`."""

CORRECTNESS = Rubric(
    name="correctness",
    system=_TASK.format(
        aim="factual accuracy",
        what=_PAIRS,
        compare=_WITH_TRUTH + "if they are factually consistent",
        how="- Focus on the factual consistency between the predicted answer and the correct answer. The "
        "predicted answer should not contain any misinterpretations or misinformation.\n"
        "- The predicted answer must be factually accurate and align with the video content.\n"
        + _SYNONYMS.format("")
        + "- Evaluate the factual accuracy of the prediction compared to the answer.",
    ),
    words=_graded("factual accuracy", "factual consistency", _EXAMPLE_TWICE),
)
DETAIL = Rubric(
    name="detail",
    system=_TASK.format(
        aim="detail orientation",
        what=_PAIRS,
        compare=_WITH_TRUTH + "its level of detail, considering both completeness and specificity",
        how="- Check if the predicted answer covers all major points from the video. The response should not "
        "leave out any key aspects.\n"
        "- Evaluate whether the predicted answer includes specific details rather than just generic points. "
        "It should provide comprehensive information that is tied to specific elements of the video.\n"
        + _SYNONYMS.format("")
        + "- Provide a single evaluation score that reflects the level of detail orientation of the "
        "prediction, considering both completeness and specificity.",
    ),
    words=_graded("detail orientation", "detail orientation", _EXAMPLE_TWICE),
)
DESCRIPTION = Rubric(
    name="detail",
    system=DETAIL.system,
    words=_graded("detail orientation", "detail orientation", _EXAMPLE),
)
CONTEXT = Rubric(
    name="context",
    system=_TASK.format(
        aim="contextual understanding",
        what=_PAIRS,
        compare=_WITH_TRUTH
        + "if the generated response aligns with the overall context of the video content",
        how="- Evaluate whether the predicted answer aligns with the overall context of the video content. "
        "It should not provide information that is out of context or misaligned.\n"
        "- The predicted answer must capture the main themes and sentiments of the video.\n"
        + _SYNONYMS.format("")
        + "- Provide your evaluation of the contextual understanding of the prediction compared to the "
        "answer.",
    ),
    words=_graded("contextual understanding", "contextual understanding", _EXAMPLE_TWICE, the=""),
)
TEMPORAL = Rubric(
    name="temporal",
    system=_TASK.format(
        aim="temporal understanding",
        what=_PAIRS,
        compare=_WITH_TRUTH
        + "if they correctly reflect the temporal sequence of events in the video content",
        how="- Focus on the temporal consistency between the predicted answer and the correct answer. The "
        "predicted answer should correctly reflect the sequence of events or details as they are presented "
        "in the video content.\n"
        + _SYNONYMS.format(", but only if the temporal order is maintained")
        + "- Evaluate the temporal accuracy of the prediction compared to the answer.",
    ),
    words=_graded("temporal accuracy", "temporal consistency", _EXAMPLE_TWICE),
)
CONSISTENCY = Rubric(
    name="consistency",
    system=_TASK.format(
        aim="consistency",
        what="similar video-based question-answer pairs",
        compare="the predicted answers for two very similar question, with a common correct answer and "
        "determine if they are consistent",
        how="- Focus on the consistency between the two predicted answers and the correct answer. Both "
        "predicted answers should correspond to the correct answer and to each other, and should not contain "
        "any contradictions or significant differences in the conveyed information.\n"
        "- Both predicted answers must be consistent with each other and the correct answer, in terms of the "
        "information they provide about the video content.\n"
        + _SYNONYMS.format(", but only if they maintain the consistency in the conveyed information")
        + "- Evaluate the consistency of the two predicted answers compared to the correct answer.",
    ).replace(
        "Your task is",
        "You will be given two very similar questions, a common answer common to both the questions and "
        "predicted answers for the two questions .Your task is",
    ),
    words=_graded("consistency", "consistency", _EXAMPLE_TWICE),
)
"""Source of the five: Video-ChatGPT, `quantitative_evaluation/evaluate_benchmark_*.py`."""
