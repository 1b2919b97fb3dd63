"""Arguments for every verb, for tests that run over all of them."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "tests/models/legacy"


def bundled(name):
    return str(ROOT / "checkpoints" / name)


DIRECTIONS = bundled("scenes-glow") + "/directions.safetensors"
RUNS = {
    "atlas": [["scenes-lia", "--n", "N", "--scores", "daylight", "--out", "out"]],
    "codes": [["scenes-nice", str(KEPT / "codes.safetensors")]],
    "compare": [
        ["--models", "scenes-nice", "--inverters", "exact", "optimise", "--steps", "1", "--images", "test:N",
         "--perceptual", "none", "--out", "out"],
    ],
    "data": [[".", "--measure", "false", "--out", "out"]],
    "decode": [["scenes-nice", str(KEPT / "codes.safetensors"), "--output", "out"]],
    "dissect": [["scenes-dcgan", "--n", "N", "--out", "out"]],
    "distances": [["scenes-nice", "--images", "N"]],
    "encode": [["scenes-nice", "a.png", "--output", "codes.safetensors"]],
    "evaluate": [["scenes-nice", "--images", "N", "--neighbours", "N", "--output", "out"]],
    "export": [["no-run", "out"]],
    "interpolate": [["scenes-nice", "a.png", "a.png", "--steps", "2"]],
    "omissions": [["scenes-dcgan", "--n", "N", "--images", "0", "--out", "out"]],
    "paint": [["scenes-glow", "--n", "N", "--strokes", "erase bed", "--exemplars", "N"]],
    "render": [[str(KEPT / "record-exact.safetensors"), "--checkpoint", "scenes-nice", "--output", "out"]],
    "roundtrip": [["scenes-nice", "--images", "N", "--images_fp64", "N"]],
    "sample": [["scenes-nice", "--n", "N"]],
    "steer apply": [["scenes-glow", DIRECTIONS, "--names", "daylight", "--n", "N"]],
    "steer disentangle": [
        ["scenes-glow", DIRECTIONS, "--names", "daylight", "--n", "N", "--output", "d.safetensors"],
        ["scenes-glow", DIRECTIONS, "--names", "daylight", "--without", "lamp_on", "--n", "N", "--output",
         "d.safetensors"],
    ],
    "steer find": [
        ["scenes-lia", "--method", method, *more, "--n", "N", "--output", "d.safetensors"]
        for method, more in {
            "PrincipalComponents": [], "Boundary": ["--scores", "daylight"],
            "MeanDifference": ["--scores", "daylight"], "ScoreGradient": ["--scores", "daylight"],
        }.items()
    ],
    "steer levels": [["scenes-glow", DIRECTIONS, "--names", "daylight", "--n", "N", "--out", "out"]],
    "steer rank": [["scores.json", "--out", "out"]],
    "steer score": [
        ["scenes-glow", DIRECTIONS, "--names", "daylight", "--n", "N", "--out", "out"],
        ["scenes-glow", DIRECTIONS, "--names", "daylight", "--test", "N", "--out", "out"],
    ],
    "completion": [], "configs": [], "models": [], "studio": [],
}  # fmt: skip
"""Arguments of every verb, N for the number of samples; lists and the page compute no figures of samples."""


def words_of(arguments, n):
    """Words of the command line, with n samples and the paths of the bundled checkpoints."""
    return [
        bundled(word)
        if word.startswith("scenes-")
        else word.replace("N", str(n))
        if word in ("N", "test:N")
        else word
        for word in arguments
    ]
