"""Connectors that begin fitted, against scikit-learn's discriminants and by what they are for."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from small import tiny_model, tiny_tokenizer

from monoglot.data.prepare import Preparer
from monoglot.data.rowfile import RowFile
from monoglot.errors import InputError
from monoglot.modalities.audio import AudioConfig
from monoglot.modalities.base import Grid
from monoglot.modalities.image import ImageConfig
from monoglot.model.place import WordConnector
from monoglot.train.connectors import begin_connectors, mixture_of_words, share_of_cells, toward_words, word_means
from monoglot.train.loop import train
from monoglot.train.start import start_model

CLASSES, CHANNELS, WIDTH = 6, 20, 8


@pytest.fixture
def hands():
    """Six things drawn by many hands: what a hand does to a drawing is much larger than what tells things apart."""
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(CLASSES).repeat(40)
    noise = torch.randn(len(labels), CHANNELS, generator=g) @ torch.diag(torch.linspace(1, 9, CHANNELS))
    means = 2 * torch.randn(CLASSES, CHANNELS, generator=g)
    words = torch.randn(CLASSES, WIDTH, generator=g)
    return (means[labels] + noise).double(), labels, words.double(), means.double()


def test_nearest_class_is_the_linear_discriminants(hands):
    x, labels, words, _ = hands
    weight, bias = toward_words(x, labels, words, width=WIDTH)
    z = x @ weight.T + bias
    means = torch.stack([z[labels == k].mean(0) for k in range(CLASSES)])
    ours = torch.cdist(z, means).argmin(1)
    theirs = LinearDiscriminantAnalysis(solver="lsqr").fit(x.numpy(), labels.numpy()).predict(x.numpy())
    assert (ours == torch.from_numpy(theirs)).double().mean() > 0.97
    raw = torch.cdist(x, torch.stack([x[labels == k].mean(0) for k in range(CLASSES)])).argmin(1)
    assert (ours == labels).double().mean() > (raw == labels).double().mean() + 0.1


def test_rows_of_a_class_scatter_alike_in_all_directions(hands):
    x, labels, words, _ = hands
    weight, bias = toward_words(x, labels, words, width=WIDTH)
    z = x @ weight.T + bias
    means = torch.stack([z[labels == k].mean(0) for k in range(CLASSES)])
    assert means.mean(0).norm() < 1e-6 * means.norm()
    spread = torch.linalg.eigvalsh((z - means[labels]).T @ (z - means[labels]) / len(z))[-(CLASSES - 1) :]
    assert spread.max() / spread.min() < 1.1


def test_no_turn_of_the_axes_brings_it_nearer_to_the_words(hands):
    x, labels, words, _ = hands
    weight, bias = toward_words(x, labels, words, width=WIDTH)
    means = torch.stack([(x @ weight.T + bias)[labels == k].mean(0) for k in range(CLASSES)])
    target = words - words.mean(0)
    found = (means * target).sum()
    for seed in range(20):
        turn = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(seed)).double()).Q
        assert ((means @ turn) * target).sum() <= found + 1e-9


def test_a_mixture_is_as_sure_as_the_linear_discriminants():
    """With rows enough, what new ones foretell is what theory says: probabilities are those of scikit-learn, words are mixed by them."""
    g = torch.Generator().manual_seed(0)
    means, words = (
        1.5 * torch.randn(CLASSES, 4, generator=g).double(),
        torch.randn(CLASSES, WIDTH, generator=g).double(),
    )
    labels = torch.arange(CLASSES).repeat(500)
    x = means[labels] + torch.randn(len(labels), 4, generator=g) @ torch.diag(torch.tensor([0.5, 1.0, 1.5, 2.0]))
    mixture = WordConnector(4, WIDTH, CLASSES).double()
    mixture.load_state_dict(mixture_of_words(x.double(), labels, words, width=WIDTH))
    ours = mixture.scores(mixture.axes(x.double())).softmax(1)
    theirs = torch.from_numpy(LinearDiscriminantAnalysis().fit(x.numpy(), labels.numpy()).predict_proba(x.numpy()))
    assert 0.3 < theirs.max(1).values.mean() < 0.9, "otherwise being sure is no art"
    assert (ours - theirs).abs().max() < 0.02
    torch.testing.assert_close(mixture(x.double()), ours @ words)


def test_a_sharper_mixture_is_that_of_the_same_answer_several_times(hands):
    """Sharpness 3 is three independent looks that all say the same: probabilities to the third power, brought to sum 1."""
    x, labels, words, _ = hands
    few = torch.arange(len(x)) < 5 * CLASSES
    state = mixture_of_words(x[few], labels[few], words, width=WIDTH)
    plain, sharp = (WordConnector(CHANNELS, WIDTH, CLASSES, sharpness).double() for sharpness in (1.0, 3.0))
    for connector in (plain, sharp):
        connector.load_state_dict(state)
    likely = plain.scores(plain.axes(x[~few])).softmax(1)
    cubes = likely**3 / (likely**3).sum(1, keepdim=True)
    assert cubes.max(1).values.mean() > likely.max(1).values.mean() + 0.1
    torch.testing.assert_close(sharp(x[~few]), cubes @ words)


@pytest.mark.parametrize("settings", [ImageConfig, AudioConfig])
def test_sharpness_needs_a_mixture(settings):
    assert settings(pooled="first", pooled_words=3, pooled_sharpness=2.0).pooled_sharpness == 2.0
    with pytest.raises(ValueError, match="pooled_sharpness: needs `pooled_words`"):
        settings(pooled="first", pooled_sharpness=2.0)
    with pytest.raises(ValueError, match="greater than 0"):
        settings(pooled="first", pooled_words=3, pooled_sharpness=0)


def test_a_mixture_of_few_rows_is_less_sure(hands):
    """Thirty rows in twenty channels lie close to their own means, new ones do not: nobody may be as sure as theory says."""
    x, labels, words, _ = hands
    few = torch.arange(len(x)) < 5 * CLASSES
    mixture = WordConnector(CHANNELS, WIDTH, CLASSES).double()
    mixture.load_state_dict(mixture_of_words(x[few], labels[few], words, width=WIDTH))
    scores = mixture.scores(mixture.axes(x[~few]))
    theory = -torch.cdist(mixture.axes(x[~few]), _means(mixture.axes(x[few]), labels[few])).square() / 2
    assert F.cross_entropy(scores, labels[~few]) < 0.8 * F.cross_entropy(theory, labels[~few])


def _means(z, labels):
    return torch.stack([z[labels == k].mean(0) for k in range(CLASSES)])


def test_a_box_counts_the_cells_under_it():
    grid = Grid(1, 2, 4)
    assert share_of_cells(None, grid).tolist() == [1 / 8] * 8
    assert share_of_cells((0.25, 0.5, 0.75, 1.0), grid).tolist() == [0, 0, 0, 0, 0, 0.5, 0.5, 0]
    torch.testing.assert_close(share_of_cells((0.125, 0, 0.5, 0.5), grid)[:2], torch.tensor([1 / 3, 2 / 3]))
    assert share_of_cells((0.25, 0.5, 0.75, 1.0), Grid(1, 2, 4, kept=(0, 5))).tolist() == [0, 1]


FIT = [{"modality": "image", "data": [{"data": "name.jsonl"}, {"data": "grounding.jsonl"}]}]


def test_a_run_begins_with_it(recipe, tmp_path):
    fitted = recipe(connectors=FIT)
    plain, tokenizer, _ = start_model(fitted)
    model, _, _ = start_model(fitted)
    begin_connectors(fitted, model, tokenizer, quiet=True)
    changed = {n for n, t in model.state_dict().items() if not torch.equal(t, plain.state_dict()[n])}
    assert changed == {"source.connectors.image.weight", "source.connectors.image.bias"}
    preparer = Preparer(tokenizer, model.config)
    rows = RowFile(tmp_path / "name.jsonl")
    samples = [rows[k] for k in range(len(rows))]
    batch = preparer.collate([preparer.example(sample, with_target=False) for sample in samples])
    tokens = model.encode_media(batch.media)["image"]
    z = torch.stack([model.source.connectors["image"](item).mean(0) for item in tokens])
    names = sorted({sample.targets[0] for sample in samples})
    words = word_means(model, tokenizer, names)
    near = F.cosine_similarity(z[:, None], (words - words.mean(0))[None], dim=2).argmax(1)
    assert [names[k] for k in near.tolist()] == [sample.targets[0] for sample in samples]
    assert (train(fitted, tmp_path / "run", quiet=True) / "model.safetensors").is_file()


@pytest.mark.parametrize("how", ["first", "alone"])
def test_the_pooled_token_has_its_own(recipe, how):
    """Of rows with boxes it learns nothing, and the connector of cells stays as it is, which is fitted to the cells of all even where none is read yet."""
    images = {"image": {"size": 64, "pooled": how}}
    after, before = (tiny_model(encoders=True, modalities=images) for _ in range(2))
    tokenizer = tiny_tokenizer()
    fitted = recipe(connectors=[FIT[0] | {"pooled": True, "data": FIT[0]["data"][:1]}])
    begin_connectors(fitted, after, tokenizer, quiet=True)
    changed = {n for n, t in after.state_dict().items() if not torch.equal(t, before.state_dict()[n])}
    assert changed == {"source.pooled.image.weight", "source.pooled.image.bias"}
    boxes = FIT[0]["data"][1:]
    if how == "alone":
        with pytest.raises(InputError, match="no row has image and an answer"):
            begin_connectors(
                recipe(connectors=[FIT[0] | {"pooled": True, "data": boxes}]), after, tokenizer, quiet=True
            )
    plain = tiny_model(encoders=True, modalities={"image": {"size": 64}})
    plain.load_state_dict(after.state_dict(), strict=False)
    cells = recipe(connectors=[FIT[0] | {"data": boxes}], feature_cache={"gigabytes": 0})
    for model in (after, plain):
        begin_connectors(cells, model, tokenizer, quiet=True)
    same = zip(after.source.connectors["image"].parameters(), plain.source.connectors["image"].parameters())
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in same)


def test_a_pooled_token_says_words(recipe, tmp_path):
    """A picture that it was fitted to becomes the words of its answer; another number of answers is told, with the right one."""
    rows = RowFile(tmp_path / "name.jsonl")
    samples = [rows[k] for k in range(len(rows))]
    names = sorted({sample.targets[0] for sample in samples})
    tokenizer = tiny_tokenizer()
    fitted = recipe(connectors=[FIT[0] | {"pooled": True, "data": FIT[0]["data"][:1]}])
    for count in (len(names), len(names) + 1):
        images = {"image": {"size": 64, "pooled": "alone", "pooled_words": count}}
        model = tiny_model(encoders=True, modalities=images)
        if count != len(names):
            with pytest.raises(
                InputError, match=rf"have {len(names)} answers, .* give it `pooled_words: {len(names)}`"
            ):
                begin_connectors(fitted, model, tokenizer, quiet=True)
            continue
        begin_connectors(fitted, model, tokenizer, quiet=True)
        preparer = Preparer(tokenizer, model.config)
        batch = preparer.collate([preparer.example(sample, with_target=False) for sample in samples])
        said = model.source.pooled["image"](torch.cat(model.encode_media(batch.media)["image"]))
        words = word_means(model, tokenizer, names)
        near = torch.cdist(said, words).argmin(1)
        assert [names[k] for k in near.tolist()] == [sample.targets[0] for sample in samples]


def test_a_connector_that_is_not_there_is_told_before_anything_is_encoded(recipe):
    page = recipe(connectors=[FIT[0] | {"pooled": True, "data": [{"data": "not-there.jsonl"}]}])
    model, tokenizer, _ = start_model(page)
    with pytest.raises(InputError, match="no pooled token of image; give the modality `pooled: first`"):
        begin_connectors(page, model, tokenizer, quiet=True)


def test_one_answer_fits_nothing(recipe, tmp_path):
    lines = [json.loads(line) | {"target": "red"} for line in (tmp_path / "name.jsonl").read_text().splitlines()]
    (tmp_path / "red.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = recipe(connectors=[{"modality": "image", "data": [{"data": "red.jsonl"}]}])
    model, tokenizer, _ = start_model(page)
    with pytest.raises(InputError) as error:
        begin_connectors(page, model, tokenizer, quiet=True)
    assert str(error.value) == "recipe: connectors: all rows have the answer 'red'; give rows with several answers"
    page = recipe(connectors=[{"modality": "audio", "data": [{"data": "red.jsonl"}]}])
    with pytest.raises(InputError, match=r"^recipe: connectors: this model has no audio; it has image"):
        begin_connectors(page, model, tokenizer, quiet=True)
