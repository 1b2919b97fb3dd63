"""Church scenes: nave with a gable, tower, and surroundings under the sky."""

from flows.data.scenes.canvas import Colour, Point, Raster, between, hsv, mix, shade
from flows.data.scenes.indoor import Values, leaves

NIGHT: tuple[Colour, Colour] = (0.05, 0.06, 0.16), (0.16, 0.15, 0.3)
DAY: tuple[Colour, Colour] = (0.32, 0.58, 0.95), (0.8, 0.9, 1.0)


def draw_church(canvas: Raster, values: Values) -> None:
    """Render sky, ground, church and the objects in front of it."""
    horizon = 0.62 + 0.12 * values["vanishing"]
    _sky(canvas, values, horizon)
    if values["cloud"]:
        _cloud(canvas, values)
    grass = mix((0.5, 0.44, 0.22), (0.3, 0.56, 0.24), values["foliage"])
    canvas.box(0, horizon, 1, 1, grass, "ground")
    # The path, which shows the viewpoint.
    middle = 0.5 + 0.18 * values["yaw"]
    canvas.polygon(
        [(middle - 0.03, horizon + 0.06), (middle + 0.05, horizon + 0.06), (0.68, 1), (0.34, 1)],
        (0.72, 0.66, 0.55),
        "ground",
    )
    _church(canvas, values, horizon)
    if values["tree"]:
        _tree(canvas, values, horizon)
    if values["vehicle"]:
        _vehicle(canvas, values, horizon)
    if values["person"]:
        _person(canvas, values, horizon)


def _sky(canvas: Raster, values: Values, horizon: float) -> None:
    bands = 8
    top, low = (mix(night, day, values["daylight"]) for night, day in zip(NIGHT, DAY, strict=True))
    for i in range(bands):
        y0, y1 = horizon * i / bands, horizon * (i + 1) / bands
        canvas.box(0, y0, 1, y1 + 0.01, mix(top, low, i / (bands - 1)), "sky")


def _cloud(canvas: Raster, values: Values) -> None:
    x, y = values["cloud_place"], 0.13
    size = between(values["cloud_size"], 0.8, 1.5)
    white = mix((0.3, 0.3, 0.4), (0.98, 0.98, 1.0), values["daylight"])
    for dx, dy, r in ((-0.1, 0.01, 0.06), (0.0, -0.015, 0.08), (0.1, 0.01, 0.065)):
        canvas.ellipse(x + dx * size, y + dy * size, 1.25 * r * size, 0.7 * r * size, white, "cloud")


def _church(canvas: Raster, values: Values, horizon: float) -> None:
    """Draw front with gable and door, the side wall that the yaw exposes, roof, and a tower behind."""
    stone = hsv(values["wall_hue"], 0.22, 0.84)
    scale = between(values["depth"], 1.0, 0.62)
    ground = horizon + 0.1 * scale
    turn = values["yaw"]
    x = 0.5 + 0.08 * turn
    half, tall, gable = 0.19 * scale, 0.27 * scale, 0.17 * scale
    away = 1 if turn < 0 else -1  # side to which the nave recedes
    length = (0.16 + 0.22 * abs(turn)) * scale
    edge = x + away * half
    back = edge + away * length
    lift = 0.04 * scale
    if values["tower"]:
        _tower(canvas, values, x + away * half * 1.1, ground - lift, scale, stone)
    eaves, ridge = ground - tall, ground - tall - gable
    side = [(edge, ground), (edge, eaves), (back, eaves + lift), (back, ground - lift)]
    canvas.polygon(side, shade(stone, 0.68), "church")
    red = (0.45, 0.22, 0.18)
    roof = [(edge, eaves), (x, ridge), (x + away * length, ridge + lift), (back, eaves + lift)]
    canvas.polygon(roof, red, "church")
    for i in (1, 2):
        wx, wide = edge + away * length * i / 3, 0.013 * scale
        canvas.box(wx - wide, ground - 0.72 * tall, wx + wide, ground - 0.3 * tall, (0.2, 0.2, 0.3), "church")
    front = [(x - half, ground), (x - half, eaves), (x, ridge), (x + half, eaves), (x + half, ground)]
    canvas.polygon(front, stone, "church")
    edges = [(x - half * 1.06, eaves), (x, ridge), (x + half * 1.06, eaves)]
    canvas.line(edges, shade(red, 0.8), 0.024, "church")
    canvas.ellipse(x, ground - tall - 0.2 * gable, 0.042 * scale, 0.042 * scale, (0.25, 0.25, 0.4), "church")
    if values["door"]:
        wide = between(values["door_size"], 0.045, 0.075) * scale
        dx = x + (values["door_place"] - 0.5) * half
        high = 0.17 * scale
        paint = hsv(values["door_hue"], 0.6, 0.5)
        canvas.box(dx - wide, ground - high, dx + wide, ground, paint, "door")
        canvas.ellipse(dx, ground - high, wide, 0.8 * wide, paint, "door")
        canvas.line([(dx, ground - high), (dx, ground)], shade(paint, 0.6), 0.01)


