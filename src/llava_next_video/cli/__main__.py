"""`python -m llava_next_video.cli` is the command."""

from llava_next_video.cli import main

main()
