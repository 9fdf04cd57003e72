"""Anatomy of strongly varied chests, from which a network learns to locate lungs."""

import numpy as np

from pneumo.data import anatomy
from pneumo.data.anatomy import DISTANCE, SHAPE, SIDE, SPINE, Chest, Plane, X, Y, bump, clouds, step


def draw_varied_chest(random: np.random.Generator) -> Chest:
    """Draw a chest whose shapes, opacities and contrasts vary more than those of patients.

    Everything is random except what defines a chest: two dark fields next to a bright midline. A network that is
    trained only on such chests then also locates the lungs of real children and adults.
    """
    wall = np.asarray(anatomy.draw_wall(random) * random.uniform(0.9, 1.12), np.float32)
    air = _enlarge_heart(anatomy.draw_air(random, wall, random.uniform(-0.15, 0.2)), random)
    soft = anatomy.draw_soft_tissue(random, random)
    body = soft * random.uniform(0.6, 1.3)
    body += random.uniform(0.3, 3) * anatomy.draw_abdomen(random, random.uniform(-0.2, 0.2))
    body += random.uniform(0, 0.11) * clouds(random, 4) + random.uniform(0, 0.05) * clouds(random, 12)
    if random.random() < 0.4:
        body += _draw_breasts(random)
    body -= air * np.maximum(_draw_lung_contrast(air, random), 0)
    body += random.uniform(0, 1.6) * anatomy.draw_ribs(random, wall)
    body += random.uniform(0.2, 1.6) * anatomy.draw_shoulders(random, random)
    body[:, SPINE] += random.uniform(0.3, 2) * anatomy.draw_spine(random)
    body += random.uniform(0, 0.35) * bump(X, random.normal(0, 0.04), random.uniform(0.08, 0.3))  # mediastinum
    if random.random() < 0.5:  # clothes, or a table
        outside = random.uniform(-0.05, 0.35) + random.uniform(0, 0.13) * clouds(random, 3)
        body = np.where(soft > 0.06, body, outside)
    return Chest(np.asarray(body, np.float32), air)


def _enlarge_heart(air: Plane, random: np.random.Generator) -> Plane:
    """Cover a part of the lungs by a large heart or a wide mediastinum in a third of the chests."""
    if random.random() < 0.65:
        return air
    x = (X - random.uniform(-0.1, 0.35)) / random.uniform(0.25, 0.6)
    y = (Y - random.uniform(0.1, 0.55)) / random.uniform(0.25, 0.5)
    return air * (1 - step(1 - np.hypot(x, y), 0.1))


def _draw_breasts(random: np.random.Generator) -> Plane:
    plane = np.zeros(SHAPE, np.float32)
    for sign in (-1, 1):
        x = (X - sign * random.uniform(0.4, 0.65)) / random.uniform(0.3, 0.5)
        y = (Y - random.uniform(0.1, 0.5)) / random.uniform(0.25, 0.45)
        plane += random.uniform(0.05, 0.25) * step(1 - np.hypot(x, y), random.uniform(0.05, 0.2))
    return plane


def _draw_lung_contrast(air: Plane, random: np.random.Generator) -> Plane:
    """Draw the attenuation that the lungs lack in comparison to soft tissue."""
    lung = random.uniform(0.25, 0.8) + random.normal(0, 0.1) * X + random.normal(0, 0.12) * Y
    lung = lung - random.uniform(0.3, 2) * anatomy.draw_folds(random)
    lung -= random.uniform(0, 0.25) * anatomy.draw_vessels(random)
    if random.random() < 0.3:
        lung -= anatomy.draw_interstitial(random)
    if random.random() < 0.5:
        opacities = (_draw_consolidation, _draw_effusion, _draw_haze, _draw_whole_lung)
        for _ in range(random.integers(1, 4)):
            lung *= 1 - np.clip(opacities[random.integers(4)](air, random), 0, 1)
    return np.asarray(lung, np.float32)


def _draw_consolidation(air: Plane, random: np.random.Generator) -> Plane:
    """Draw an opacity with irregular borders at a random position in the lungs."""
    row, column = random.choice(np.argwhere(air > 0.6))
    x = (X - X[0, column]) / random.uniform(0.12, 0.5)
    y = (Y - Y[row, 0]) / random.uniform(0.12, 0.5)
    distance = np.hypot(x, y) + 0.19 * clouds(random, 9)
    return random.uniform(0.4, 1) * step(1 - distance, random.uniform(0.1, 0.5))


def _draw_effusion(air: Plane, random: np.random.Generator) -> Plane:
    """Draw a pleural effusion, which fills one side from below."""
    depth = Y - random.uniform(-0.1, 0.5) + 0.04 * clouds(random, 5)
    return random.uniform(0.4, 1) * step(depth, random.uniform(0.03, 0.4)) * _draw_side(random)


def _draw_haze(air: Plane, random: np.random.Generator) -> Plane:
    """Draw a haze around both hila."""
    haze = bump(DISTANCE, 0.28, random.uniform(0.2, 0.5)) * bump(Y, random.uniform(-0.3, 0.4), random.uniform(0.3, 0.7))
    return random.uniform(0.2, 0.7) * haze


def _draw_whole_lung(air: Plane, random: np.random.Generator) -> Plane:
    """Draw the patchy opacity of a whole lung."""
    patches = np.asarray(np.clip(0.8 + 0.23 * clouds(random, 5), 0, 1), np.float32)
    return random.uniform(0.3, 0.95) * patches * _draw_side(random)


def _draw_side(random: np.random.Generator) -> Plane:
    return np.asarray(random.choice((-1, 1)) == SIDE, np.float32)
