"""Anatomy of the phantoms: attenuation of each ray through a synthetic chest."""

import math
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Finding: TypeAlias = Literal["none", "bacterial", "viral"]
Plane: TypeAlias = NDArray[np.float32]
# All structures are drawn in body coordinates and resampled to the image once. There most curves depend on one axis
# only, so they are cheap to compute. One unit is about half the image height; x points to the patient's left, y down.
SCALE = 80
SHAPE = (180, 240)
X = (np.arange(SHAPE[1], dtype=np.float32)[None, :] - np.float32((SHAPE[1] - 1) / 2)) / np.float32(SCALE)
Y = (np.arange(SHAPE[0], dtype=np.float32)[:, None] - np.float32((SHAPE[0] - 1) / 2)) / np.float32(SCALE)
SIDE = np.where(X > 0, np.float32(1), np.float32(-1))
DISTANCE = np.abs(X)  # from the midline
_ARM, SPINE, _BELLY = slice(160, None), slice(104, 136), slice(130, None)  # columns of arm and spine, rows of belly


class Chest(NamedTuple):
    """Projection of a chest in body coordinates, two planes of shape `SHAPE`."""

    attenuation: Plane  # about 1 in the middle of the trunk and 0 outside the body
    air: Plane  # fraction along each ray: 1 in the middle of the lungs and 0 outside them


def draw_chest(patient: np.random.Generator, image: np.random.Generator, finding: Finding) -> Chest:
    """Draw a chest: `patient` determines its anatomy, `image` its posture, inspiration and opacities.

    The state of `image` afterwards does not depend on the finding.
    """
    opacities = image.spawn(1)[0]
    inspiration = image.uniform(-0.06, 0.06)
    wall = draw_wall(patient)
    air = draw_air(patient, wall, inspiration)
    # Lung brightness and its gradients vary between images, so that mean values do not reveal the finding.
    lung = image.uniform(0.44, 0.7) + image.normal(0, 0.08) * X + image.normal(0, 0.08) * Y
    lung = lung - draw_folds(image) - patient.uniform(0.08, 0.18) * draw_vessels(patient)
    if finding == "bacterial":
        lung -= _consolidation(opacities, air)
    elif finding == "viral":
        lung -= draw_interstitial(opacities)
    body = draw_soft_tissue(patient, image) + draw_abdomen(image, inspiration)
    body -= air * np.maximum(lung, 0.02)
    body += draw_ribs(patient, wall) + draw_shoulders(patient, image)
    body[:, SPINE] += draw_spine(patient)
    return Chest(body, air)


