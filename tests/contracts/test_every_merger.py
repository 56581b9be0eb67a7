"""What every method of merging must keep to."""

from __future__ import annotations

import pytest
import torch
from family import family_of, moved, saved, start
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from monoglot.errors import InputError
from monoglot.merge import MERGERS, Pieces
from monoglot.merge import run as run_module
from monoglot.merge.recipe import make_page
from monoglot.merge.run import merge
from monoglot.store import read_weights

pytestmark = pytest.mark.parametrize("name", MERGERS)

numbers = st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=12)


def pieces(
    name: str, versions: list[Tensor], weights: list[float] | None = None, base: Tensor | None = None, **changes
):
    """Versions of one tensor, with what the method needs: a base, Fisher information."""
    merger = MERGERS[name]
    fisher = None
    if merger.needs_fisher:
        rates = [torch.rand(version.shape, generator=torch.Generator().manual_seed(7)) for version in versions]
        fisher = [lambda rate=rate: rate for rate in rates]
    base = torch.zeros_like(versions[0]) if base is None else base
    told = {"scale": 1.0, "density": 0.5 if "density" in merger.settings else 1.0} | changes
    return Pieces(
        "some.weight",
        [lambda version=version: version for version in versions],
        [1.0] * len(versions) if weights is None else weights,
        base=(lambda: base) if merger.needs_base else None,
        fisher=fisher,
        **told,
    )


def many(name: str, count: int, size: int = 50) -> list[Tensor]:
    merger = MERGERS[name]
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(size, generator=generator) for _ in range(min(count, merger.most or count))]


@given(values=numbers, weight=st.floats(0.01, 1))
@settings(deadline=None, max_examples=40)
def test_a_model_with_itself_is_itself(name, values, weight):
    merger, version = MERGERS[name], torch.tensor(values)
    same = [version, version.clone()]
    for base in (version, version.flip(0) + 1):
        if torch.equal(base, version) or merger.lossless:
            found = merger.merge(pieces(name, same, [weight, 1.0], base))
        else:  # what changed is dropped in part, unless all of it is kept
            found = merger.merge(pieces(name, same, [weight, 1.0], base, density=1.0))
        torch.testing.assert_close(found, version, rtol=1e-5, atol=1e-5)


def test_only_the_ratio_of_weights_counts(name):
    versions = many(name, 3)
    weights = [3.0, 1.0, 2.0][: len(versions)]
    one = MERGERS[name].merge(pieces(name, versions, weights))
    other = MERGERS[name].merge(pieces(name, versions, [7 * weight for weight in weights]))
    torch.testing.assert_close(one, other)


def test_a_constant_shift_of_all_goes_through(name):
    """Weights that did not sum to 1 would scale it. A shift of models and base alike is no change to any."""
    if name in ("slerp",):
        pytest.skip("an arc around the origin moves with the origin")
    versions = many(name, 3)
    base, shift = 0.5 * versions[0], 4.0
    one = MERGERS[name].merge(pieces(name, versions, base=base))
    other = MERGERS[name].merge(pieces(name, [version + shift for version in versions], base=base + shift))
    torch.testing.assert_close(one + shift, other, rtol=1e-4, atol=1e-4)


def test_the_order_of_parents_does_not_matter(name):
    merger, versions = MERGERS[name], many(name, 3)
    weights = [3.0, 1.0, 2.0][: len(versions)] if merger.weighted else None
    order = torch.randperm(len(versions), generator=torch.Generator().manual_seed(1)).tolist()
    order = order if order != sorted(order) else order[::-1]
    given = pieces(name, versions, weights, ids=list(range(len(versions))))
    swapped = Pieces(
        **{
            **vars(given),
            "versions": [given.versions[i] for i in order],
            "weights": [given.weights[i] for i in order],
            "fisher": None if given.fisher is None else [given.fisher[i] for i in order],
            "ids": [given.ids[i] for i in order],
        }
    )
    torch.testing.assert_close(merger.merge(given), merger.merge(swapped), rtol=1e-5, atol=1e-5)


