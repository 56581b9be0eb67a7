"""Heads on frozen features: against scikit-learn, against learning again without a row, against a loop; then the edges."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from small import COLOURS, square, tiny_model

from monoglot.data.prepare import Preparer
from monoglot.errors import InputError
from monoglot.model import head as module
from monoglot.model.head import FEWEST_ROWS, METHODS, POOLS, STRENGTHS, Head, blocks_of, features, fit_head
from monoglot.nouns import Media, Sample

TONE = (np.sin(np.arange(3000) / 9).astype(np.float32) / 2, 16_000)
BLOCKS = {"image.mean": 5, "memory.mean": 3}


def blobs(rows: int, width: int = 8, classes: int = 3, *, apart: float = 1.5, seed: int = 0):
    """Features around a place for each class, of features of different sizes; labels; groups of about four rows."""
    rng = np.random.default_rng(seed)
    places = rng.normal(size=(classes, width)) * apart
    y = np.arange(rows) % classes
    x = (places[y] + rng.normal(size=(rows, width))) * np.geomspace(0.1, 20, width) + np.linspace(-3, 3, width)
    groups = [f"g{number}" for number in rng.integers(0, max(2, rows // 4), rows)]
    return torch.tensor(x, dtype=torch.float32), [f"class {n}" for n in y], groups


def prepared(x, blocks=None):
    """What fit_head makes of features before it learns: float64[N, F]."""
    blocks = blocks or {"all": x.shape[1]}
    return module._standard(x, *module._statistics(x, blocks), blocks).double()


def numbers(labels):
    return torch.tensor([sorted(set(labels)).index(label) for label in labels])


def singles(rows: int):
    return [torch.tensor([row]) for row in range(rows)]


# --- standardising ----------------------------------------------------------------------------------------------------


def test_blocks_are_standardised_each_for_itself():
    x, labels, _ = blobs(40)
    head = fit_head(x, labels, blocks=BLOCKS)
    z = (x - head.mean) * head.gain
    torch.testing.assert_close(z.mean(0), torch.zeros(8), atol=1e-5, rtol=0)
    by_hand = []
    for part in x.numpy().astype(float).T[:5], x.numpy().astype(float).T[5:]:
        variance = part.var(axis=1)
        by_hand += [1 / math.sqrt(len(part) * (v + variance.mean()) / 2) for v in variance]
    np.testing.assert_allclose(head.gain, by_hand, rtol=1e-5)
    x[:, :5] *= 1000
    torch.testing.assert_close(
        fit_head(x, labels, blocks=BLOCKS).probabilities(x),
        head.probabilities(x / torch.tensor([1000.0] * 5 + [1.0] * 3)),
    )


def test_a_row_without_a_modality_is_like_the_mean_of_those_that_have_it():
    x, labels, _ = blobs(40)
    lacking = x.clone()
    lacking[::4, :5] = 0
    head = fit_head(lacking, labels, blocks=BLOCKS)
    others = torch.tensor([row for row in range(40) if row % 4])
    torch.testing.assert_close(head.mean[:5], lacking[others, :5].mean(0))
    as_mean = lacking.clone()
    as_mean[::4, :5] = head.mean[:5]
    torch.testing.assert_close(head.scores(lacking), head.scores(as_mean))
    assert not torch.allclose(head.scores(lacking)[0], head.scores(x)[0])


# --- nearest class mean -----------------------------------------------------------------------------------------------


def cosine(a, b):
    return sum(p * q for p, q in zip(a, b)) / math.sqrt(sum(p * p for p in a) * sum(q * q for q in b))


def test_nearest_class_mean_is_a_loop():
    x, labels, groups = blobs(24)
    head = fit_head(x, labels, methods=METHODS[:1])
    z = prepared(x).tolist()

    def means(rows):
        members = {name: [z[row] for row in rows if labels[row] == name] for name in head.classes}
        return [[sum(column) / len(column) for column in zip(*members[name])] for name in head.classes]

    expected = [[cosine(row, mean) for mean in means(range(24))] for row in z]
    torch.testing.assert_close(head.scores(x), torch.tensor(expected), atol=2e-3, rtol=0)  # weights are float16

    for members in (singles(24), module._members(groups)):
        found = module._nearest_mean(prepared(x), numbers(labels), 3, members)
        for rows in members:
            rest = means([row for row in range(24) if row not in rows.tolist()])
            for row in rows.tolist():
                assert found.left_out[row].tolist() == pytest.approx([cosine(z[row], mean) for mean in rest])


# --- ridge ------------------------------------------------------------------------------------------------------------


def balanced(y):
    count = np.bincount(y)
    return len(y) / (len(count) * count[y])


@pytest.mark.parametrize(("rows", "width"), [(30, 8), (12, 40)], ids=["more rows", "more features"])
def test_ridge_is_that_of_scikit_learn(rows, width):
    x, labels, _ = blobs(rows, width)
    x, labels = x[: rows - 2], labels[: rows - 2]  # classes of different sizes
    z, y = prepared(x), numbers(labels)
    for found, strength in zip(module._ridges(z, y, 3, singles(len(y))), STRENGTHS):
        oracle = Ridge(alpha=strength * len(y)).fit(z.numpy(), np.eye(3)[y], sample_weight=balanced(y.numpy()))
        weights, bias = found.fit()
        np.testing.assert_allclose(weights, oracle.coef_, atol=1e-8)
        np.testing.assert_allclose(bias, oracle.intercept_, atol=1e-8)
        classifier = RidgeClassifier(alpha=strength * len(y), class_weight="balanced").fit(z.numpy(), y)
        assert (z @ weights.T + bias).argmax(1).tolist() == classifier.predict(z.numpy()).tolist()


@pytest.mark.parametrize("grouped", [False, True], ids=["rows", "groups"])
@pytest.mark.parametrize(("rows", "width"), [(30, 8), (16, 40)], ids=["more rows", "more features"])
def test_left_out_rows_are_as_if_learned_without_them(rows, width, grouped):
    x, labels, groups = blobs(rows, width)
    z, y = prepared(x), numbers(labels)
    members = module._members(groups) if grouped else singles(rows)
    weights = balanced(y.numpy())
    for found, strength in zip(module._ridges(z, y, 3, members), STRENGTHS):
        for out in members:
            kept = np.setdiff1d(np.arange(rows), out)
            again = Ridge(alpha=strength * rows).fit(z.numpy()[kept], np.eye(3)[y[kept]], sample_weight=weights[kept])
            np.testing.assert_allclose(found.left_out[out], again.predict(z.numpy()[out.numpy()]), atol=1e-7)


def test_groups_of_one_row_are_rows():
    x, labels, _ = blobs(20)
    alone = fit_head(x, labels)
    named = fit_head(x, labels, groups=[str(row) for row in range(20)])
    assert (alone.why, alone.temperature) == (named.why, named.temperature)
    assert fit_head(x, labels, groups=["one"] * 20).why == alone.why


# --- choice, temperature ----------------------------------------------------------------------------------------------


def share(head):
    """Per cent of left-out rows that are right."""
    return float(head.why.split("%")[0].split(": ")[1])


def test_ridge_is_chosen_where_means_say_nothing():
    rng = np.random.default_rng(0)
    shared, telling = rng.normal(size=(2, 12))
    y = np.arange(60) % 2
    x = 5 * rng.normal(size=(60, 1)) * shared + 0.3 * y[:, None] * telling + 0.05 * rng.normal(size=(60, 12))
    x, labels = torch.tensor(x, dtype=torch.float32), [str(number) for number in y]
    head = fit_head(x, labels)
    assert head.kind == "ridge"
    assert head.why.startswith("ridge, penalty ")
    assert share(head) > 90
    assert share(fit_head(x, labels, methods=METHODS[:1])) < 70


def test_groups_show_what_copies_hide():
    rng = np.random.default_rng(0)
    centre = rng.normal(size=(12, 30))  # noise that copies of a row share
    x = torch.tensor(np.repeat(centre, 4, axis=0) + 0.01 * rng.normal(size=(48, 30)), dtype=torch.float32)
    labels, groups = [f"{row // 4 % 3}" for row in range(48)], [f"{row // 4}" for row in range(48)]
    assert "100.0% of 48 rows right when their row" in fit_head(x, labels).why
    head = fit_head(x, labels, groups=groups)
    assert head.why.endswith("rows right when their group is left out")
    assert share(head) < 70


def test_the_temperature_is_the_likeliest():
    rng = np.random.default_rng(0)
    truth = torch.tensor(rng.integers(0, 4, 3000))
    logits = torch.tensor(rng.normal(size=(3000, 4))) + 2 * torch.eye(4)[truth]
    true = torch.tensor([rng.choice(4, p=row) for row in logits.softmax(1).numpy()])
    left = torch.ones(3000, 4, dtype=torch.bool)
    assert module._temperature(0.05 * logits, left, true) == pytest.approx(0.05, rel=0.1)
    # As scikit-learn finds it: one weight for scores that say "class 1 and not class 0".
    scores, y = logits[:, :2], (true[:200] % 2).long()
    step = (scores[:, 1] - scores[:, 0])[:200, None].numpy()
    slope = LogisticRegression(C=1e9, fit_intercept=False).fit(np.vstack([step, step]), [*y, *y]).coef_[0, 0]
    found = module._temperature(scores[:200], left[:200, :2], y)
    assert found == pytest.approx(min(1 / max(slope, 0.1), 10), rel=0.1)


def test_confidence_is_bounded_by_what_rows_can_prove():
    x, labels, _ = blobs(30, apart=50)
    head = fit_head(x, labels)
    assert "100.0%" in head.why
    mean = head.probabilities(x).amax(1).mean()
    assert 0.85 < mean < 0.99  # 31 / 33


def test_few_rows_have_the_stated_temperature():
    x, labels, _ = blobs(FEWEST_ROWS - 1)
    head = fit_head(x, labels)
    assert head.kind == "nearest class mean"
    assert head.temperature == module.DEFAULT_TEMPERATURE


# --- invariance, storing ----------------------------------------------------------------------------------------------


def test_the_order_of_rows_does_not_matter():
    x, labels, groups = blobs(40)
    order = np.random.default_rng(1).permutation(40)
    head = fit_head(x, labels, groups=groups)
    other = fit_head(x[order], [labels[i] for i in order], groups=[groups[i] for i in order])
    assert other.why == head.why
    torch.testing.assert_close(other.probabilities(x), head.probabilities(x), atol=2e-3, rtol=0)


@pytest.mark.parametrize("method", METHODS)
def test_storing_changes_no_answer(method):
    x, labels, _ = blobs(40, apart=0.5)
    x[:3, :5] = 0
    head = fit_head(x, labels, classes=["class 0", "never", "class 1", "class 2"], blocks=BLOCKS, methods=(method,))
    tensors, settings = head.state()
    assert tensors["weights"].dtype == tensors["bias"].dtype == torch.float16
    again = Head.from_state(tensors, json.loads(json.dumps(settings)))
    assert again.kind == method
    torch.testing.assert_close(again.probabilities(x), head.probabilities(x), atol=0, rtol=0)
    with pytest.raises(ValueError, match=r"weights of a head is \[4, 7\], expected \[4, 8\]"):
        Head.from_state(tensors | {"weights": tensors["weights"][:, :7]}, settings)
    with pytest.raises(ValueError, match="a head without 'bias'"):
        Head.from_state({name: tensor for name, tensor in tensors.items() if name != "bias"}, settings)


def test_size():
    x, labels = torch.randn(301, 8000), [str(row % 300) for row in range(301)]
    tensors, _ = fit_head(x, labels).state()
    assert sum(tensor.nbytes for tensor in tensors.values()) < module.MAX_BYTES
    with pytest.raises(
        InputError, match=r"300 answers of 9000 features take 5\.5 MB, more than 5; use the method 'lora'"
    ):
        fit_head(torch.randn(300, 9000), [str(row) for row in range(300)])


# --- edges ------------------------------------------------------------------------------------------------------------


def test_one_row_a_class():
    x, labels, _ = blobs(3, apart=20)
    head = fit_head(x, labels)
    assert head.kind == "nearest class mean"
    assert head.why == "nearest class mean: no class has rows left when one is left out"
    assert [head.classes[n] for n in head.scores(x).argmax(1)] == labels
    p = head.probabilities(x[:1])
    assert p.shape == (1, 3)
    assert head.probabilities(x[:0]).shape == (0, 3)
    torch.testing.assert_close(p.sum(1), torch.ones(1))


def test_a_class_of_one_row_is_not_counted_but_learned():
    x, labels, _ = blobs(31, apart=20)
    labels[30] = "alone"
    x[30] = -100 * x[30]
    head = fit_head(x, labels)
    assert "of 30 rows" in head.why
    assert head.classes[int(head.scores(x)[30].argmax())] == "alone"


def test_a_class_without_rows_is_never_answered():
    x, labels, _ = blobs(30)
    head = fit_head(x, labels, classes=["never", *sorted(set(labels))])
    p = head.probabilities(x)
    assert p[:, 0].max() == 0
    torch.testing.assert_close(p[:, 1:], fit_head(x, labels).probabilities(x))


@pytest.mark.parametrize("method", METHODS)
def test_features_that_say_nothing(method):
    x, labels, _ = blobs(30, width=4)
    x[:, 2] = 7.1
    head = fit_head(x, labels, methods=(method,))
    noisy = x.clone()
    noisy[:, 2] += 1e-5 * torch.randn(30)
    torch.testing.assert_close(head.probabilities(noisy), head.probabilities(x), atol=1e-4, rtol=0)
    assert fit_head(noisy, labels, methods=(method,)).why == head.why
    same = fit_head(torch.ones(30, 4), labels, methods=(method,))
    assert same.probabilities(x).isfinite().all()
    torch.testing.assert_close(same.probabilities(torch.ones(1, 4)), torch.full((1, 3), 1 / 3))


def test_rows_given_twice():
    x, labels, _ = blobs(15, width=40)
    head = fit_head(torch.cat([x, x, x]), labels * 3)
    assert "100.0% of 45" in head.why  # as they are: copies find each other; give groups
    assert head.probabilities(x).isfinite().all()


def test_large_and_small_features():
    x, labels, _ = blobs(30)
    for factor in (1e-4, 1e4):
        head = fit_head(x * factor, labels)
        assert all(t.isfinite().all() for t in head.state()[0].values())
        assert head.why == fit_head(x, labels).why


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ["a"] * 6}, "rows of 1 class; a head needs at least two"),
        ({"labels": ["a", "b"]}, r"features are \[6, 8\] for 2 labels"),
        ({"classes": ["a"]}, "label 'b' is none of the classes"),
        ({"classes": ["a", "b", "a"]}, "'a' is twice among the classes"),
        ({"groups": ["g", "h"]}, "2 groups for 6 rows"),
        ({"blocks": {"x": 3}}, "blocks of 3 features in all, but rows have 8"),
        ({"methods": ["rigde"]}, r"methods are \['rigde'\], expected some of"),
    ],
)
def test_wrong_arguments(change, message):
    given = {"labels": ["a", "b"] * 3} | change
    with pytest.raises(ValueError, match=message):
        fit_head(blobs(6)[0], given.pop("labels"), **given)


def test_values_that_are_not_numbers():
    x, labels, _ = blobs(6)
    head = fit_head(x, labels)
    x[4, 2] = torch.nan
    with pytest.raises(ValueError, match="features of row 4 hold values that are not numbers"):
        fit_head(x, labels)
    with pytest.raises(ValueError, match="features of row 4 hold values that are not numbers"):
        head.scores(x)
    with pytest.raises(ValueError, match=r"features are \[6, 7\], expected \[rows, 8\]"):
        head.scores(x[:, :7])


# --- features ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["added", "untied"])
def model(request):
    return tiny_model(request.param)


def sample(name="1", media=(), text="what?"):
    return Sample(name, "vqa", tuple(media), text)


RED, BLUE, SOUND = Media("image", square(COLOURS["red"])), Media("image", square(COLOURS["blue"])), Media("audio", TONE)
MIXED = [
    sample("a", [RED]),
    sample("b", [SOUND, RED, BLUE], "what is the red?"),
    sample("c", [SOUND]),
    Sample("d", "summarize", (), "the red"),
]


def test_features_are_those_of_the_parts(model, tokenizer):
    preparer = Preparer(tokenizer, model.config)
    blocks = blocks_of(model, MIXED, tuple(POOLS)) | {"memory.max": 32}
    assert blocks == {f"{name}.{pool}": 5 for name in ("image", "audio") for pool in POOLS} | {
        "memory.mean": 32,
        "memory.max": 32,
    }
    x, read = features(model, preparer, MIXED, blocks=blocks, batch_size=3)
    assert read == [0, 1, 2, 3]
    assert x.dtype == torch.float32
    pooled = {"mean": np.mean, "std": np.std, "max": np.max}
    for row, one in zip(x, MIXED):
        batch = preparer.collate([preparer.example(one, with_target=False)])
        with torch.no_grad():
            encoded = model.encode_media(batch.media)
            tokens = {name: np.concatenate([np.asarray(item) for item in items]) for name, items in encoded.items()}
            tokens["memory"] = model.encode(batch, encoded).states[0].numpy()
        for (name, width), part in zip(blocks.items(), row.split(list(blocks.values()))):
            kind, pool = name.split(".")
            expected = pooled[pool](tokens[kind], axis=0) if kind in tokens else np.zeros(width)
            np.testing.assert_allclose(part, expected, atol=1e-5)


def test_the_unified_encoder_joins_where_encoders_do_not_say_all(model):
    assert blocks_of(model, [sample(media=[RED]), sample(media=[BLUE])]) == {"image.mean": 5}
    assert blocks_of(model, [sample(media=[RED]), sample(media=[SOUND])]) == {"image.mean": 5, "audio.mean": 5}
    assert blocks_of(model, [sample(media=[RED]), sample(media=[RED], text="why?")]) == {
        "image.mean": 5,
        "memory.mean": 32,
    }
    assert blocks_of(model, [sample(media=[RED, BLUE])]) == {"image.mean": 5, "memory.mean": 32}
    assert blocks_of(model, [sample()]) == {"memory.mean": 32}


def test_batches_do_not_matter(model, tokenizer):
    preparer = Preparer(tokenizer, model.config)
    together, _ = features(model, preparer, MIXED * 5)
    alone, _ = features(model, preparer, MIXED, batch_size=1)
    torch.testing.assert_close(together, alone.repeat(5, 1), atol=1e-5, rtol=1e-5)


def test_the_answer_is_not_read(model, tokenizer):
    preparer = Preparer(tokenizer, model.config)
    told = Sample("1", "vqa", (RED,), "what?", targets=("red",))
    assert torch.equal(features(model, preparer, [told])[0], features(model, preparer, [sample(media=[RED])])[0])


def test_rows_that_cannot_be_read_are_left_out_and_told(model, tokenizer):
    preparer, told = Preparer(tokenizer, model.config), []
    rows = [MIXED[0], sample(media=[Media("image", "nowhere.png")]), Sample("3", "vqa", (), ""), MIXED[0]]
    x, read = features(model, preparer, rows, on_error=lambda row, error: told.append((row, str(error))))
    assert read == [0, 3]
    assert x.shape == (2, 37)  # a picture, and the unified encoder
    assert [row for row, _ in told] == [1, 2]
    assert "nowhere.png" in told[0][1]
    none, read = features(model, preparer, rows[1:3], blocks=blocks_of(model, rows))
    assert (none.shape, read) == ((0, 37), [])


def test_encoders_run_once_for_an_item_and_nothing_else_changes(tokenizer):
    model = tiny_model()
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x, _ = features(model, Preparer(tokenizer, model.config), [sample(media=[RED])] * 5, batch_size=2)
    assert model.encoders["image"].calls == 3
    assert not x.requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(x[0], x[4])  # no dropout


def test_a_head_learns_colours(tokenizer):
    """From pictures to answers: three of each colour, asked about others, seen by a network that has learned nothing."""
    model = tiny_model(encoders=True, modalities={"image": {"size": 64}})
    preparer = Preparer(tokenizer, model.config)
    rng = np.random.default_rng(0)

    def rows(count):
        names = [list(COLOURS)[row % 4] for row in range(count)]
        noise = rng.integers(0, 30, (count, 40, 40, 3))
        return [
            sample(media=[Media("image", (n + np.array(COLOURS[name])).astype(np.uint8))])
            for n, name in zip(noise, names)
        ], names

    samples, labels = rows(12)
    blocks = blocks_of(model, samples)
    head = fit_head(features(model, preparer, samples)[0], labels, blocks=blocks)
    others, expected = rows(20)
    answered = head.probabilities(features(model, preparer, others, blocks=head.blocks)[0]).argmax(1)
    right = np.mean([head.classes[n] == label for n, label in zip(answered, expected)])
    assert right > 0.9
