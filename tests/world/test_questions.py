"""Questions, answers and captions against the truth of the scene."""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_next_video.world.captions import caption, facts, infinitive, read_facts
from llava_next_video.world.imagine import random_detail, random_scene
from llava_next_video.world.questions import LETTERS, ask, place_name
from llava_next_video.world.scene import COLOURS, SHAPES, TEXTURES, Ground, Scene, Step, Thing

FEW = settings(max_examples=25, deadline=None)
SEEDS = st.integers(0, 10**6)
BLACK = Ground(kind="plain", first=(0.0, 0.0, 0.0), second=(0.0, 0.0, 0.0))


def thing(colour: str, shape: str, *steps: Step, x: float = 0.5) -> Thing:
    return Thing(colour=colour, shape=shape, rgb=(1.0, 1.0, 1.0), x=x, y=0.5, radius=0.1, steps=steps)


def go(way, begin=0.0, end=1.0) -> Step:
    return Step(action=way, begin=begin, end=end, amount=0.3)


@FEW
@given(SEEDS, st.booleans())
def test_no_question_has_two_answers(seed, still):
    scene = random_scene(random.Random(seed), still=still)
    answers: dict[str, str] = {}
    for turn in range(4):
        for question in ask(scene, random.Random(turn)):
            assert answers.setdefault(question.text, question.answer) == question.answer


@FEW
@given(SEEDS)
def test_a_colour_is_asked_only_of_a_shape_that_is_there_once(seed):
    scene = random_scene(random.Random(seed))
    for question in ask(scene, random.Random(0), families=frozenset({"colour"})):
        named = [shape for shape in SHAPES if re.search(rf"\b{shape}\b", question.text)]
        (meant,) = [t for t in scene.things if t.shape == named[0]]
        assert question.answer in (meant.colour, meant.final_colour)


@FEW
@given(SEEDS)
def test_the_letter_of_a_choice_stands_before_the_right_option_only(seed):
    scene = random_scene(random.Random(seed))
    for question in ask(scene, random.Random(seed), families=frozenset({"choice"})):
        options = dict(re.findall(r"^([A-D])\. (.+)$", question.text, re.M))
        assert len(options) == len(set(options.values())) >= 2
        assert question.answer in options
        assert list(options) == list(LETTERS[: len(options)])


@FEW
@given(SEEDS)
def test_a_caption_gives_back_the_facts(seed):
    for still in (False, True):
        scene = random_scene(random.Random(seed), still=still)
        for detailed in (False, True):
            assert read_facts(caption(scene, detailed=detailed)) == facts(scene)


def test_an_empty_scene_is_called_empty():
    scene = Scene(things=(), ground=BLACK)
    asked = {q.text: q.answer for turn in range(60) for q in ask(scene, random.Random(turn))}
    assert asked["Is the video empty?"] == "yes"
    assert asked["How many objects are there?"] == "zero"
    assert asked["Describe the video."] == "The video is empty."
    assert read_facts("The video is empty.") == ()


def test_every_answer_about_one_red_star_that_moves_left_is_known():
    scene = Scene(things=(thing("red", "star", go("left"), x=0.5),), ground=BLACK)
    asked = {q.text: q.answer for turn in range(60) for q in ask(scene, random.Random(turn))}
    assert asked["What color is the star?"] == "red"
    assert asked["What shape is the red object?"] == "star"
    assert asked["Which way does the red star move?"] == "left"
    assert asked["What does the red star do?"] == "It moves left."
    assert asked["Where is the red star at the start?"] == "center"
    assert asked["Where is the red star at the end?"] == "left"
    assert asked["Describe the video."] == "A red star moves left."
    assert asked["Does the red star move left?"] == "yes"


def test_who_moves_left_is_not_asked_when_another_moves_up_and_left():
    scene = Scene(
        things=(thing("red", "star", go("left"), x=0.2), thing("blue", "ring", go("up and left"), x=0.8)),
        ground=BLACK,
    )
    asked = [q for turn in range(20) for q in ask(scene, random.Random(turn))]
    assert not [q for q in asked if q.family == "who"]


def test_the_order_of_two_movers_is_asked():
    scene = Scene(
        things=(
            thing("red", "star", go("up", 0.6, 1.0), x=0.2),
            thing("blue", "ring", go("down", 0.0, 0.4), x=0.8),
        ),
        ground=BLACK,
    )
    asked = {q.text: q.answer for turn in range(30) for q in ask(scene, random.Random(turn))}
    assert asked["Which object moves first?"] == "the blue ring"
    assert asked["What moves last?"] == "the red star"


def test_a_pattern_is_asked_only_where_there_may_be_one():
    scene = random_detail(random.Random(3))
    asked = ask(scene, random.Random(0), families=frozenset({"pattern"}))
    assert {q.answer for q in asked} <= set(TEXTURES)
    assert not ask(random_scene(random.Random(3)), random.Random(0), families=frozenset({"pattern"}))


def test_the_same_dice_give_the_same_questions():
    scene = random_scene(random.Random(9), things=3)
    assert ask(scene, random.Random(1)) == ask(scene, random.Random(1))


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ((0.1, 0.1), "top left"),
        ((0.5, 0.9), "bottom"),
        ((0.9, 0.5), "right"),
        ((0.5, 0.5), "center"),
        ((0.3, 0.5), None),
    ],
)
def test_a_place_near_a_border_has_no_name(place, name):
    assert place_name(*place) == name


def test_english_verbs_lose_their_s():
    assert infinitive(thing("red", "star", go("left"))) == "move left"
    turning = thing(
        "red", "star", Step(action="recolour", begin=0.0, end=1.0, colour="blue", rgb=(0.0, 0.0, 1.0))
    )
    assert infinitive(turning) == "turn blue"


def test_every_colour_has_a_name_that_captions_can_be_read_by():
    for colour in COLOURS:
        assert read_facts(f"An {colour} ring grows.") == ((colour, "ring", "grows"),)
