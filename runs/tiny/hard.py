"""Questions whose drawn answers scored unlike each other, with the true answers, to learn from.

Each WORLD is the world.json that `prefer` asked, each FEEDBACK its output, in the same order.
"""

import argparse
import json
from pathlib import Path

from llava_next_video.feedback import read_questions
from llava_next_video.messages import Video


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=Path, nargs="+", required=True)
    parser.add_argument("--feedback", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    rows = []
    for number, (world, feedback) in enumerate(zip(given.worlds, given.feedback, strict=True)):
        lines = (feedback / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
        wanted = {json.loads(line)["id"] for line in lines}
        for asked in read_questions(world):
            if asked.id not in wanted:
                continue
            [medium] = asked.turn.media
            kind = "video" if isinstance(medium, Video) else "image"
            said = [
                {"from": "human", "value": f"<{kind}>\n{asked.text}"},
                {"from": "gpt", "value": asked.truth},
            ]
            row = {"id": f"{number}-{asked.id}", kind: str(Path(str(medium.source)).resolve())}
            rows.append(row | {"conversations": said})
    given.out.write_text(json.dumps(rows) + "\n", encoding="utf-8")
    print(f"{len(rows)} questions: {given.out}")


if __name__ == "__main__":
    main()