def step(distance: Plane, softness: float) -> Plane:
    """Compute a smooth step from 0 to 1 as `distance` increases from -`softness` to `softness`."""
    t = np.clip(distance * np.float32(0.5 / softness) + np.float32(0.5), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def bump(values: Plane, centre: float, width: float) -> Plane:
    """Compute a Gaussian curve with maximum 1."""
    return np.asarray(np.exp(-(((values - centre) / width) ** 2)), np.float32)


def clouds(random: np.random.Generator, cells: int) -> Plane:
    """Draw smooth noise of about unit variance, with `cells` independent values along the vertical axis."""
    grid = random.standard_normal((cells, cells * 4 // 3), dtype=np.float32)
    smooth = Image.fromarray(grid).resize(SHAPE[::-1], Image.Resampling.BICUBIC)
    return np.asarray(np.asarray(smooth) / np.float32(0.75), np.float32)


class _Canvas:
    """Canvas for lines in body coordinates, at twice the resolution of `SHAPE`."""

    def __init__(self) -> None:
        self._image = Image.new("L", (2 * SHAPE[1], 2 * SHAPE[0]))
        self._draw = ImageDraw.Draw(self._image)

    def add(self, lines: NDArray[np.float64], fill: int, width: int) -> None:
        """Draw polylines, shape (lines, points, 2), in body coordinates."""
        for line in (2 * SCALE * lines + (SHAPE[1], SHAPE[0])).reshape(len(lines), -1).tolist():
            self._draw.line(line, fill=fill, width=width)

    def plane(self) -> Plane:
        """Return the drawn lines as a slightly blurred plane with values from 0 to 1."""
        blurred = self._image.reduce(2).filter(ImageFilter.BoxBlur(1))
        return np.asarray(np.asarray(blurred) / np.float32(255), np.float32)


def draw_wall(patient: np.random.Generator) -> Plane:
    """Compute half the width of the rib cage at each height, shape (height, 1)."""
    top, width = patient.uniform(-0.8, -0.72), patient.uniform(0.72, 0.82)
    t = np.clip((Y - top) / (0.6 - top), 0, 1.5)
    rise = np.sin(math.pi / 2 * np.minimum(t, 1) ** patient.uniform(0.46, 0.56)) ** 0.8
    return np.asarray(width * rise + 0.05 * np.maximum(t - 1, 0), np.float32)


def draw_air(patient: np.random.Generator, wall: Plane, inspiration: float) -> Plane:
    """Compute the fraction of air along each ray."""
    heart, apex = patient.uniform(0.2, 0.36), patient.uniform(0.3, 0.4)
    left = 0.16 + heart * np.where(apex > Y, bump(Y, apex, 0.45), bump(Y, apex, 0.6))
    left += patient.uniform(0.02, 0.07) * bump(Y, -0.34, 0.11)
    right = 0.15 + patient.uniform(0.02, 0.06) * bump(Y, -0.3, 0.25)
    right += patient.uniform(0.05, 0.16) * bump(Y, 0.3, 0.3)
    border = np.where(X > 0, left, right) + patient.uniform(-0.04, 0.04) * SIDE
    peak, drop = patient.uniform(0.3, 0.4), patient.uniform(0.5, 0.8)
    dome = drop * (DISTANCE - peak) ** 2 * np.where(peak < DISTANCE, np.float32(2), np.float32(1))
    dome += patient.uniform(0.3, 0.42) + inspiration + patient.uniform(-0.01, 0.04) * SIDE
    air = step(wall - 0.03 - DISTANCE, 0.06) * step(DISTANCE - border, 0.03) * step(dome - Y, 0.025)
    return np.asarray(air * (0.8 + 0.2 * step(wall - 0.1 - DISTANCE, 0.2)), np.float32)


def draw_soft_tissue(patient: np.random.Generator, image: np.random.Generator) -> Plane:
    """Draw the trunk, neck, chin and arms."""
    fat, size = patient.uniform(0.05, 0.15), patient.uniform(0.94, 1.06)
    neck, arm = patient.uniform(0.26, 0.34), patient.uniform(0.18, 0.24)
    raised = image.uniform() < 0.75
    heights = [-1.2, -1.0, -0.88, -0.76, -0.62, -0.35, 0.1, 0.6, 1.2]
    shoulders = [0.75, 0.78, 0.84, 0.92, 0.94] if raised else [0.3, 0.32, 0.5, 0.82, 0.94]
    widths = [size * width for width in (*shoulders, 0.82 + fat, 0.8 + fat, 0.8 + fat, 0.82 + fat)]
    half = np.interp(Y[:, 0], heights, widths).astype(np.float32)[:, None]
    depth = np.maximum(1 - (X / half) ** 2, 0)
    trunk = 0.38 * np.sqrt(np.minimum(depth, 0.6)) + 0.72 * depth * step(Y + 0.8, 0.5)
    trunk += 0.35 * step(neck - DISTANCE, 0.16) * step(-0.5 - Y, 0.3)
    trunk[:40] += 0.5 * step(1 - np.hypot(X / 0.42, (Y[:40] + image.uniform(1.2, 1.5)) / 0.38), 0.1)
    for view in (trunk, trunk[:, ::-1]):
        angle = image.uniform(-1.4, -0.6) if raised else image.uniform(0.9, 1.4)
        _add_arm(view[:, _ARM], angle, arm)
    return np.asarray(trunk, np.float32)


def _add_arm(plane: Plane, angle: float, radius: float) -> None:
    """Add the left upper arm, `angle` radians below the horizontal, to the slice `_ARM` of a plane, in place."""
    x, y = X[:, _ARM] - np.float32(0.86), Y + np.float32(0.62)
    c, s = math.cos(angle), math.sin(angle)
    along = np.clip(x * c + y * s, 0, 2)
    squared = (x - along * c) ** 2 + (y - along * s) ** 2
    flesh = np.maximum(1 - squared / radius**2, 0)
    # A smooth union hides the border of the arm where it overlaps the trunk.
    plane[...] = np.sqrt(np.sqrt(plane**4 + 0.42**4 * flesh**2))
    plane += 0.16 * np.sqrt(np.maximum(1 - squared / (0.07 - 0.02 * step(along - 0.12, 0.1)) ** 2, 0))


def draw_abdomen(image: np.random.Generator, inspiration: float) -> Plane:
    """Draw the abdomen: dense tissue with gas bubbles."""
    plane = 0.1 * step(Y - 0.6 - inspiration, 0.25) * np.ones_like(X)
    for _ in range(image.integers(0, 4)):
        x, y = (X - image.uniform(-0.1, 0.6)) / image.uniform(0.08, 0.24), Y[_BELLY] - image.uniform(0.64, 1.1)
        plane[_BELLY] -= image.uniform(0.05, 0.25) * step(1 - np.hypot(x, y / image.uniform(0.06, 0.12)), 0.3)
    return np.asarray(plane, np.float32)


def draw_folds(image: np.random.Generator) -> Plane:
    """Draw shadows of soft tissue and skin folds over the lungs, which are not findings."""
    plane = 0.04 * clouds(image, 3)
    for _ in range(image.integers(0, 3)):
        x, y, angle = image.uniform(-0.7, 0.7), image.uniform(-0.5, 0.5), image.uniform(0, 2 * math.pi)
        across = (X - x) * math.cos(angle) + (Y - y) * math.sin(angle)
        plane += image.uniform(0.02, 0.05) * step(across, 0.03) * step(0.5 - across, 0.5)
    return plane


def draw_ribs(patient: np.random.Generator, wall: Plane) -> Plane:
    """Draw posterior ribs and the steeper, wider and fainter anterior ribs."""
    spacing, slope = patient.uniform(0.145, 0.175), patient.uniform(0.06, 0.16)
    strength, start = patient.uniform(0.1, 0.15), patient.uniform(-0.08, 0.08)
    across = DISTANCE / np.maximum(wall, 0.05)
    inside = np.minimum(across, 1)
    square = inside * inside
    sixth = square**3
    height = (Y + start - 0.1 * Y**2) / spacing
    # The uppermost ribs are omitted, because the narrow top of the rib cage would reduce them to dots.
    rows = strength * (0.3 + 0.7 * step(0.55 - Y, 0.25)) * step(0.95 - Y, 0.2) * step(wall - 0.4, 0.1)
    back = _stripes(height - (slope * square + 0.14 * sixth) / spacing, 0.22) * step(across - 0.12, 0.1)
    front = _stripes(height - (slope + 0.14 + 0.5 * (1 - inside)) / spacing, 0.25) * step(across - 0.55, 0.15)
    return np.asarray(rows * step(1.02 - across, 0.04) * (1 + 1.1 * sixth) * (back + 0.45 * front), np.float32)


def _stripes(phase: Plane, half: float) -> Plane:
    """Draw one stripe per unit of `phase`, brighter at its borders, like the cortex of a bone."""
    distance = np.abs(phase - np.floor(phase) - 0.5)
    return np.asarray(step(half - distance, 0.07) * (0.55 + 0.6 / half**2 * distance**2), np.float32)


def draw_spine(patient: np.random.Generator) -> Plane:
    """Draw vertebrae, discs and trachea for the slice `SPINE` of a plane."""
    x = X[:, SPINE] - patient.uniform(-0.03, 0.03) * np.sin(2.2 * Y + patient.uniform(0, 3))
    side = np.abs(x)
    phase = Y / patient.uniform(0.13, 0.15) - 0.1 * Y
    disc = step(0.14 - np.abs(phase - np.floor(phase) - 0.5), 0.1)
    column = step(0.1 - side, 0.02) * (0.16 - 0.08 * disc) + 0.06 * bump(side, 0.075, 0.02) * (1 - disc)
    trachea = step(0.045 - np.abs(x + 0.02), 0.025) * step(-0.28 - Y, 0.1)
    return np.asarray(column - 0.14 * trachea, np.float32)


def draw_shoulders(patient: np.random.Generator, image: np.random.Generator) -> Plane:
    """Draw the clavicles and scapulae."""
    canvas, lift = _Canvas(), image.uniform(-0.06, 0.1)
    for sign in (-1, 1):
        end = lift + patient.uniform(-0.03, 0.03)
        clavicle = [[0.07, -0.6], [0.14, -0.65], [0.3, -0.68 - end / 2], [0.5, -0.69 - end], [0.74, -0.75 - end]]
        scapula = [[0.9, -0.64], [0.8, -0.58], [0.76, -0.35], [0.82, -0.12], [0.86, -0.3], [0.86, -0.55]]
        spine = [[0.72, -0.72 - end], [0.84, -0.7], [0.95, -0.74]]
        for points, fill, width in ((clavicle, 200, 9), (clavicle[:2], 230, 12), (scapula, 75, 5), (spine, 120, 9)):
            canvas.add(np.asarray([points]) * (sign, 1), fill, width)
    return 0.3 * canvas.plane()


def draw_vessels(patient: np.random.Generator) -> Plane:
    """Draw lung vessels that branch from both hila in three generations."""
    canvas = _Canvas()
    fans = np.linspace(-1.3, 1.4, 8) + patient.normal(0, 0.15, (2, 8))
    angles = np.concatenate([math.pi - fans[0], fans[1]])
    start = np.repeat([[-0.2, -0.02], [0.2, -0.02]], 8, axis=0)
    for width, fill in ((6, 230), (4, 170), (2, 130)):
        directions = angles[:, None] + patient.normal(0, 0.14, (len(angles), 4)).cumsum(1)
        steps = patient.uniform(0.04, 0.08, (len(angles), 4))
        offsets = np.stack([np.cos(directions) * steps, np.sin(directions) * steps], 2).cumsum(1)
        lines = np.concatenate([start[:, None], start[:, None] + offsets], 1)
        canvas.add(lines, fill, width)
        start = np.concatenate([lines[:, 4], lines[:, 2]])
        angles = np.concatenate([directions[:, 3] + 0.35, directions[:, 1] - 0.4])
    return canvas.plane()


def _consolidation(random: np.random.Generator, air: Plane) -> Plane:
    """Draw one or two consolidations with blurred borders at random positions in the lungs."""
    rough, lung_pixels = 0.22 * clouds(random, 9) + 0.12 * clouds(random, 20), np.argwhere(air > 0.85)
    plane = np.zeros(SHAPE, np.float32)
    for _ in range(random.integers(1, 3)):
        row, column = random.choice(lung_pixels)
        x = (X - X[0, column]) / random.uniform(0.24, 0.36)
        y = (Y - Y[row, 0]) / random.uniform(0.24, 0.36)
        plane = np.maximum(plane, random.uniform(0.38, 0.5) * step(1 - np.hypot(x, y) + rough, 0.4))
    return plane * (1 + 0.26 * clouds(random, 28))


def draw_interstitial(random: np.random.Generator) -> Plane:
    """Draw interstitial streaks and small nodules over both lungs, and haze around the hila."""
    canvas, count = _Canvas(), 160
    x = random.uniform(0.15, 0.75, count) * random.choice((-1, 1), count)
    middle = np.stack([x, random.uniform(-0.65, 0.5, count)], 1)
    direction = random.normal(0, 0.6, count) + np.arctan2(middle[:, 1], middle[:, 0])
    half = np.stack([np.cos(direction), np.sin(direction)], 1) * random.uniform(0.03, 0.09, (count, 1))
    lines = np.stack([middle - half, middle + half], 1)
    for width in (2, 3, 4):
        canvas.add(lines[width - 2 :: 3], 180, width)
    nodules = np.clip(clouds(random, 26), -0.35, 1.4)
    haze = bump(DISTANCE, 0.28, 0.3) * bump(Y, 0.05, 0.45)
    patches = random.uniform(0.85, 1.3) * np.clip(0.8 + 0.3 * clouds(random, 5), 0.4, 1.3)
    return np.asarray(patches * (0.13 * nodules + 0.25 * canvas.plane() + 0.07 * haze), np.float32)