def test_a_parent_of_no_weight_is_not_there(name):
    merger = MERGERS[name]
    if not merger.weighted:
        return
    versions = many(name, 3)
    weights = [1.0, 0.0, 0.0][: len(versions)]
    alone = merger.merge(pieces(name, versions, weights))
    torch.testing.assert_close(alone, merger.merge(pieces(name, versions[:1])), rtol=1e-5, atol=1e-5)


def test_any_shape(name):
    for shape in ((), (1,), (1, 1), (3, 1), (2, 3, 4)):
        versions = [torch.full(shape, float(value)) for value in (1, 3)]
        found = MERGERS[name].merge(pieces(name, versions, base=torch.ones(shape)))
        assert found.shape == torch.Size(shape)
        assert found.dtype == torch.float32
        assert torch.isfinite(found).all()


def test_versions_and_base_stay_as_they_are(name):
    """They may be mapped from a file."""
    versions, base = many(name, 3), torch.ones(50)
    before = [version.clone() for version in versions]
    result = MERGERS[name].merge(pieces(name, versions, base=base))
    result.zero_()
    assert all(torch.equal(one, other) for one, other in zip(versions, before))
    assert torch.equal(base, torch.ones(50))


def test_the_same_each_time_and_by_seed(name):
    merger, versions = MERGERS[name], many(name, 2)
    one, again = (merger.merge(pieces(name, versions, seed=5)) for _ in range(2))
    assert torch.equal(one, again)
    assert torch.equal(one, merger.merge(pieces(name, versions, seed=6))) == (not merger.draws)


# --- whole folders ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    """`family_of`, and pairs of models that see: `seeing` and `seen`, of which one start and other statistics."""
    folder = tmp_path_factory.mktemp("every")
    found = family_of(folder)
    eyes = start(modalities={"image": {"size": 32}})
    for number, one in enumerate(("eyes", "seeing", "seen")):
        found[one] = saved(folder / one, moved(eyes, number) if number else eyes)
    return found


def merged(name: str, parents: list[str], base: str, out, monkeypatch):
    merger = MERGERS[name]
    page = {"method": name, "parents": parents, "out": str(out)}
    if merger.needs_base:
        page["base"] = base
    if merger.needs_weights:
        page["weights"] = [1.0] * len(parents)
    if merger.needs_fisher:
        page["fisher_data"] = ["rows.jsonl"]
        monkeypatch.setattr(run_module, "measure_information", lambda page, plan, _: [p.tensors for p in plan.parents])
    return merge(make_page(page), quiet=True)


def test_absent_tensors_are_not_scaled(name, folders, tmp_path, monkeypatch):
    """A model that sees, merged with one that reads text alone: its eyes are as they were."""
    found = merged(name, [folders["a"], folders["seeing"]], folders["base"], tmp_path / "m", monkeypatch)
    weights = read_weights(found.folder / "model.safetensors")
    seeing = read_weights(f"{folders['seeing']}/model.safetensors")
    eyes = [one for one in seeing if one.startswith("encoders.image")]
    assert eyes
    assert all(torch.equal(weights[one], seeing[one]) for one in eyes)
    assert found.report["kept"] >= len(eyes)
    assert any("encoders.image" in part for part in found.report["missing"][folders["a"]])


def test_counters_go_through_and_variances_stay_positive(name, folders, tmp_path, monkeypatch):
    found = merged(name, [folders["seeing"], folders["seen"]], folders["eyes"], tmp_path / "m", monkeypatch)
    weights = read_weights(found.folder / "model.safetensors")
    first, second = (read_weights(f"{folders[one]}/model.safetensors") for one in ("seeing", "seen"))
    counters = [one for one in first if first[one].dtype == torch.int64]
    assert counters
    for one in counters:
        assert torch.equal(weights[one], first[one])
    for one in (one for one in first if one.endswith(("running_var", "running_mean"))):
        torch.testing.assert_close(weights[one], (first[one] + second[one]) / 2)


def test_a_page_can_say_it(name):
    with pytest.raises(InputError, match=f"no method of merging named '{name}s'; closest: .*'{name}'"):
        make_page({"parents": ["a", "b"], "method": name + "s"})
    assert MERGERS[name].source
    assert MERGERS[name].summary
