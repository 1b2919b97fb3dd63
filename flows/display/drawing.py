"""Drawn pictures: sheets of labelled images, and picture and animation files by their suffix."""

import io
import math
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from flows import images as pixels
from flows.core.extras import optional
from flows.errors import UserError, missing_extra
from flows.storage.files import distinct, file_name, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure  # imported only where a figure is made; many commands make none

    Drawn: TypeAlias = "Tensor | Image.Image | Sheet | Figure"

STILLS = {
    ".bmp": "BMP", ".gif": "GIF", ".jpeg": "JPEG", ".jpg": "JPEG", ".pdf": "PDF", ".png": "PNG",
    ".tif": "TIFF", ".tiff": "TIFF", ".webp": "WEBP",
}  # fmt: skip
"""Pillow's formats of the picture files that are written, by their suffixes."""
ANIMATIONS = (".gif", ".webp", ".mp4")
"""Suffixes of animations, in the verbs that draw a course of images."""
LOSSY = (".gif", ".jpeg", ".jpg", ".mp4", ".pdf")
"""Suffixes of formats that do not keep the bytes: GIF has 256 colours, a PDF has the image as JPEG."""
LARGEST = {"GIF": 65535, "JPEG": 65500, "WEBP": 16383}
"""Maximum side of a picture, in pixels, of the formats that have one."""
Vector = Literal["pdf", "svg"]
"""Formats of figures without pixels."""
SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95}, "PDF": {"quality": 95}, "WEBP": {"lossless": True},
}  # fmt: skip
"""Options of Pillow's writers."""


# Files --------------------------------------------------------------------------------------------


def is_folder(path: Path) -> bool:
    """Whether an output path names a folder for one file per image: it has no suffix, or is a folder."""
    return not path.suffix or (path.is_dir() and path.suffix.lower() not in (*STILLS, *ANIMATIONS))


def is_animation(path: Path) -> bool:
    """Whether the suffix of a path is that of an animation."""
    return path.suffix.lower() in ANIMATIONS


def is_lossy(path: Path) -> bool:
    """Whether the format of a file does not keep the bytes of the images."""
    return path.suffix.lower() in LOSSY


def lossy_note(path: Path) -> str:
    """Remark for a line that names a written file: its format does not keep the bytes; empty if it does."""
    lossy = not is_folder(path) and is_lossy(path)
    return f" ({path.suffix.lower()} is lossy: its pixels differ from those of the images)" if lossy else ""


def check_picture(path: Path, option: str = "--output", animated: bool = False) -> None:
    """Check the suffix of a picture file.

    Args:
        path: Path of the file.
        option: Name of the option, for the message.
        animated: Whether animations are written, too.

    Raises:
        UserError: The suffix is not that of a picture file.
        DataMissing: The suffix is .mp4, and the package that writes videos is not installed.
    """
    suffix, known = path.suffix.lower(), [*STILLS, *(ANIMATIONS if animated else ())]
    if suffix not in known:
        raise UserError(
            f"{option} {path}: expected a picture file ({', '.join(dict.fromkeys(known))}), got "
            f"{f'suffix {path.suffix}' if path.suffix else 'no suffix'}"
        )
    if suffix == ".mp4" and find_spec("imageio_ffmpeg") is None:
        raise missing_extra(f"{option} {path}: a video needs imageio-ffmpeg", "video")


def new_figure(width: float, height: float) -> "Figure":
    """Empty figure of matplotlib, in inches, whose layout fits its contents.

    Raises:
        DataMissing: matplotlib is not installed.
    """
    figure: Figure = optional("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")
    return figure


def save_picture(sheet: "Drawn", path: Path) -> None:
    """Write a picture to a file, atomically, in the format of its suffix.

    Args:
        sheet: Image, uint8 (C, H, W), or picture, sheet or figure.
        path: File to write, with a suffix of `STILLS`.
    """
    check_picture(path)
    content = encode_picture(sheet, STILLS[path.suffix.lower()])
    write_atomically(path, lambda place: place.write_bytes(content))


