"""The front door: load a model, ask it about videos."""

from llava_next_video.assistant.answers import Answer, Usage
from llava_next_video.assistant.assistant import VideoAssistant
from llava_next_video.assistant.plan import Plan, Planner
from llava_next_video.assistant.reading import Reader
from llava_next_video.assistant.thread import EngineThread, Ticket

__all__ = ["Answer", "EngineThread", "Plan", "Planner", "Reader", "Ticket", "Usage", "VideoAssistant"]
