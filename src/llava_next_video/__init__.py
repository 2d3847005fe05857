"""LLaVA-NeXT-Video: ask questions about videos."""

__version__ = "0.1.0"
