"""Room scenes: a box in one-point perspective with furniture."""

from collections.abc import Mapping

from flows.data.scenes.canvas import Colour, Point, Raster, between, hsv, mix, shade

WHITE: Colour = (0.93, 0.92, 0.9)
NIGHT: Colour = (0.07, 0.09, 0.22)
DAY: Colour = (0.62, 0.82, 1.0)

Values = Mapping[str, float]


class Room:
    """Projection of the points of a room; the yaw of the camera moves the vanishing point sideways.

    x ranges from −1 (left wall) to 1, y from 0 (floor) to 1 (ceiling), d from 0 (front) to 1 (back wall).
    """

    def __init__(self, values: Values):
        self.vanishing = 0.5 + 0.26 * values["yaw"], 0.36 + 0.16 * values["vanishing"]
        self.depth = 0.35 + 0.75 * values["depth"]

    def __call__(self, x: float, y: float, d: float) -> Point:
        """Project a point to image coordinates."""
        scale = 1 / (1 + self.depth * d)
        vx, vy = self.vanishing
        return vx + ((x + 1) / 2 - vx) * scale, vy + ((1 - y) - vy) * scale

    def scale(self, d: float) -> float:
        """Return the projected size of a length of 1 at depth d."""
        return 1 / (1 + self.depth * d)


def draw_room(canvas: Raster, values: Values, category: str) -> tuple[Point, float] | None:
    """Render a bedroom, living room or kitchen; return (x, y) and reach of the lamp if it is lit."""
    room = Room(values)
    wall = hsv(values["wall_hue"], 0.33, 0.86)
    _shell(canvas, room, values, wall)
    if category == "kitchen":
        _cupboards(canvas, room, values)
    if values["window"]:
        _window(canvas, room, values)
    if values["picture"]:
        _picture(canvas, room, values)
    if values["door"]:
        _door(canvas, room, values)
    if category == "kitchen":
        _counter(canvas, room, values)
    if values["rug"]:
        _rug(canvas, room, values)
    if values["plant"]:
        _plant(canvas, room, values)
    lamp = _lamp(canvas, room, values) if values["lamp"] else None
    if values["bed"]:
        _bed(canvas, room, values)
    if values["sofa"]:
        _sofa(canvas, room, values)
    if values["table"]:
        _table(canvas, room, values)
    return lamp if values["lamp_on"] else None


def _shell(canvas: Raster, room: Room, values: Values, wall: Colour) -> None:
    """Draw ceiling, walls and floor."""
    canvas.polygon([room(-1, 1, 0), room(1, 1, 0), room(1, 1, 1), room(-1, 1, 1)], WHITE, "ceiling")
    for side, light in ((-1, 0.8), (1, 0.72)):
        points = [room(side, 1, 0), room(side, 1, 1), room(side, 0, 1), room(side, 0, 0)]
        canvas.polygon(points, shade(wall, light), "wall")
    canvas.polygon([room(-1, 1, 1), room(1, 1, 1), room(1, 0, 1), room(-1, 0, 1)], wall, "wall")
    floor = (0.62, 0.42, 0.24) if values["wood"] else (0.6, 0.58, 0.62)
    canvas.polygon([room(-1, 0, 0), room(1, 0, 0), room(1, 0, 1), room(-1, 0, 1)], floor, "floor")
    if values["wood"]:
        for i in range(1, 8):
            x = -1 + i / 4
            canvas.line([room(x, 0, 0), room(x, 0, 1)], shade(floor, 0.72), 0.012)
    skirting = shade(wall, 0.55)
    canvas.line([room(-1, 0, 1), room(1, 0, 1)], skirting, 0.014)
    for side in (-1, 1):
        canvas.line([room(side, 0, 0), room(side, 0, 1)], skirting, 0.014)


def _rectangle(room: Room, x0: float, x1: float, y0: float, y1: float, d: float) -> list[Point]:
    return [room(x0, y1, d), room(x1, y1, d), room(x1, y0, d), room(x0, y0, d)]


def _window_extent(values: Values) -> tuple[float, float]:
    half = between(values["window_size"], 0.24, 0.38)
    return between(values["window_place"], -0.62, 0.62), half


