"""The truth of scenes, by arithmetic."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_next_video.errors import ConfigError
from llava_next_video.world.imagine import contrast, random_detail, random_scene, random_scenes
from llava_next_video.world.scene import COLOURS, HEADING, SHAPES, Ground, Scene, Step, Thing

PLAIN = Ground(kind="plain", first=(0.0, 0.0, 0.0), second=(0.0, 0.0, 0.0))


def thing(*steps: Step, x: float = 0.5, y: float = 0.5) -> Thing:
    return Thing(colour="red", shape="star", rgb=(1.0, 0.0, 0.0), x=x, y=y, radius=0.1, steps=steps)


def test_there_are_eight_colours_and_six_shapes():
    assert len(COLOURS) == 8
    assert len(SHAPES) == 6


def test_a_thing_that_moves_left_then_up_turns_a_corner():
    moving = thing(
        Step(action="left", begin=0.0, end=0.5, amount=0.2), Step(action="up", begin=0.5, end=1.0, amount=0.4)
    )
    assert [(round(s.x, 6), round(s.y, 6)) for s in map(moving.at, (0.0, 0.25, 0.5, 0.75, 1.0))] == [
        (0.5, 0.5), (0.4, 0.5), (0.3, 0.5), (0.3, 0.3), (0.3, 0.1),
    ]  # fmt: skip


def test_what_bounces_comes_back_to_where_it_was():
    bouncing = thing(Step(action="bounce", begin=0.0, end=1.0, amount=0.3))
    assert [round(bouncing.at(t).x, 6) for t in (0.0, 0.5, 1.0)] == [0.5, 0.8, 0.5]


def test_what_turns_blue_is_red_at_first():
    turning = thing(Step(action="recolour", begin=0.4, end=0.6, colour="blue", rgb=(0.0, 0.0, 1.0)))
    assert [turning.at(t).colour for t in (0.0, 1.0)] == ["red", "blue"]
    assert turning.name == "red star"


def test_what_disappears_cannot_be_seen_afterwards():
    scene = Scene(things=(thing(Step(action="disappear", begin=0.4, end=0.6)),), ground=PLAIN)
    assert [len(scene.visible(t)) for t in (0.0, 1.0)] == [1, 0]
    assert not scene.steady


def test_things_are_movers_only_when_their_times_do_not_overlap():
    first = thing(Step(action="left", begin=0.0, end=0.4, amount=0.1))
    second = thing(Step(action="up", begin=0.5, end=1.0, amount=0.1))
    third = thing(Step(action="up", begin=0.3, end=1.0, amount=0.1))
    assert Scene(things=(second, first), ground=PLAIN).movers == (first, second)
    assert Scene(things=(first, third), ground=PLAIN).movers == ()


def test_the_same_seed_gives_the_same_scenes_and_another_seed_others():
    def ten(seed: int) -> list[Scene]:
        return list(itertools.islice(random_scenes(seed), 10))

    assert ten(3) == ten(3)
    assert ten(3) != ten(4)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 3), st.booleans())
def test_things_stay_inside_stand_out_and_never_look_alike(seed, things, still):
    scene = random_scene(random.Random(seed), things=things, still=still)
    assert len(scene.things) == things
    for one in scene.things:
        for time in (0.0, 0.3, 0.5, 1.0):
            state = one.at(time)
            assert 0 < state.x < 1
            assert 0 < state.y < 1
            assert contrast(state.rgb, scene.ground.first) > 0.3
    names = [(colour, t.shape) for t in scene.things for colour in {t.colour, t.final_colour}]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "kind", [*HEADING, "then", "bounce", "grow", "shrink", "appear", "disappear", "recolour"]
)
def test_a_kind_can_be_ordered(kind):
    actions = random_scene(random.Random(1), things=1, kind=kind).things[0].actions
    assert len(actions) == (2 if kind == "then" else 1)
    assert kind == "then" or actions[0] == kind


def test_a_picture_with_fine_patterns_stands_still():
    scene = random_detail(random.Random(5))
    assert scene.still
    assert scene.fine


def test_four_things_and_unknown_kinds_are_refused():
    with pytest.raises(ConfigError, match="0 to 3 things, not 4"):
        random_scene(random.Random(0), things=4)
    with pytest.raises(ConfigError, match="unknown kind of action 'fly'"):
        random_scene(random.Random(0), kind="fly")
