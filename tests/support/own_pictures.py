"""Pictures, runs and names that the commands of the documentation assume."""

from pathlib import Path


def draw(clone: Path, home: Path) -> None:
    """Create `my-room.png`, `a.png`, `b.png` and a folder `~/pictures` of drawn rooms."""
    from flows.data.scenes import Scenes
    from flows.images import to_pillow

    (home / "pictures").mkdir(parents=True)
    images = Scenes(size=64, test=24, cache=None).split("test").images
    for i, image in enumerate(images):
        to_pillow(image).save(home / "pictures" / f"{i:03d}.png")
    to_pillow(images[0]).resize((96, 80)).save(clone / "my-room.png")
    for name, image in zip(("a", "b"), images, strict=False):
        to_pillow(image).resize((32, 32)).save(clone / f"{name}.png")


RECORDS = (
    "cp -rL checkpoints/scenes-stylegan my-gan",
    "cp my-gan/directions.safetensors . && ln -s checkpoints/scenes-glow my-glow",
    "flows compare --models checkpoints/scenes-lia my-gan --inverters encoder tune --steps 2 "
    "--images user:~/pictures --edits false --perceptual none --out comparison",
    "flows codes my-gan comparison/records/my-gan-tune-user.safetensors --output from-elsewhere.npy",
)
ROOM = """python -c '
from pathlib import Path

from PIL import Image
from flows.editing import open_editor, save_history

editor = open_editor("checkpoints/scenes-glow")
history = editor.open(Image.open("my-room.png"), "my-room.png")
save_history(Path("room.safetensors"), history, editor.model, editor.checkpoint)
'"""
COMMANDS = {
    "docs/guides/inversion.md": RECORDS,
    "docs/guides/studio.md": (ROOM,),
    "docs/guides/tour.md": ("cp checkpoints/scenes-glow/directions.safetensors glow.safetensors",),
}
"""Commands before the blocks of a page."""

MY_COUPLING = """
from flows.bijections import AffineCoupling, Halves, TwoSided
from flows.networks.mlp import ReluMLP


def MyCoupling(size):
    return AffineCoupling(Halves(), ReluMLP(size // 2, size, 16, 2, uniform=0.1), TwoSided())

"""
ROOMS = """
import flows
from flows.data.scenes import Scenes

images = Scenes(test=2, cache=None).split("test").images
model = flows.load({!r})

"""
GENERATOR = """
import torch
from torch import nn

linear, image = nn.Linear(512, 3 * 64), nn.Upsample(scale_factor=8, mode="nearest")
generator = nn.Sequential(linear, nn.Tanh(), nn.Unflatten(1, (3, 8, 8)), image)
mapping = nn.Linear(512, 512)
images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
"""
CODE = {
    "README.md": ("", MY_COUPLING),
    "CONTRIBUTING.md": (MY_COUPLING,),
    "docs/index.md": (ROOMS.format("scenes-glow"),),
    "docs/guides/inversion.md": (ROOMS.format("scenes-stylegan"), GENERATOR),
    "docs/guides/memory.md": (
        "import flows\n\nmodel = flows.load('digits-glow')\nimages = model.decode_bytes(model.sample(2))\n",
    ),
    "docs/guides/own-gan.md": (
        GENERATOR + "torch.jit.trace(generator, torch.zeros(1, 512)).save('mine.pt')\n",
        "",
        "from flows.semantics import load_semantic_model\n\n"
        "segmenter = load_semantic_model('scenes64-segmenter')\n",
    ),
}
"""Python before each of the blocks of a page."""