def _window(canvas: Raster, room: Room, values: Values) -> None:
    """Draw a window in the back wall, with curtains of its hue; the sky behind it follows the daylight."""
    x, half = _window_extent(values)
    low, high = 0.42, 0.86
    canvas.polygon(_rectangle(room, x - half, x + half, low, high, 1), WHITE, "window")
    sky = mix(NIGHT, DAY, values["daylight"])
    frame = 0.045
    for x0, x1 in ((x - half + frame, x - frame / 2), (x + frame / 2, x + half - frame)):
        canvas.polygon(_rectangle(room, x0, x1, low + frame, high - frame, 1), sky, "window")
    curtain = hsv(values["window_hue"], 0.6, 0.7)
    for side in (-1, 1):
        inner, outer = x + side * half * 0.86, x + side * (half + 0.09)
        left, right = min(inner, outer), max(inner, outer)
        canvas.polygon(_rectangle(room, left, right, low - 0.08, high + 0.05, 1), curtain, "window")


def _picture(canvas: Raster, room: Room, values: Values) -> None:
    """Draw a framed picture on the back wall, beside the window if there is one."""
    half = between(values["picture_size"], 0.1, 0.18)
    x = between(values["picture_place"], -0.7, 0.7)
    if values["window"]:
        middle, wide = _window_extent(values)
        free = (-0.95, middle - wide - 0.12) if middle > 0 else (middle + wide + 0.12, 0.95)
        half = min(half, (free[1] - free[0]) / 2)
        x = between(values["picture_place"], free[0] + half, free[1] - half)
    hue = values["picture_hue"]
    y = 0.68
    frame = _rectangle(room, x - half, x + half, y - half * 0.75, y + half * 0.75, 1)
    canvas.polygon(frame, (0.25, 0.15, 0.08), "picture")
    inner = half * 0.72
    canvas.polygon(
        _rectangle(room, x - inner, x + inner, y - inner * 0.7, y + inner * 0.7, 1),
        hsv(hue, 0.75, 0.9),
        "picture",
    )
    canvas.polygon(
        [
            room(x - inner, y - inner * 0.7, 1),
            room(x, y + inner * 0.3, 1),
            room(x + inner, y - inner * 0.7, 1),
        ],
        hsv(hue + 0.4, 0.6, 0.5),
        "picture",
    )


def _door(canvas: Raster, room: Room, values: Values) -> None:
    """Draw a door in a side wall, the left one for a place below 0.5, else the right one."""
    side = -1.0 if values["door_place"] < 0.5 else 1.0
    along = (2 * values["door_place"]) % 1.0
    near = between(along, 0.12, 0.5)
    far = near + between(values["door_size"], 0.26, 0.4)
    colour = hsv(values["door_hue"], 0.55, 0.62)

    def panel(d0: float, d1: float, y0: float, y1: float, paint: Colour) -> None:
        points = [room(side, y1, d0), room(side, y1, d1), room(side, y0, d1), room(side, y0, d0)]
        canvas.polygon(points, paint, "door")

    panel(near - 0.03, far + 0.03, 0, 0.78, shade(WHITE, 0.85))
    panel(near, far, 0, 0.75, colour)
    width = far - near
    panel(near + 0.2 * width, far - 0.2 * width, 0.42, 0.68, shade(colour, 0.72))
    panel(near + 0.2 * width, far - 0.2 * width, 0.08, 0.34, shade(colour, 0.72))
    knob = room(side, 0.38, near + 0.1 * width)
    canvas.ellipse(*knob, 0.012, 0.012, (0.95, 0.8, 0.3), "door")


def _box(
    canvas: Raster,
    room: Room,
    x: tuple[float, float],
    y: tuple[float, float],
    d: tuple[float, float],
    colour: Colour,
    of: str,
) -> None:
    """Draw a box: its top, the visible sides and its front."""
    (x0, x1), (y0, y1), (d0, d1) = x, y, d
    eye = 1 - room.vanishing[1]
    if y1 < eye:
        points = [room(x0, y1, d0), room(x1, y1, d0), room(x1, y1, d1), room(x0, y1, d1)]
        canvas.polygon(points, shade(colour, 1.12), of)
    centre = 2 * room.vanishing[0] - 1
    for side in (x0, x1):
        if (side == x0 and x0 > centre) or (side == x1 and x1 < centre):
            points = [room(side, y1, d0), room(side, y1, d1), room(side, y0, d1), room(side, y0, d0)]
            canvas.polygon(points, shade(colour, 0.62), of)
    canvas.polygon(_rectangle(room, x0, x1, y0, y1, d0), shade(colour, 0.82), of)