def encode_picture(sheet: "Drawn", form: str = "PNG") -> bytes:
    """Encode a picture in one of Pillow's formats; a figure as PNG or, without pixels, as PDF."""
    content = io.BytesIO()
    if isinstance(sheet, Sheet):
        sheet = sheet.draw()
    if isinstance(sheet, Tensor):
        sheet = pixels.to_pillow(sheet)
    if not isinstance(sheet, Image.Image):
        if form == "PDF":
            return encode_figure(sheet, "pdf")
        sheet.savefig(content, dpi=110, format="png")
        if form == "PNG":
            return content.getvalue()
        sheet = Image.open(content).convert("RGB")
        content = io.BytesIO()
    try:
        sheet.save(content, form, **SAVE_OPTIONS.get(form, {}))
    except (ValueError, OSError) as error:  # of Pillow, for a picture that is too large for its format
        size = f"{sheet.width}×{sheet.height} pixels"
        raise UserError(f"a picture of {size} cannot be written as {form} ({error}); use .png") from error
    return content.getvalue()


def encode_figure(sheet: "Drawn", form: Vector) -> bytes:
    """Encode a picture for print: curves and text without pixels, images with exactly their pixels.

    Fonts are embedded as Type 42, which journals ask for. The same picture has the same bytes.
    """
    if isinstance(sheet, Tensor):
        sheet = pixels.to_pillow(sheet)
    if isinstance(sheet, Image.Image):
        sheet = Sheet([("", pixels.from_pillow(sheet, 3)[None])], side=1)
    figure = sheet.figure() if isinstance(sheet, Sheet) else sheet
    content = io.BytesIO()
    with optional("matplotlib").rc_context({"pdf.fonttype": 42, "svg.hashsalt": "flows"}):
        figure.savefig(content, format=form, metadata={"CreationDate" if form == "pdf" else "Date": None})
    return content.getvalue()


def save_animation(frames: Sequence[Image.Image], path: Path, fps: float) -> None:
    """Write an animation to a file, atomically, in the format of its suffix.

    Args:
        frames: Pictures of one size.
        path: File to write, with a suffix of `ANIMATIONS`.
        fps: Frames per second.
    """
    check_picture(path, animated=True)
    if path.suffix.lower() == ".mp4":
        write_atomically(
            path, lambda place: _write_video([each.convert("RGB") for each in frames], place, fps)
        )
        return
    content, form = io.BytesIO(), STILLS[path.suffix.lower()]
    first, *others = frames
    try:
        first.save(
            content,
            form,
            save_all=True,
            append_images=others,
            duration=milliseconds(path, fps),
            loop=0,
            **SAVE_OPTIONS.get(form, {}),
        )
    except (ValueError, OSError) as error:  # of Pillow, for frames that are too large for their format
        size = f"{first.width}×{first.height} pixels"
        raise UserError(f"frames of {size} cannot be written as {form} ({error}); use .mp4") from error
    write_atomically(path, lambda place: place.write_bytes(content.getvalue()))


def milliseconds(path: Path, fps: float) -> int:
    """Duration of a frame; that of GIF is a whole number of hundredths, of which viewers ignore 0 and 1."""
    return max(20, 10 * round(100 / fps)) if path.suffix.lower() == ".gif" else round(1000 / fps)


def rate_note(path: Path, fps: float) -> str:
    """Remark on the frames per second of an animation, if its format has not the given number."""
    if not is_animation(path) or path.suffix.lower() == ".mp4":
        return ""
    actual = 1000 / milliseconds(path, fps)
    return f", {actual:.3g} frames per second" if abs(actual - fps) > 0.01 * fps else ""


