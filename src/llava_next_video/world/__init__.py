"""A toy world: shapes that move, and the truth about them."""

from llava_next_video.world.captions import caption, facts, read_facts, truth_share
from llava_next_video.world.draw import draw, to_bytes
from llava_next_video.world.imagine import random_detail, random_scene
from llava_next_video.world.questions import Question, ask
from llava_next_video.world.scene import Scene, State, Step, Thing
from llava_next_video.world.write import Film, film, random_film, write_picture, write_world

__all__ = [
    "Film",
    "Question",
    "Scene",
    "State",
    "Step",
    "Thing",
    "ask",
    "caption",
    "draw",
    "facts",
    "film",
    "random_detail",
    "random_film",
    "random_scene",
    "read_facts",
    "to_bytes",
    "truth_share",
    "write_picture",
    "write_world",
]