def _bed(canvas: Raster, room: Room, values: Values) -> None:
    """Draw a bed with its head at the back wall: headboard, mattress, blanket of its hue, pillows."""
    half = between(values["bed_size"], 0.32, 0.46)
    x = between(values["bed_place"], -0.98 + half, 0.98 - half)
    near = 0.36
    wood = (0.42, 0.27, 0.16)
    canvas.polygon(_rectangle(room, x - half, x + half, 0, 0.4, 1), wood, "bed")
    _box(canvas, room, (x - half, x + half), (0.0, 0.2), (near, 0.98), (0.9, 0.88, 0.84), "bed")
    blanket = hsv(values["bed_hue"], 0.65, 0.78)
    _box(canvas, room, (x - half, x + half), (0.03, 0.23), (near, 0.74), blanket, "bed")
    for offset in (-0.5, 0.5):
        middle = x + offset * half
        points = [
            room(middle - 0.38 * half, 0.25, 0.78),
            room(middle + 0.38 * half, 0.25, 0.78),
            room(middle + 0.38 * half, 0.3, 0.97),
            room(middle - 0.38 * half, 0.3, 0.97),
        ]
        canvas.polygon(points, (0.98, 0.98, 0.98), "bed")


def _sofa(canvas: Raster, room: Room, values: Values) -> None:
    """Draw a sofa in front of the back wall: back, seat, two arms."""
    half = between(values["sofa_size"], 0.42, 0.62)
    x = between(values["sofa_place"], -0.97 + half, 0.97 - half)
    colour = hsv(values["sofa_hue"], 0.6, 0.72)
    _box(canvas, room, (x - half, x + half), (0.0, 0.42), (0.82, 0.97), shade(colour, 0.92), "sofa")
    _box(canvas, room, (x - half, x + half), (0.0, 0.2), (0.52, 0.84), colour, "sofa")
    for side in (-1, 1):
        inner, outer = sorted((x + side * half, x + side * (half - 0.12)))
        _box(canvas, room, (inner, outer), (0.0, 0.3), (0.5, 0.9), shade(colour, 0.86), "sofa")


def _table(canvas: Raster, room: Room, values: Values) -> None:
    """Draw a table with four legs, in front of everything else."""
    half = between(values["table_size"], 0.22, 0.36)
    x = between(values["table_place"], -0.6, 0.6)
    near, far, height = 0.16, 0.42, 0.24
    wood = mix((0.5, 0.32, 0.18), hsv(values["table_hue"], 0.5, 0.75), 0.65)
    for d in (far, near):
        for side in (-1, 1):
            leg = x + side * (half - 0.03)
            canvas.polygon(
                _rectangle(room, leg - 0.025, leg + 0.025, 0, height, d), shade(wood, 0.6), "table"
            )
    _box(canvas, room, (x - half, x + half), (height - 0.05, height), (near, far), wood, "table")


def _rug(canvas: Raster, room: Room, values: Values) -> None:
    """Draw a rug with a border, on the floor."""
    half = between(values["rug_size"], 0.3, 0.5)
    x = between(values["rug_place"], -0.4, 0.4)
    colour = hsv(values["rug_hue"], 0.6, 0.7)
    for grow, paint in ((0.0, shade(colour, 0.65)), (-0.06, colour)):
        h = half + grow
        near, far = 0.1 - grow / 2, 0.6 + grow / 2
        points = [room(x - h, 0, near), room(x + h, 0, near), room(x + h, 0, far), room(x - h, 0, far)]
        canvas.polygon(points, paint, "rug")