def _write_video(frames: Sequence[Image.Image], path: Path, fps: float) -> None:
    """Write frames in RGB as H.264, which has even sides."""
    import imageio_ffmpeg

    width, height = (side + side % 2 for side in frames[0].size)
    content = io.BytesIO()
    for frame in frames:
        even = Image.new("RGB", (width, height), "white")
        even.paste(frame)
        content.write(even.tobytes())
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "-"]
    coded = ["-c:v", "libx264", "-crf", "12", "-pix_fmt", "yuv420p", "-movflags", "+faststart"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", *raw, *coded, "-y", str(path)]
    done = subprocess.run(command, input=content.getvalue(), capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ffmpeg failed: {done.stderr.decode(errors='replace')}")


def save_images(folder: Path, names: Sequence[str], images: Iterable[Tensor]) -> list[Path]:
    """Write each image, uint8 (C, H, W), at its own size as a PNG in a folder, as soon as it is there.

    Args:
        folder: Folder to write to.
        names: One name per image; names that are equal, also after shortening, get numbers.
        images: Images.

    Returns:
        Written files, in the order of the images.
    """
    stems = distinct([file_name(name, ".png").removesuffix(".png") for name in names])
    paths = [folder / file_name(stem, ".png") for stem in stems]
    for path, image in zip(paths, images, strict=True):
        save_picture(image, path)
    return paths


@dataclass(frozen=True)
class Drawing:
    """Output of a verb in its three forms, of which only the one that is written is made.

    Attributes:
        images: Names and images, uint8 (C, H, W), for a folder.
        frames: Pictures of one size, for an animation.
        sheet: Picture, for a picture file.
    """

    images: Callable[[], tuple[Sequence[str], Iterable[Tensor]]]
    frames: Callable[[], Sequence[Image.Image]]
    sheet: Callable[[], Tensor | Image.Image]

    def save(self, output: Path, fps: float) -> str:
        """Write it in the form that the path of the output names.

        Args:
            output: Picture file, animation or folder.
            fps: Frames per second of an animation.

        Returns:
            Path with remarks on what its format does not keep, for a line that names the output.
        """
        if is_folder(output):
            save_images(output, *self.images())
        elif is_animation(output):
            save_animation(self.frames(), output, fps)
        else:
            save_picture(self.sheet(), output)
        return f"{output}{rate_note(output, fps)}{lossy_note(output)}"


def check_size(path: Path, width: int, height: int) -> None:
    """Raise UserError if a picture of this size cannot be written in the format of the suffix of `path`."""
    form = STILLS.get(path.suffix.lower(), "")
    if max(width, height) > LARGEST.get(form, math.inf):
        raise UserError(f"a picture of {width}×{height} pixels cannot be written as {form}; use .png")


# Sheets -------------------------------------------------------------------------------------------


GAP, LINE, MARGIN = 2, 16, 4
"""Pixels between images, height of a line of text, and space around a text."""
DOTS, POINTS = 100, 72
"""Pixels and points per inch of a sheet that is drawn as a figure."""


@lru_cache
def label_font(size: int = 13) -> ImageFont.FreeTypeFont:
    """Font of labels: DejaVu Sans, which matplotlib ships; the font of Pillow lacks ×, σ, – and others."""
    package = find_spec("matplotlib")
    if package is None or package.origin is None:
        raise RuntimeError("matplotlib, on which this package depends, is not installed")
    return ImageFont.truetype(Path(package.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf", size)


def enlarge(picture: Tensor, side: int) -> Image.Image:
    """Enlarge uint8 (C, H, W) by a whole factor up to about `side` pixels; larger images keep their size."""
    image = pixels.to_pillow(picture)
    zoom = max(1, side // max(image.size))
    return image.resize((image.width * zoom, image.height * zoom), Image.Resampling.NEAREST)


@dataclass(frozen=True)
class Sheet:
    """Images in rows, with the names of the rows, if any, on the left.

    The names take at most a third of the width, in as many lines as they need; if a word is longer than that,
    each name stands above its row.

    Attributes:
        rows: Pairs (name, uint8 images (n, C, H, W)).
        columns: Maximum number of images in a row.
        side: Side to which smaller images are enlarged, in pixels.
        head: Column names, printed above the first row.
    """

    rows: Sequence[tuple[str, Tensor]]
    columns: int = 24
    side: int = 64
    head: Sequence[str] = ()

    def draw(self) -> Image.Image:
        """Draw the sheet as a picture."""
        layout = self.layout()
        sheet = Image.new("RGB", (layout.width, layout.height), "white")
        for x, y, strip in layout.strips:
            sheet.paste(strip, (x, y))
        pen = ImageDraw.Draw(sheet)
        for x, y, line in layout.lines:
            pen.text((x, y), line, "black", label_font())
        return sheet

    def figure(self) -> "Figure":
        """Draw the sheet as a figure, in which the names are text and the images keep their pixels."""
        layout = self.layout()
        figure = new_figure(layout.width / DOTS, layout.height / DOTS)
        figure.set_layout_engine("none")
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set(xlim=(0, layout.width), ylim=(layout.height, 0))
        axes.set_axis_off()
        for x, y, strip in layout.strips:
            extent = (x, x + strip.width, y + strip.height, y)
            axes.imshow(np.asarray(strip), extent=extent, interpolation="none", aspect="auto")
        axes.set(xlim=(0, layout.width), ylim=(layout.height, 0))
        size = label_font().size * POINTS / DOTS
        for x, y, line in layout.lines:
            below = y + label_font().getmetrics()[0]
            axes.text(
                x, below, line, fontsize=size, fontfamily="DejaVu Sans", va="baseline", parse_math=False
            )
        return figure

    def layout(self) -> "Layout":
        """Places of all parts."""
        drawn = [
            (name, [enlarge(each, self.side) for each in pictures[: self.columns]])
            for name, pictures in self.rows
        ]
        width = max((picture.width for _, pictures in drawn for picture in pictures), default=self.side)
        columns = max(len(pictures) for _, pictures in drawn)
        beside = columns * (width + GAP)
        left = _label_width([name for name, _ in drawn], beside)
        heads = [_wrap(name, width) for name in self.head[:columns]]
        top = max((len(lines) for lines in heads), default=0) * LINE + (MARGIN if heads else 0)
        strips, lines = [], []
        for x, texts in enumerate(heads):
            lines += _below(left + x * (width + GAP) + GAP, GAP, texts)
        for name, pictures in drawn:
            texts = _wrap(name, (left or beside) - 2 * MARGIN)
            high, tallest = len(texts) * LINE, max((picture.height for picture in pictures), default=0)
            above = 0 if left else high
            height = max(above + tallest, high)
            if pictures:
                strips.append((left, top + above, _strip(pictures, width)))
            lines += _below(MARGIN, top + ((height - high) // 2 if left else 0), texts)
            top += height + GAP
        return Layout(left + beside, top, strips, lines)


@dataclass(frozen=True)
class Layout:
    """Places of the parts of a sheet, in pixels from its top left corner.

    Attributes:
        width, height: Size of the sheet.
        strips: Left edge, top and picture of each row of images.
        lines: Left edge, top and text of each line of text.
    """

    width: int
    height: int
    strips: Sequence[tuple[int, int, Image.Image]]
    lines: Sequence[tuple[int, int, str]]


def draw_rows(
    rows: Sequence[tuple[str, Tensor]], columns: int = 24, side: int = 64, head: Sequence[str] = ()
) -> Image.Image:
    """Draw images in rows as a picture; see `Sheet`."""
    return Sheet(rows, columns, side, head).draw()


def _label_width(names: Sequence[str], beside: int) -> int:
    """Width of the column of names left of images of a total width; 0 if the names stand above the rows."""
    limit = beside // 2 - 2 * MARGIN
    words = [part.rstrip() for name in names for part in _words(name)]
    if not words or max(map(label_font().getlength, words)) > limit:
        return 0
    return math.ceil(min(max(map(label_font().getlength, names)), limit)) + 2 * MARGIN


def _strip(pictures: Sequence[Image.Image], width: int) -> Image.Image:
    """Pictures side by side, at columns of a width, on white."""
    size = (width + GAP) * (len(pictures) - 1) + pictures[-1].width, max(each.height for each in pictures)
    strip = Image.new("RGB", size, "white")
    for x, picture in enumerate(pictures):
        strip.paste(picture, (x * (width + GAP), 0))
    return strip


def _below(x: int, y: int, texts: Sequence[str]) -> list[tuple[int, int, str]]:
    """Places of lines of text below each other."""
    return [(x, y + i * LINE, text) for i, text in enumerate(texts)]


def _wrap(text: str, width: float) -> list[str]:
    """Break a text into lines of at most `width` pixels, after spaces, commas and hyphens if possible."""
    lines, line = [], ""
    for part in _parts(text, width):
        if line and label_font().getlength((line + part).rstrip()) > width:
            lines.append(line.rstrip())
            line = ""
        line += part
    return [*lines, line.rstrip()] if line.strip() else lines


def _words(text: str) -> list[str]:
    """Pieces after which a line may end, each with the spaces, commas and hyphens that follow it."""
    return [word for word in re.findall(r"[^\s,\-_]*[\s,\-_]*", text) if word]


def _parts(text: str, width: float) -> Iterator[str]:
    """Pieces that are not broken: words, or the letters of words that are longer than a line."""
    for word in _words(text):
        yield from [word] if label_font().getlength(word.rstrip()) <= width else word
