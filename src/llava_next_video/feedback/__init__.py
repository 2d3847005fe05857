"""Preference pairs from AI feedback: sample, judge, pair."""

from llava_next_video.feedback.endpoint import EndpointJudge
from llava_next_video.feedback.judges import Judge, OwnJudge, WorldJudge
from llava_next_video.feedback.pairing import Rule
from llava_next_video.feedback.plan import Plan, Sampled, plan
from llava_next_video.feedback.questions import Asked, read_questions
from llava_next_video.feedback.run import Summary, prefer

__all__ = [
    "Asked",
    "EndpointJudge",
    "Judge",
    "OwnJudge",
    "Plan",
    "Rule",
    "Sampled",
    "Summary",
    "WorldJudge",
    "plan",
    "prefer",
    "read_questions",
]
