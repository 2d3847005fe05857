"""A report's sentences agree with their numbers."""

from llava_next_video.evaluate.report import Report


def report(count: int) -> Report:
    names = tuple(f"item{number}" for number in range(count))
    return Report(
        manifest={},
        rows=(),
        wanted=9,
        waiting=count,
        unanswered=dict.fromkeys(names, "no such file"),
        undecided=dict.fromkeys(names, "no grade in 'hm'"),
        letterless=names,
    )


def test_one_is_told_in_the_singular() -> None:
    text = report(1).text
    assert "1 item waits for an answer or a verdict" in text
    assert "1 item is not scored, as it could not be asked (the first: item0: no such file)." in text
    assert (
        "1 item is not scored in what the judge gave no grade for (the first: item0: no grade in 'hm')."
        in text
    )
    assert "1 answer holds no letter for the parser; it counts as wrong." in text


def test_several_are_told_in_the_plural() -> None:
    text = report(2).text
    assert "2 items wait for an answer or a verdict" in text
    assert "2 items are not scored, as they could not be asked (the first: item0: no such file)." in text
    assert (
        "2 items are not scored in what the judge gave no grade for (the first: item0: no grade in 'hm')."
        in text
    )
    assert "2 answers hold no letter for the parser; they count as wrong." in text
