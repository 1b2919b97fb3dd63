"""Folders of real photographs, of any number of pictures, without a network.

    apt install lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 mate-backgrounds plasma-workspace-wallpapers
    python benchmarks/photographs.py ~/photographs --pictures 300

Pictures are crops of random place and size of the photographs that Debian's wallpapers (freely licensed),
scikit-image and scikit-learn have. Crops of one photograph resemble each other, so that each photograph is in
one split: train/ has as many pictures as asked for, validation/ a tenth as many, at least 20, test/ 200.
Subfolders are the kinds of photograph: flower, land, night, thing.
"""

import argparse
import random
import sys
from pathlib import Path

from PIL import Image

from flows.data.decode import decode
from flows.data.photos import read_photo

SIDE = 96
"""Side of the pictures in pixels."""
SMALLEST = 0.25
"""Smallest crop, as a share of the photograph's short side."""
LONGEST = 1600
"""Longest side to which photographs are reduced, so that crops have no more detail than their pixels."""
TEST, LEAST = 200, 20
SEED = 0

# Kind and split of each photograph: chosen once by their content, before any training.
PHOTOGRAPHS: dict[str, dict[str, tuple[str, ...]]] = {
    "train": {
        "flower": (
            "Dragonfly_by_Bolly.jpg", "GreenMeadow.jpg", "LadyBird.jpg", "TwoWings.jpg", "YellowFlower.jpg",
            "OneStandsOut", "Garden.jpg", "grass", "FallenLeaf",
        ),
        "land": (
            "Bridge_by_Sander_Klootwijk.jpg", "aitzgorri_by_Aitzol_Berasategi.jpg",
            "life_by_Aitzol_Berasategi.jpg", "Dune.jpg", "picosdeeuropa_by_Aitzol_Berasategi.jpg", "Kite",
            "Path", "china", "rocket", "BytheWater",
        ),
        "night": (
            "Infinite-Sea_by_Aury88.jpg", "Storm.jpg", "DarkestHour", "EveningGlow", "hubble_deep_field",
            "sunset_by_Aitzol_Berasategi.jpg",
        ),
        "thing": (
            "Picture_0B_by_freespace.jpg", "Picture_1A_by_freespace.jpg", "free_by_Peter_Nerlich.jpg",
            "friends_by_Aitzol_Berasategi.jpg", "ColorfulCups", "astronaut", "motorcycle", "Aqua.jpg",
        ),
    },
    "validation": {
        "flower": ("FreshFlower.jpg", "flower"),
        "land": ("ColdRipple", "Autumn"),
        "night": ("seeding_by_Clements_Engelhardt.jpg",),
        "thing": ("Wine_by_Jakkub_Mede.jpg", "greentock_by_Peter_Nerlich.jpg"),
    },
    "test": {
        "flower": ("Blinds.jpg", "RainDrops.jpg"),
        "land": ("Kleiber_by_Lukas_Baubkus.jpg", "gravel"),
        "night": ("summer_1am",),
        "thing": ("coffee", "chelsea", "Grey"),
    },
}  # fmt: skip
PLACES = ("usr/share/backgrounds", "usr/share/wallpapers")
PACKAGES = "lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 mate-backgrounds plasma-workspace-wallpapers"


def find(name: str, root: Path) -> Image.Image | None:
    """Photograph of a name, of a package of Python or a wallpaper below `root`; None if it is not here."""
    if name.islower() and "." not in name and "_1am" not in name:
        return read_photo(name)
    for place in PLACES:
        found = sorted(path for path in (root / place).rglob(name) if not path.is_symlink())
        pictures = [path for each in found for path in (each.rglob("images/*") if each.is_dir() else [each])]
        if pictures:
            return decode(max(pictures, key=lambda path: path.stat().st_size))
    return None


def crop(photo: Image.Image, generator: random.Random) -> Image.Image:
    """Square crop of random place and size, of `SIDE` pixels."""
    short = min(photo.size)
    side = round(short * generator.uniform(max(SMALLEST, SIDE / short), 1))
    left, top = generator.randint(0, photo.width - side), generator.randint(0, photo.height - side)
    return photo.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))


def write(folder: Path, pictures: int, root: Path) -> dict[str, int]:
    """Write the pictures of all splits; returns the number of photographs of each.

    Raises:
        SystemExit: A wallpaper is not below `root`.
    """
    counts = {"train": pictures, "validation": max(LEAST, pictures // 10), "test": TEST}
    photographs: dict[str, int] = {}
    for split, kinds in PHOTOGRAPHS.items():
        named = [(kind, name) for kind, names in kinds.items() for name in names]
        for place, (kind, name) in enumerate(named):
            photo = find(name, root)
            if photo is None:
                raise SystemExit(f"{name} is not below {root}: apt install {PACKAGES}")
            photo = photo.convert("RGB")
            photo.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
            generator = random.Random(f"{SEED} {name}")
            # Picture i of the split is of photograph i mod their number, so that more pictures add to fewer.
            for number in range(place, counts[split], len(named)):
                target = folder / split / kind / f"{Path(name).stem}-{number:05d}.jpg"
                target.parent.mkdir(parents=True, exist_ok=True)
                crop(photo, generator).save(target, quality=95)
        photographs[split] = len(named)
    return photographs


def main() -> None:
    """Write the folder that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="new folder")
    parser.add_argument("--pictures", type=int, default=300, help="number of training pictures")
    parser.add_argument("--root", type=Path, default=Path("/"), help="where the packages are unpacked")
    given = parser.parse_args()
    if given.folder.exists():
        sys.exit(f"{given.folder} exists: expected a new folder")
    print(write(given.folder, given.pictures, given.root))


if __name__ == "__main__":
    main()
