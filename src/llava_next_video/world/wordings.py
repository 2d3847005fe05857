"""How people put it: the sentences that questions are asked in.

`{m}` is the medium (video, clip, image, picture), `{n}` a thing ("red star"), `{c}` a colour, `{s}` a shape,
`{e}` a moment ("at the start"), `{d}` a side, `{a}` a doing.
"""

from typing import Literal

Family = Literal[
    "colour",
    "shape",
    "count",
    "existence",
    "position",
    "direction",
    "action",
    "order",
    "who",
    "place",
    "size",
    "yes or no",
    "choice",
    "pattern",
    "caption",
    "detailed caption",
]

WORDINGS: dict[str, tuple[str, ...]] = {
    "colour": (
        "What color is the {s}?",
        "Which color is the {s}?",
        "What is the color of the {s}?",
        "What colour is the {s}?",
        "Tell me the color of the {s}.",
        "What color does the {s} have?",
    ),
    "colour then": (
        "What color is the {s} {e}?",
        "{E}, what color is the {s}?",
        "Which color does the {s} have {e}?",
    ),
    "shape": (
        "What shape is the {c} object?",
        "What is the {c} object?",
        "Which shape is {c}?",
        "What is the {c} thing?",
        "What is the shape of the {c} object?",
        "Name the shape of the {c} thing.",
    ),
    "count": (
        "How many objects are there?",
        "How many shapes are in the {m}?",
        "Count the objects.",
        "How many objects do you see?",
        "How many things are in this {m}?",
        "What is the number of objects?",
    ),
    "count then": (
        "How many objects are there {e}?",
        "{E}, how many objects do you see?",
        "Count the objects {e}.",
    ),
    "existence": (
        "Is there a {n}?",
        "Do you see a {n}?",
        "Is there a {n} in the {m}?",
        "Does the {m} show a {n}?",
        "Can you see a {n} in this {m}?",
    ),
    "empty": ("Is the {m} empty?", "Is there nothing in the {m}?"),
    "position": (
        "Where is the {n} {e}?",
        "{E}, where is the {n}?",
        "In which part of the {m} is the {n} {e}?",
        "What is the position of the {n} {e}?",
    ),
    "direction": (
        "Which way does the {n} move?",
        "In which direction does the {n} move?",
        "Where does the {n} move?",
        "Where is the {n} going?",
        "What is the direction of the {n}?",
        "In what direction is the {n} moving?",
    ),
    "first way": ("Which way does the {n} move first?", "In which direction does the {n} move first?"),
    "last way": ("Which way does the {n} move last?", "In which direction does the {n} move after that?"),
    "action": (
        "What does the {n} do?",
        "What is the {n} doing?",
        "What happens to the {n}?",
        "Tell me what the {n} does.",
        "Describe what the {n} does.",
    ),
    "who": ("Which object {a}?", "What {a}?", "Name the object that {a}.", "Which thing {a}?"),
    "first": ("Which object moves first?", "What moves first?", "Which one moves before the other?"),
    "last": ("Which object moves last?", "What moves last?", "Which one moves after the other?"),
    "place": (
        "Which object is on the {d} {e}?",
        "{E}, which object is on the {d}?",
        "Name the object on the {d} {e}.",
        "What is on the {d} {e}?",
    ),
    "size": ("Which is larger, the {n} or the {o}?", "Which one is bigger: the {n} or the {o}?"),
    "small": ("Which is smaller, the {n} or the {o}?", "Which one is smaller: the {n} or the {o}?"),
    "does": ("Does the {n} {b}?", "Is it true that the {n} {a}?", "Can you see that the {n} {a}?"),
    "is": ("Is the {s} {c}?", "Is the {s} in the {m} {c}?", "Is it true that the {s} is {c}?"),
    "several": ("Is there more than one object?", "Are there several objects in the {m}?"),
    "pattern": (
        "What pattern is on the {n}?",
        "Which pattern does the {n} have?",
        "What is the pattern of the {n}?",
        "Look closely: what pattern is on the {n}?",
    ),
    "caption": (
        "Describe the {m}.",
        "Describe this {m} in one sentence.",
        "What do you see?",
        "What is in the {m}?",
        "Write a caption for this {m}.",
        "Give a short description of the {m}.",
    ),
    "moving caption": ("What happens in the {m}?", "What is happening in this {m}?"),
    "detailed caption": (
        "Describe the {m} in detail.",
        "Please provide a detailed description of the {m}.",
        "Tell me everything about this {m}.",
    ),
    "choice": (
        "Answer with the option's letter from the given choices directly.",
        "Answer with the letter.",
        "Choose the right letter.",
    ),
}

START_WORDS = ("at the start", "at the beginning", "in the first frame")
END_WORDS = ("at the end", "in the last frame")
NUMBERS = ("zero", "one", "two", "three")
SIDES = {"left": (0, -1), "right": (0, 1), "top": (1, -1), "bottom": (1, 1)}
