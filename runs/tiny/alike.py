"""Scenes changed so that what is rare is seen often: things that resemble each other, or of unlike sizes."""

import random
from dataclasses import replace

from llava_next_video.world.imagine import random_ground, random_rgb
from llava_next_video.world.scene import Scene

SMALLEST, RATIO = 0.11, 1.29
"""The smallest radius in the world, and from where on sizes are asked about, nearly."""


def resembling(scene: Scene, rng: random.Random, share: float) -> Scene:
    """In that share of scenes with several things, one takes the colour of another (or its shape)."""
    if len(scene.things) < 2 or rng.random() > share:
        return scene
    things = list(scene.things)
    model, other = rng.sample(range(len(things)), 2)
    if rng.random() < 0.75:
        if (
            any("recolour" in things[k].actions for k in (model, other))
            or things[model].shape == things[other].shape
        ):
            return scene
        changed = replace(
            things[other], colour=things[model].colour, rgb=random_rgb(rng, things[model].colour)
        )
    else:
        shape = things[model].shape
        used = {
            c
            for k, t in enumerate(things)
            if k != other and t.shape == shape
            for c in (t.colour, t.final_colour)
        }
        if used & {things[other].colour, things[other].final_colour}:
            return scene
        changed = replace(things[other], shape=shape)
    same = {(t.colour, t.shape) for k, t in enumerate(things) if k != other} | {
        (t.final_colour, t.shape) for k, t in enumerate(things) if k != other
    }
    if {(changed.colour, changed.shape), (changed.final_colour, changed.shape)} & same:
        return scene
    things[other] = changed
    paints = [paint for thing in things for paint in (thing.at(0.0).rgb, thing.at(1.0).rgb)]
    return replace(scene, things=tuple(things), ground=random_ground(rng, paints))


def unequal(scene: Scene, rng: random.Random, share: float) -> Scene:
    """In that share of scenes one thing shrinks until it is plainly smaller than another.

    What shrinks stays inside the frame and touches nothing.
    """
    steady = [
        number for number, thing in enumerate(scene.things) if not {"grow", "shrink"} & set(thing.actions)
    ]
    if len(steady) < 2 or rng.random() > share:
        return scene
    large, little = sorted(rng.sample(steady, 2), key=lambda number: -scene.things[number].radius)
    most = scene.things[large].radius / RATIO
    if most < SMALLEST:
        return scene
    things = list(scene.things)
    things[little] = replace(things[little], radius=rng.uniform(SMALLEST, most))
    return replace(scene, things=tuple(things))
