"""The procedural set: motion is the label, everything else is the scene's."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest

from edgepkd.datasets.synth import MOTIONS, make_clip, make_scene, pose, render


@pytest.mark.parametrize("motion", MOTIONS)
def test_the_middle_picture_is_the_same_for_every_motion(motion: str) -> None:
    scene = make_scene(1, seed=0)
    middle = render(scene, pose(motion, scene, t=18, num_frames=37))
    expected = render(scene, pose("rotate", scene, t=18, num_frames=37))
    np.testing.assert_array_equal(middle, expected)
    assert middle.shape == (256, 340, 3)


def test_motions_go_where_their_names_say() -> None:
    scene = make_scene(0, seed=0)

    def change(motion: str) -> tuple[float, float, float, float]:
        first, last = (pose(motion, scene, t=t, num_frames=36) for t in (0, 35))
        return (last.x_px - first.x_px, last.y_px - first.y_px,
                abs(last.angle_rad - first.angle_rad), last.scale - first.scale)

    assert change("right")[0] > 60
    assert change("left")[0] < -60
    assert change("up")[1] < -40
    assert change("down")[1] > 40
    assert change("rotate")[2] > 2
    assert change("expand")[3] > 0.8
    assert change("shrink")[3] < -0.8


@pytest.mark.slow
def test_the_shape_is_seen_to_move_in_the_vectors() -> None:
    """Decoded vectors of a clip to the right point right, in the mean."""
    scene = make_scene(2, seed=0)
    found = {}
    for motion in ("right", "left"):
        made = make_clip(motion, scene, num_frames=12)
        vectors = []
        with av.open(io.BytesIO(made.content)) as container:
            context = container.streams.video[0].codec_context
            context.flags2 |= av.codec.context.Flags2.export_mvs
            for frame in container.decode(video=0):
                for item in frame.side_data:
                    vectors += [(v.dst_x - v.src_x) for v in item]
        found[motion] = float(np.mean(vectors))
    assert found["right"] > 0.05
    assert found["left"] < -0.05


def test_scenes_differ_and_the_seed_decides() -> None:
    one, other = make_scene(0, seed=0), make_scene(1, seed=0)
    assert (one.ground != other.ground).any()
    assert (one.ground == make_scene(0, seed=0).ground).all()
    assert (one.ground != make_scene(0, seed=1).ground).any()
    assert make_clip("up", one, num_frames=3) == make_clip("up", one, num_frames=3)
