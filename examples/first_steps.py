# %% [markdown]
# # First steps with edgepkd
#
# What a video shows, which networks it took to say so, and what was never computed. All it needs
# is `pip install .` in a clone of edgepkd. Run it cell by cell in an editor that knows `# %%`, or
# as a whole, on the shipped clip or on a video of your own:
#
#     python examples/first_steps.py
#     python examples/first_steps.py my.mp4

# %% The video, and how much of it is looked at
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import edgepkd
import edgepkd.video

SHIPPED = Path(edgepkd.__file__).parent / "_bundles" / "demo_clip.mp4"
IS_SCRIPT = "__file__" in globals()     # not in a notebook
SOURCE = Path(sys.argv[1]) if IS_SCRIPT and len(sys.argv) > 1 else SHIPPED
CLIPS = 10
GOPS = 50
ARROW_EVERY_PX = 16

# %% [markdown]
# ## Answers
#
# Without a path, `load` takes the bundle that ships with edgepkd. It knows two labels, fight and
# no_fight, and shows that the chain works; docs/training.md says how to train your own. A clip is
# 60 frames; it is answered at the first exit that is sure.

# %%
print(f"Video: {SOURCE.name}")
with edgepkd.load() as model:
    print(f"Model: {model.name}, labels {', '.join(model.labels)}, on {model.backend}\n")
    early = model(SOURCE, clips=CLIPS)

for answer in early:
    print(f"{answer.start_s:6.1f} s to {answer.end_s:.1f} s: {answer.label} "
          f"({answer.confidence:.0%}), exit {answer.exit}, position {answer.exit_number}")

# %% What was not needed is neither computed nor decoded
for answer in early:
    print(f"{answer.start_s:6.1f} s: {len(answer.segments_skipped)} segments not run, "
          f"networks not asked: {', '.join(answer.modalities_skipped) or 'none'}; "
          f"{answer.decode.packets_skipped} packets not decoded")

# %% [markdown]
# ## Early exits against none
#
# `static=True` runs every segment. What early exits save is counted here, not timed.

# %%
with edgepkd.load(static=True) as model:
    static = model(SOURCE, clips=CLIPS)

print(f"\n{'':<16}{'segments':>10}{'networks':>10}{'GMAC':>8}")
for name, answers in (("early exits", early), ("all segments", static)):
    segments = sum(len(answer.segments_run) for answer in answers)
    gmac = sum(answer.gmac for answer in answers)
    networks = sum(3 - len(answer.modalities_skipped) for answer in answers)
    print(f"{name:<16}{segments:>10}{networks:>10}{gmac:>8.2f}")
same = sum(one.label == other.label for one, other in zip(early, static, strict=True))
print(f"Both give the same label on {same} of {len(static)} clips.")

# %% [markdown]
# ## An exit rule of your own
#
# A function of the exit just reached and the probabilities so far. This one wants 95 %, but never
# asks the I-frame network.


# %%
def is_sure_or_has_spent_enough(position, probabilities):
    return probabilities.max() > 0.95 or str(position) == "residual_4"


with edgepkd.load(exit_rule=is_sure_or_has_spent_enough) as model:
    own = model(SOURCE, clips=CLIPS)
print(f"\nOwn rule: exits {', '.join(str(answer.exit) for answer in own)}")

# %% [markdown]
# ## What the networks see
#
# The motion vectors of the stream, added up since the last I-frame (or another anchor picture):
# int16 [rows, columns, 2], (x, y) in quarter pixels of the source. And the residual: what the
# anchor, moved by them, does not explain. Here is the place where most moves.

# %%
most_px = -1.0
with edgepkd.video.open(SOURCE) as clips:
    for gop, _ in zip(clips.gops(), range(GOPS), strict=False):
        last = gop.num_frames - 1
        moved_px = float(abs(gop.motion(last)).mean()) / 4
        if moved_px > most_px:
            most_px, time_s = moved_px, gop.times_s[last]
            picture, motion, residual = gop.iframe(), gop.motion(last), gop.residual(last)
            source_size_px, margins = gop.source_size_px, gop.field_margins
    route = clips.choice

print(f"\nRead by the route {route.route}: {route.reason}")
print(f"Motion {motion.dtype} {motion.shape}, residual {residual.dtype} {residual.shape}")
print(f"Most motion at {time_s:.1f} s: {most_px:.1f} pixels on average, "
      f"{abs(motion).max() / 4:.1f} at most")


# %% Arrows from where things are in the anchor picture to where they are at that time
def with_arrows(picture, motion, *, source_size_px, margins):
    height, width = picture.shape[:2]
    rows, columns = motion.shape[:2]
    left, top, right, bottom = margins      # parts of the outermost cells outside the picture
    scale = np.array([width / source_size_px[0], height / source_size_px[1]]) / 4
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    for y in range(ARROW_EVERY_PX // 2, height, ARROW_EVERY_PX):
        for x in range(ARROW_EVERY_PX // 2, width, ARROW_EVERY_PX):
            row = int(y / height * (rows - top - bottom) + top)
            column = int(x / width * (columns - left - right) + left)
            dx, dy = motion[row, column] * scale
            draw.line((x - dx, y - dy, x, y), fill="yellow")
            draw.ellipse((x - 1, y - 1, x + 1, y + 1), fill="yellow")
    return image


folder = Path(tempfile.mkdtemp(prefix="edgepkd-first-steps-"))
arrows = with_arrows(picture, motion, source_size_px=source_size_px, margins=margins)
arrows.save(folder / "motion.png")
grey = Image.fromarray((residual // 2 + 128).astype(np.uint8))      # grey: no residual
grey.save(folder / "residual.png")
print(f"Pictures: {folder / 'motion.png'}, {folder / 'residual.png'}")
