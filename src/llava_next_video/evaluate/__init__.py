"""Questions with known answers; scores with intervals."""

from llava_next_video.evaluate.benchmarks import BENCHMARKS
from llava_next_video.evaluate.folder import Shard
from llava_next_video.evaluate.judges import Judge, ServerJudge, WorldJudge
from llava_next_video.evaluate.report import Report, score
from llava_next_video.evaluate.run import examine
from llava_next_video.evaluate.scores import Mean, Score, bootstrap, wilson_interval
from llava_next_video.evaluate.work import Work, prepare
from llava_next_video.evaluate.world import WorldReport, examine_world, kept_answers, world_manifest

__all__ = [
    "BENCHMARKS",
    "Judge",
    "Mean",
    "Report",
    "Score",
    "ServerJudge",
    "Shard",
    "Work",
    "WorldJudge",
    "WorldReport",
    "bootstrap",
    "examine",
    "examine_world",
    "kept_answers",
    "prepare",
    "score",
    "wilson_interval",
    "world_manifest",
]