def _plant(canvas: Raster, room: Room, values: Values) -> None:
    """Draw a plant in a pot by a side wall; foliage sets the colour of its leaves."""
    side = -1 if values["plant_place"] < 0.5 else 1
    d = between((2 * values["plant_place"]) % 1.0, 0.62, 0.9)
    grown = between(values["plant_size"], 0.3, 0.46)
    x, y = room(side * 0.84, 0, d)
    s = room.scale(d)
    canvas.polygon(
        [(x - 0.05 * s, y - 0.13 * s), (x + 0.05 * s, y - 0.13 * s), (x + 0.035 * s, y), (x - 0.035 * s, y)],
        (0.72, 0.36, 0.2),
        "plant",
    )
    leaf = leaves(values["foliage"])
    for dx, dy, r in ((-0.07, 0.5, 0.075), (0.07, 0.5, 0.075), (-0.035, 0.85, 0.075), (0.04, 0.8, 0.08)):
        canvas.ellipse(x + dx * s, y - (0.13 + dy * grown) * s, r * s, 1.3 * r * s, leaf, "plant")
        leaf = shade(leaf, 0.9)


def leaves(foliage: float) -> Colour:
    """Return the colour of leaves, from withered yellow-brown (0) to full green (1)."""
    return mix((0.72, 0.5, 0.16), (0.12, 0.5, 0.16), foliage)


def _lamp(canvas: Raster, room: Room, values: Values) -> tuple[Point, float]:
    """Draw a standing lamp at the back; return the centre of its shade and the reach of its light."""
    place = between(values["lamp_place"], -0.86, 0.86)
    d = 0.86
    s = room.scale(d)
    size = between(values["lamp_size"], 0.85, 1.25)
    x, floor = room(place, 0, d)
    top = floor - 0.68 * s
    canvas.line([(x, floor), (x, top)], (0.2, 0.18, 0.16), 0.016 * s + 0.006, "lamp")
    canvas.ellipse(x, floor, 0.055 * s, 0.018 * s, (0.2, 0.18, 0.16), "lamp")
    lit = values["lamp_on"] > 0
    colour = mix(hsv(values["lamp_hue"], 0.55, 0.8), (1.0, 0.93, 0.62), 0.7 if lit else 0.0)
    wide, narrow, tall = 0.125 * s * size, 0.075 * s * size, 0.17 * s * size
    canvas.polygon(
        [(x - narrow, top - tall), (x + narrow, top - tall), (x + wide, top), (x - wide, top)], colour, "lamp"
    )
    return (x, top - tall / 2), 0.34 * s * size + 0.1


def _cupboards(canvas: Raster, room: Room, values: Values) -> None:
    """Draw kitchen cupboards high on the back wall, left and right of the window."""
    paint = hsv(values["wall_hue"] + 0.5, 0.25, 0.7)
    spans = [(-0.95, 0.95)]
    if values["window"]:
        x, half = _window_extent(values)
        spans = [(-0.95, x - half - 0.13), (x + half + 0.13, 0.95)]
    for left, right in spans:
        doors = int((right - left) / 0.24)
        for i in range(doors):
            x0 = left + i * (right - left) / doors
            x1 = left + (i + 1) * (right - left) / doors - 0.03
            canvas.polygon(_rectangle(room, x0, x1, 0.62, 0.94, 1), paint, "counter")


def _counter(canvas: Raster, room: Room, values: Values) -> None:
    """Draw lower kitchen cupboards along the back wall, with a stove."""
    paint = hsv(values["wall_hue"] + 0.5, 0.25, 0.72)
    _box(canvas, room, (-1, 1), (0.0, 0.34), (0.78, 1.0), paint, "counter")
    points = [room(-1, 0.34, 0.78), room(1, 0.34, 0.78), room(1, 0.34, 1), room(-1, 0.34, 1)]
    canvas.polygon(points, (0.35, 0.35, 0.38), "counter")
    for i in range(1, 6):
        x = -1 + i / 3
        canvas.line([room(x, 0.02, 0.78), room(x, 0.3, 0.78)], shade(paint, 0.55), 0.01)
    stove = -0.75 if values["window"] and values["window_place"] > 0.5 else 0.45
    canvas.polygon(_rectangle(room, stove, stove + 0.3, 0.03, 0.33, 0.78), (0.85, 0.85, 0.87), "counter")
    canvas.polygon(
        _rectangle(room, stove + 0.04, stove + 0.26, 0.07, 0.22, 0.78), (0.15, 0.15, 0.18), "counter"
    )
    for dx in (0.07, 0.22):
        canvas.ellipse(*room(stove + dx, 0.35, 0.87), 0.025, 0.01, (0.1, 0.1, 0.1), "counter")
