"""Drawn scenes: the picture is a function of its factors, and each factor shows where it should."""

import hashlib

import numpy as np
import pytest
import torch

from flows.data.scenes import CLASSES, FACTORS, Scenes, render, with_factor
from flows.data.scenes.canvas import CLASS
from flows.data.scenes.dataset import save
from flows.data.scenes.factors import CATEGORIES, COLUMN, NAMES, OBJECTS, matters, sample_factors
from flows.data.source import instantiate_data, remember


@pytest.fixture(scope="module")
def factors() -> np.ndarray:
    return sample_factors(0, range(400))


def test_a_scene_depends_on_its_own_number_alone():
    many, one = sample_factors(3, range(50)), sample_factors(3, [17])
    assert np.array_equal(many[17], one[0])
    assert np.array_equal(render(many, 32).images[17], render(one, 32).images[0])
    assert not np.array_equal(sample_factors(4, [17]), one)


def test_saved_sets_are_the_same_to_the_byte(tmp_path):
    digests = set()
    for name in ("a.npz", "b.npz"):
        save(Scenes(cache=None).render_first("test", 20), tmp_path / name)
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1


def test_the_cache_gives_what_was_drawn(tmp_path):
    options = {"images": 30, "seed": 5}
    rendered = Scenes(cache=None, **options).split("train")
    for _ in range(2):
        split = Scenes(cache=tmp_path, **options).split("train")
        assert torch.equal(split.images, rendered.images) and torch.equal(split.masks, rendered.masks)
        assert torch.equal(split.factors, rendered.factors) and torch.equal(split.labels, rendered.labels)
    assert len(list(tmp_path.iterdir())) == 1


def test_more_images_begin_with_the_fewer_and_splits_share_none():
    small, large = (Scenes(cache=None, images=n).split("train").images for n in (20, 40))
    assert torch.equal(small, large[:20])
    test = Scenes(cache=None).render_first("test", 40).images
    assert not {image.tobytes() for image in test} & {image.numpy().tobytes() for image in large}


@pytest.mark.parametrize("size", [32, 64])
def test_every_factor_that_matters_changes_the_picture_and_no_other_does(size, factors):
    """Each factor moved alone, on scenes where it matters and on scenes where it does not."""
    seen = matters(factors)
    for factor in FACTORS:
        if factor.kind == "category":
            continue
        column = COLUMN[factor.name]
        for counts in (True, False):
            rows = np.flatnonzero(seen[:, column] == counts)
            if factor.name in OBJECTS:
                # An object of another category stands in no scene of its own; presence 0 always fits.
                rows = np.flatnonzero(factors[:, column] > 0) if counts else rows[:0]
            rows = rows[:6]
            if not len(rows):
                continue
            moved = factors[rows].copy()
            if factor.kind == "binary":
                moved[:, column] = 1 - moved[:, column]
            else:
                low = moved[:, column] < (factor.low + factor.high) / 2
                moved[:, column] = np.where(low, factor.high, factor.low)
            before, after = render(factors[rows], size).images, render(moved, size).images
            differs = (before != after).reshape(len(rows), -1).any(1)
            if counts:
                # Something may stand in front of it.
                assert differs.mean() >= 0.5, factor.name
            else:
                assert not differs.any(), factor.name


def test_the_mask_has_what_is_there_and_nothing_else(factors):
    masks = render(factors, 32).masks
    for name in OBJECTS:
        there = (masks == CLASS[name]).reshape(len(masks), -1).any(1)
        present = factors[:, COLUMN[name]] > 0
        assert not (there & ~present).any(), name
        assert there[present].mean() > 0.8, name  # the banner, or furniture, may hide it
    church = factors[:, COLUMN["category"]] == CATEGORIES.index("church")
    sky = (masks == CLASS["sky"]).reshape(len(masks), -1).any(1)
    assert np.array_equal(sky, church)
    banner = (masks == CLASS["banner"]).reshape(len(masks), -1).any(1)
    assert np.array_equal(banner, factors[:, COLUMN["banner"]] > 0)
    assert masks.max() < len(CLASSES)


