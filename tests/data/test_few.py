"""Very few samples in every verb: refused in one line, or every figure is known or null."""

import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image
from verbs import RUNS, bundled, words_of

from flows.cli import commands, main
from flows.core.statistics import FEWEST, check_enough, interval, std_of
from flows.dissection.omission import omissions
from flows.errors import UserError
from flows.metrics.frechet import frechet, half_split_floor
from flows.steering.base import Direction
from flows.steering.evaluate import monotonicity


def test_every_verb_is_tried():
    assert set(RUNS) == set(commands())


def numbers_in(value):
    """Every number of a result of JSON."""
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from numbers_in(each)
    elif isinstance(value, float | int) and not isinstance(value, bool):
        yield value


@pytest.mark.parametrize(
    "n", [1, pytest.param(2, marks=pytest.mark.long), pytest.param(3, marks=pytest.mark.long)]
)
@pytest.mark.parametrize("verb", RUNS)
def test_few_samples_are_refused_or_give_figures_that_are_known(verb, n, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (32, 32), (90, 60, 30)).save("a.png")
    (tmp_path / "scores.json").write_text(
        '{"checkpoint": "x", "of": "samples", "space": "z", "directions": {}}'
    )
    for arguments in RUNS[verb]:
        words = words_of(arguments, n)
        json_file = [] if verb in ("export", "interpolate") else ["--json", "result.json"]
        try:
            main(
                [
                    *verb.split(),
                    *words,
                    *json_file,
                    *([] if verb in ("data", "export", "steer rank") else ["--device", "cpu"]),
                ]
            )
        except SystemExit as ended:
            read = capsys.readouterr()
            assert ended.code == 2, read.err
            assert read.err.splitlines()[-1].count("error: ") == 1 and "Traceback" not in read.err
            continue
        read = capsys.readouterr()
        assert not any(word in read.out.lower().split() for word in ("nan", "+nan", "inf", "±nan")), read.out
        if Path("result.json").is_file():
            figures = list(numbers_in(json.loads(Path("result.json").read_text())))
            assert all(math.isfinite(value) and abs(value) < 1e7 for value in figures)


# Statistics ---------------------------------------------------------------------------------------


def test_the_std_of_what_does_not_vary_is_unknown():
    values = torch.tensor([[1.0, 2.0, math.nan, 1.0], [1.0, 4.0, math.nan, math.nan], [1.0, 6.0, 5.0, 2.0]])
    std = std_of(values)
    assert std[0].isnan() and std[2].isnan()
    assert float(std[1]) == pytest.approx(math.sqrt(8 / 3)) and float(std[3]) == pytest.approx(0.5)
    assert std_of(values, 1.0)[3].isnan() and std_of(values[:1]).isnan().all()


def test_an_interval_with_an_unknown_end_is_unknown():
    resampled = torch.linspace(0, 1, 1001)[:, None].repeat(1, 3)
    resampled[0, 1], resampled[5, 2] = math.inf, math.nan
    low, high = interval(resampled)
    assert float(low[0]) == pytest.approx(0.025, abs=1e-3) and float(high[0]) == pytest.approx(
        0.975, abs=1e-3
    )
    assert low[1:].isnan().all() and high[1:].isnan().all()


def test_too_few_are_refused_with_the_number_that_is_needed():
    check_enough("codes", FEWEST)
    with pytest.raises(UserError, match="expected at least 10 codes for an effect, got 9; take more"):
        check_enough("codes for an effect", 9)
    with pytest.raises(UserError, match="at least 2 vectors for a covariance, got 1"):
        frechet(torch.randn(1, 3), torch.randn(5, 3))
    with pytest.raises(UserError, match="at least 2 vectors"):
        half_split_floor(torch.randn(3, 3))


def test_a_class_that_some_resamples_lack_has_no_interval():
    """The share of a class in one image of 20 cannot be divided by: some resamples have none of it."""
    data, samples = torch.full((20, 2), 50.0), torch.full((20, 2), 50.0)
    data[1:, 1] = 0
    rows = {row.label: row for row in omissions(data, samples, ["all", "rare"], fewest=0).rows}
    assert rows["all"].low == rows["all"].high == 0 and rows["rare"].relative == pytest.approx(19)
    assert math.isnan(rows["rare"].low) and math.isnan(rows["rare"].high)


def test_a_search_that_diverges_is_called_so_and_left_out_of_the_record(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (32, 32), (90, 60, 30)).save(f"pictures/{name}.png")
    given = [
        "compare", "--models", bundled("scenes-stylegan"), "--images", "user:pictures", "--perceptual",
        "none", "--edits", "false", "--steps", "5", "--lr", "1e20", "--out",
    ]  # fmt: skip
    main([*given, "out", "--inverters", "optimise:w+"])
    assert "every search diverged for 2 of 2 images, which are not in the record" in capsys.readouterr().out
    assert json.loads(Path("out/table.json").read_text())["rows"][0]["diverged"] == 2
    assert not list(Path("out").glob("records/*"))
    with pytest.raises(SystemExit) as ended:
        main([*given, "none", "--inverters", "exact", "encoder"])
    read = capsys.readouterr().err
    assert (
        ended.value.code == 2
        and "scenes-stylegan, encoder: it has no encoder" in read
        and not Path("none").exists()
    )


def test_a_record_has_the_images_whose_search_succeeded(tmp_path, capsys):
    from flows.inversion import load_record, render_record
    from flows.inversion.records import ImageSource, record_of, save_record
    from flows.models.load import load

    model = load(bundled("scenes-dcgan"))
    from flows.inversion.optimise import Optimise

    found = Optimise(steps=1).invert(
        model, model.decode_bytes(model.sample(3)), torch.Generator().manual_seed(0)
    )
    found.codes.values[1], found.losses[:, 1] = math.nan, math.inf
    record = record_of(found, [ImageSource(name) for name in "abc"], 0)
    assert record.diverged == ["b"] and [each.name for each in record.sources] == ["a", "c"]
    save_record(tmp_path / "r.safetensors", record, model)
    read = load_record(tmp_path / "r.safetensors", model)
    assert read.diverged == ["b"] and torch.equal(render_record(model, read), found.reconstruction[[0, 2]])
    main(
        [
            "render",
            str(tmp_path / "r.safetensors"),
            "--checkpoint",
            bundled("scenes-dcgan"),
            "--output",
            str(tmp_path / "out"),
        ]
    )
    assert "left out, because the search for their codes diverged: b" in capsys.readouterr().out
    found.codes.values[:] = math.nan
    assert record_of(found, [ImageSource(name) for name in "abc"], 0) is None


@pytest.mark.parametrize("field", ["bias", "sigma", "vector"])
def test_a_direction_is_finite(field):
    fields = {
        "name": "a",
        "vector": torch.tensor([1.0, 0]),
        "bias": 0.0,
        "space": "z",
        "sigma": 1.0,
        "method": "m",
    }
    Direction(**fields)
    for value in (math.nan, math.inf):
        wrong = torch.tensor([value, 0]) if field == "vector" else value
        with pytest.raises(UserError, match=f"a: its {field} is not finite"):
            Direction(**{**fields, field: wrong})


def test_the_monotonicity_of_an_unknown_response_is_unknown():
    assert math.isnan(monotonicity(torch.tensor([0.0, math.nan, 1.0]))) and math.isnan(
        monotonicity(torch.zeros(1))
    )
    assert monotonicity(torch.tensor([0.0, 1.0, 2.0])) == 1
