"""What judges stand on: a chat server, attempts, safe lines.

Knows nothing about videos, questions or rubrics; those belong to who asks (`feedback`, `evaluate`).
"""

from llava_next_video.judging.attempts import UndecidedError, UnreachedError
from llava_next_video.judging.everyone import decide_each, reason
from llava_next_video.judging.ledger import Ledger, whole_lines
from llava_next_video.judging.server import ChatServer

__all__ = [
    "ChatServer",
    "Ledger",
    "UndecidedError",
    "UnreachedError",
    "decide_each",
    "reason",
    "whole_lines",
]