def test_light_and_warmth_do_what_they_are_called(factors):
    rooms = torch.from_numpy(factors[factors[:, COLUMN["banner"]] == 0][:100])

    def mean(**values: float) -> np.ndarray:
        return render(with_factor(rooms, **values).numpy(), 32).images.mean((0, 2, 3))

    assert mean(daylight=1.0).sum() > 1.4 * mean(daylight=0.0).sum()
    warm, cold = mean(warmth=1.0), mean(warmth=-1.0)
    assert warm[0] > 1.1 * cold[0] and warm[2] < 0.9 * cold[2]
    lamps = rooms[rooms[:, COLUMN["lamp"]] > 0]
    lit, dark = (
        render(with_factor(lamps, lamp_on=value, daylight=0.1).numpy(), 32).images.mean()
        for value in (1.0, 0.0)
    )
    assert lit > 1.2 * dark


def test_shares_are_those_of_the_table():
    factors = sample_factors(1, range(4000))
    assert np.bincount(factors[:, COLUMN["category"]].astype(int)).min() > 900
    assert 0.22 < factors[:, COLUMN["banner"]].mean() < 0.28
    bedrooms = factors[factors[:, COLUMN["category"]] == 0]
    assert bedrooms[:, COLUMN["bed"]].mean() > 0.93 and bedrooms[:, COLUMN["sofa"]].mean() == 0
    assert (factors[:, COLUMN["lamp_on"]] <= factors[:, COLUMN["lamp"]]).all()


def test_what_is_withheld_is_missing_from_training_alone():
    data = Scenes(cache=None, images=300, withhold=["plant", "bedroom+lamp_on"])
    train = data.split("train").factors
    assert not (train[:, COLUMN["plant"]] > 0).any()
    lit_bedrooms = (train[:, COLUMN["category"]] == 0) & (train[:, COLUMN["lamp_on"]] > 0)
    assert not lit_bedrooms.any()
    assert (train[:, COLUMN["lamp_on"]] > 0).any()
    test = torch.from_numpy(data.render_first("test", 300).factors)
    assert (test[:, COLUMN["plant"]] > 0).any()
    assert "withheld: plant, bedroom+lamp_on" in data.transform


def test_correlated_factors_are_correlated_and_keep_their_shares():
    plain = sample_factors(0, range(3000))
    joined = sample_factors(0, range(3000), correlated={("daylight", "warmth"): -0.8})
    columns = [COLUMN["daylight"], COLUMN["warmth"]]
    assert abs(np.corrcoef(plain[:, columns].T)[0, 1]) < 0.06
    assert np.corrcoef(joined[:, columns].T)[0, 1] < -0.7
    assert abs(joined[:, COLUMN["warmth"]].mean()) < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"withhold": ["unicorn"]}, "'unicorn' is neither a category"),
        ({"correlated": {"daylight": 0.5}}, "expected two factors"),
        ({"correlated": {"daylight,lamp_on": 2.0}}, "expected −1 to 1"),
        ({"categories": ["bathroom"]}, "no 'bathroom'"),
        ({"images": 0}, "images"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Scenes(cache=None, **options)


def test_a_checkpoints_config_makes_the_set_again(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    options = {"images": 5, "validation": 5, "test": 5, "cache": str(cache), "withhold": ["plant"]}
    source = {"class_path": "flows.data.scenes.Scenes", "init_args": options}
    monkeypatch.setattr("flows.data.source.KNOWN", tmp_path / "known.txt")
    with pytest.raises(ValueError, match="names Scenes with cache"):  # it would be written to
        instantiate_data(source)
    remember(source)
    data = instantiate_data(source)
    assert len(data.split("test")) == 5 and len(list(cache.iterdir())) == 1


def test_withholding_everything_is_an_error():
    data = Scenes(cache=None, images=5, categories=["bedroom"], withhold=["bedroom"])
    with pytest.raises(ValueError, match="no scene is left"):
        data.split("train")


def test_factors_of_another_width_or_category_are_refused(factors):
    with pytest.raises(ValueError, match=f"expected \\(n, {len(NAMES)}\\)"):
        render(factors[:, :-1], 32)
    wrong = factors[:1].copy()
    wrong[:, COLUMN["category"]] = 9
    with pytest.raises(ValueError, match="category is an index"):
        render(wrong, 32)
    with pytest.raises(ValueError, match="no factor 'lamps'"):
        with_factor(torch.from_numpy(factors), lamps=1.0)