def _tower(canvas: Raster, values: Values, x: float, ground: float, scale: float, stone: Colour) -> None:
    half = 0.085 * scale
    x += (values["tower_place"] - 0.5) * 0.1
    tall = between(values["tower_size"], 0.48, 0.62) * scale
    canvas.box(x - half, ground - tall, x + half, ground, shade(stone, 0.9), "tower")
    canvas.box(x + 0.4 * half, ground - tall, x + half, ground, shade(stone, 0.7), "tower")
    spire: list[Point] = [
        (x - 1.2 * half, ground - tall),
        (x, ground - tall - 0.2 * scale),
        (x + 1.2 * half, ground - tall),
    ]
    canvas.polygon(spire, hsv(values["tower_hue"], 0.5, 0.45), "tower")
    canvas.box(
        x - 0.3 * half, ground - tall * 0.88, x + 0.3 * half, ground - tall * 0.7, (0.2, 0.2, 0.3), "tower"
    )


def _tree(canvas: Raster, values: Values, horizon: float) -> None:
    """Draw a tree at the side; with little foliage its crown is small and brown."""
    x = (
        between(values["tree_place"], 0.05, 0.28)
        if values["tree_place"] < 0.5
        else between(values["tree_place"], 0.72, 0.95)
    )
    size = between(values["tree_size"], 0.8, 1.25)
    ground = horizon + 0.2
    canvas.box(x - 0.022 * size, ground - 0.3 * size, x + 0.022 * size, ground, (0.35, 0.22, 0.12), "tree")
    leaf, full = leaves(values["foliage"]), between(values["foliage"], 0.75, 1.0)
    for dx, dy, r in ((-0.07, 0.32, 0.1), (0.07, 0.33, 0.1), (0.0, 0.43, 0.11)):
        canvas.ellipse(x + dx * size, ground - dy * size, r * size * full, r * size * full, leaf, "tree")
        leaf = shade(leaf, 1.1)


def _vehicle(canvas: Raster, values: Values, horizon: float) -> None:
    size = between(values["vehicle_size"], 0.85, 1.2)
    x, ground = between(values["vehicle_place"], 0.18, 0.82), horizon + 0.27
    half, paint = 0.14 * size, hsv(values["vehicle_hue"], 0.8, 0.85)
    canvas.polygon(
        [
            (x - 0.6 * half, ground - 0.15 * size),
            (x + 0.45 * half, ground - 0.15 * size),
            (x + 0.75 * half, ground - 0.08 * size),
            (x - 0.75 * half, ground - 0.08 * size),
        ],
        (0.6, 0.78, 0.88),
        "vehicle",
    )
    canvas.box(x - half, ground - 0.09 * size, x + half, ground - 0.02 * size, paint, "vehicle")
    for side in (-0.58, 0.58):
        canvas.ellipse(
            x + side * half, ground - 0.015 * size, 0.03 * size, 0.03 * size, (0.08, 0.08, 0.08), "vehicle"
        )


def _person(canvas: Raster, values: Values, horizon: float) -> None:
    size = between(values["person_size"], 0.85, 1.25)
    x, ground = between(values["person_place"], 0.1, 0.9), horizon + 0.3
    coat = hsv(values["person_hue"], 0.75, 0.8)
    for side in (-1, 1):
        canvas.line(
            [(x, ground - 0.1 * size), (x + side * 0.018 * size, ground)], (0.15, 0.15, 0.25), 0.025, "person"
        )
    canvas.polygon(
        [
            (x - 0.03 * size, ground - 0.2 * size),
            (x + 0.03 * size, ground - 0.2 * size),
            (x + 0.042 * size, ground - 0.08 * size),
            (x - 0.042 * size, ground - 0.08 * size),
        ],
        coat,
        "person",
    )
    canvas.ellipse(x, ground - 0.235 * size, 0.03 * size, 0.035 * size, (0.9, 0.7, 0.55), "person")
