"""Dedicated models: what somebody would train on the same rows in place of adapting this one.

    rows -> Encoded (read and encoded once) -> Rival.fit(shots) -> Answerer (answers rows; what it cost)

    majority     the most common answer            lead         the first sentence of the text
    middle-box   the mean box                      tfidf        words and their parts -> logistic regression
    probe        frozen encoder, mean over its places -> logistic regression
    finetune     the same, then the encoder's last blocks learn together with it

Pictures, and each frame of a clip, are seen by EfficientNet-Lite0 (ImageNet); sounds are heard by Whisper tiny.en's encoder.
A rival never sees the test rows' answers, and it is kept whole: its encoder counts among its megabytes.

Letters: N rows, C channels, K answers, n items that run together.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monoglot.adapt.rows import CLOSED_TASKS, groups
from monoglot.errors import InputError
from monoglot.evaluate import baselines
from monoglot.interop.ctranslate2 import read_ctranslate2
from monoglot.interop.parts import fetch_part
from monoglot.modalities import MODALITIES
from monoglot.modalities.audio import AudioConfig, WhisperEncoder, load_whisper_encoder
from monoglot.modalities.base import run_by_shape
from monoglot.modalities.image import FINE_BLOCK, ImageConfig, Lite0Trunk, load_lite0
from monoglot.modalities.video import VideoConfig
from monoglot.nouns import Prediction, Sample
from monoglot.registry import Registry
from monoglot.rng import stream

SIZE = 224
"""Side of a picture, pixels: what Lite0 was trained with (github.com/tensorflow/tpu, efficientnet/lite)."""
ENOUGH = 5
"""Rows of a class from which settings are chosen by cross-validation."""
FOLDS = 5
STRENGTHS = tuple(10.0**power for power in range(-4, 2))
"""Values of C that are tried; without enough rows it is 1, scikit-learn's."""
EPOCHS, PATIENCE, BATCH, RATE = 20, 3, 16, 3e-5
"""Of fine-tuning: at most so many epochs, so many without gain, rows a step, learning rate of AdamW."""
FEW_EPOCHS = 5
"""Of fine-tuning with too few rows to hold some out."""
HALF = 2
"""Bytes of a stored weight: float16, as adapters are stored."""
KEPT_BYTES = 1_500_000_000
"""Maps of frozen encoders that are held in memory; rows beyond are read again each time."""


@dataclass(frozen=True)
class Answerer:
    """Something trained that answers rows, and what it cost."""

    answer: Callable[[Sequence[Sample], bool], list[Prediction]]
    """(rows, fresh): `fresh` reads and encodes them anew, as in use, so that it can be timed."""
    seconds: float
    """To train, reading and encoding its rows included."""
    megabytes: float
    """To keep."""
    why: str = ""
    """What was chosen for it."""


@dataclass(frozen=True)
class Rival:
    """One kind of dedicated model."""

    label: Callable[[Sequence[Sample]], str]
    """Its name in tables, for these rows."""
    fits: Callable[[Sequence[Sample]], bool]
    """Whether it makes sense for these rows."""
    automatic: Callable[[Sequence[Sample]], bool]
    """Whether it is among the rivals when none are named."""
    fit: Callable[[Sequence[Sample], Encoded, int, float], Answerer]
    """(shots, encoded, seed, minutes) -> what is trained on the shots alone."""


RIVALS: Registry[Rival] = Registry("rival")


def choose(names: Sequence[str], samples: Sequence[Sample]) -> list[str]:
    """Names of rivals for these rows: `auto` stands for those that make sense; a plain answer is always among them.

    Raises:
        InputError: a name is unknown, does not fit the rows, or needs scikit-learn where there is none.
    """
    chosen = [name for name, rival in RIVALS.items() if rival.automatic(samples) and (name in PLAIN or "auto" in names)]
    for name in names:
        if name in ("auto", "none"):
            continue
        if not RIVALS[name].fits(samples):
            media = " and ".join(modalities(samples)) or "text"
            fix = f"these do: {', '.join(n for n, rival in RIVALS.items() if rival.fits(samples)) or 'none'}"
            wrong = f"{name!r} does not answer {samples[0].task!r} about {media}"
            raise InputError.at("command line", "--rivals", wrong, fix)
        if name not in chosen:
            chosen.append(name)
    if set(chosen) - set(PLAIN) and find_spec("sklearn") is None:
        raise InputError(
            'dedicated rivals need scikit-learn; run: pip install "monoglot[fewshot]", or say --rivals none'
        )
    return chosen


def modalities(samples: Sequence[Sample]) -> list[str]:
    """Of all media in the rows, in order of appearance."""
    return list(dict.fromkeys(media.modality for sample in samples for media in sample.media))


# --- encoders that others made ----------------------------------------------------------------------------------------


class Backbone(nn.Module):
    """A pretrained encoder in two parts: `first` always stays as it is, `last` may learn."""

    name: str
    modality: str
    config: Any
    tail: nn.Module
    """What `last` runs."""

    def first(self, items: Tensor) -> Tensor:
        """Prepared items of one shape, [n, ...] -> maps [n, ...]."""
        raise NotImplementedError

    def last(self, maps: Tensor) -> Tensor:
        """Maps [n, ...] -> the mean over their places, float[n, C]."""
        raise NotImplementedError


class Eye(Backbone):
    """EfficientNet-Lite0 on a picture, uint8[n, 3, S, S], or on each frame of a clip, uint8[n, frames, 3, S, S]."""

    name = "EfficientNet-Lite0"

    def __init__(self, modality: str, trunk: Lite0Trunk):
        super().__init__()
        self.modality = modality
        self.config = ImageConfig(size=SIZE) if modality == "image" else VideoConfig.model_validate({"size": SIZE})
        self.trunk = trunk
        self.tail = nn.Sequential(*trunk.blocks[FINE_BLOCK + 1 :], trunk.head)

    def first(self, items: Tensor) -> Tensor:
        """-> float[n, (frames,) 112, S/16, S/16]"""
        x = self.trunk.stem((items.flatten(0, -4).float() - 127) / 128)
        for block in self.trunk.blocks[: FINE_BLOCK + 1]:
            x = block(x)
        return x.unflatten(0, items.shape[:-3])

    def last(self, maps: Tensor) -> Tensor:
        seen = self.tail(maps.flatten(0, -4)).mean((2, 3)).unflatten(0, maps.shape[:-3])
        return seen.flatten(1, -2).mean(1) if seen.dim() > 2 else seen


class Ear(Backbone):
    """Whisper tiny.en's encoder with its last LayerNorm, on sounds float[n, samples]; its last layer may learn."""

    name = "Whisper tiny.en"
    modality = "audio"

    def __init__(self, encoder: WhisperEncoder, norm: nn.LayerNorm):
        super().__init__()
        self.config = AudioConfig()
        self.tail = nn.Sequential(encoder.layers[-1], norm)
        encoder.layers = encoder.layers[:-1]
        self.front = encoder

    def first(self, items: Tensor) -> Tensor:
        """-> float[n, places, 384]"""
        return torch.stack(self.front(list(items)))

    def last(self, maps: Tensor) -> Tensor:
        return self.tail(maps).mean(1)


def backbone(modality: str) -> Backbone:
    """The pretrained encoder of a modality. Raises InputError when its part cannot be had, or there is none."""
    from monoglot.interop.parts import MissingPart

    try:
        if modality in ("image", "video"):
            trunk = Lite0Trunk()
            load_lite0(trunk, torch.load(fetch_part("lite0").files["model.pth"], weights_only=True))
            return Eye(modality, trunk).eval().requires_grad_(False)
        if modality == "audio":
            arrays = read_ctranslate2(fetch_part("whisper-tiny-en").files["model.bin"])
            ear, norm = WhisperEncoder(AudioConfig()), nn.LayerNorm(384)
            load_whisper_encoder(ear, arrays)
            for name, field in (("weight", "gamma"), ("bias", "beta")):
                tensor = torch.from_numpy(np.asarray(arrays[f"encoder/layer_norm/{field}"], np.float32))
                getattr(norm, name).data.copy_(tensor)
            return Ear(ear, norm).eval().requires_grad_(False)
    except MissingPart as missing:
        raise InputError(f"{missing}; say --rivals none to go on without dedicated models") from None
    raise InputError.at("command line", "--rivals", f"no dedicated encoder reads {modality!r}", "say --rivals none")


class Encoded:
    """What the frozen encoders say about rows; those that are kept are read and encoded once.

    Args:
        make: gives the encoder of a modality.
    """

    def __init__(self, make: Callable[[str], Backbone] = backbone):
        self._make, self._backbones = make, dict[str, Backbone]()
        self._kept: dict[Hashable, tuple[dict[str, list[Tensor]], dict[str, np.ndarray], float]] = {}
        self._bytes = 0

    def backbone(self, modality: str) -> Backbone:
        if modality not in self._backbones:
            self._backbones[modality] = self._make(modality)
        return self._backbones[modality]

    @torch.no_grad()
    def read(
        self, sample: Sample, *, fresh: bool = False
    ) -> tuple[dict[str, list[Tensor]], dict[str, np.ndarray], float]:
        """(float16 maps by modality, float32[C] means by modality, seconds that it took). Raises InputError."""
        key = (sample.where, sample.id)
        if not fresh and key in self._kept:
            return self._kept[key]
        for modality in modalities([sample]):
            self.backbone(modality)  # loading it counts for no row
        started = time.perf_counter()
        maps, means = dict[str, list[Tensor]](), dict[str, np.ndarray]()
        for media in sample.media:
            eye = self.backbone(media.modality)
            item = MODALITIES[media.modality].prepare(media, eye.config, 0)
            maps.setdefault(media.modality, []).append(eye.first(torch.from_numpy(item)[None])[0].half())
        for modality, found in maps.items():
            pooled = [self.backbone(modality).last(one[None].float())[0] for one in found]
            means[modality] = torch.stack(pooled).mean(0).numpy()
        entry = maps, means, time.perf_counter() - started
        size = sum(one.nbytes for found in maps.values() for one in found)
        if not fresh and self._bytes + size <= KEPT_BYTES:
            self._kept[key], self._bytes = entry, self._bytes + size
        return entry

    def readable(self, samples: Sequence[Sample]) -> list[Sample]:
        """Without the rows whose media cannot be read."""
        return [sample for sample in samples if not isinstance(self._or_error(sample), InputError)]

    def features(self, samples: Sequence[Sample], wanted: Sequence[str], *, fresh: bool = False) -> np.ndarray:
        """float32[N, C]: means of the wanted modalities side by side, zeros where a row has none. Raises InputError."""
        rows = [self.read(sample, fresh=fresh)[1] for sample in samples]
        widths = {name: next((len(row[name]) for row in rows if name in row), 0) for name in wanted}
        widths = {name: width or self._width(name) for name, width in widths.items()}
        parts = [[row.get(name, np.zeros(width, np.float32)) for name, width in widths.items()] for row in rows]
        return np.array([np.concatenate(part) for part in parts], dtype=np.float32)

    def seconds(self, samples: Sequence[Sample]) -> float:
        """What it took to read and encode the rows."""
        return sum(self.read(sample)[2] for sample in samples)

    def _width(self, modality: str) -> int:
        return next(len(means[modality]) for _, means, _ in self._kept.values() if modality in means)

    def _or_error(self, sample: Sample) -> Any:
        try:
            return self.read(sample)
        except InputError as error:
            return error

    def answers(
        self, samples: Sequence[Sample], fresh: bool, scores: Callable[[list[Sample]], np.ndarray], names: Sequence[str]
    ) -> list[Prediction]:
        """The likeliest answer of each row, among its choices if it has any; an error for a row that cannot be read.

        Args:
            scores: readable rows -> float[N, K] probabilities.
            names: K answers.
        """
        errors = {}
        for index, sample in enumerate(samples):
            try:
                if not fresh:  # a fresh row is read by `scores`
                    self.read(sample)
            except InputError as error:
                errors[index] = str(error)
        good = [sample for index, sample in enumerate(samples) if index not in errors]
        rows = iter(scores(good) if good else ())
        return [
            Prediction(sample.id, sample.task, "", error=errors[index])
            if index in errors
            else _likeliest(sample, next(rows), names)
            for index, sample in enumerate(samples)
        ]


def _likeliest(sample: Sample, probabilities: np.ndarray, names: Sequence[str]) -> Prediction:
    allowed = [index for index, name in enumerate(names) if not sample.choices or name in sample.choices]
    best = max(allowed or range(len(names)), key=lambda index: probabilities[index])
    return Prediction(sample.id, sample.task, names[best], confidence=float(probabilities[best]))


# --- logistic regression ----------------------------------------------------------------------------------------------


def logistic(features: Any, labels: Sequence[str], *, apart: Sequence[Hashable], seed: int, dense: bool = True) -> Any:
    """Logistic regression with balanced class weights as scikit-learn has it, on standardised features if they are dense.

    Its C is the best of STRENGTHS in cross-validation over groups once a class has ENOUGH rows, else 1.

    Args:
        features: float[N, C], or a sparse matrix.
        labels: N answers; with one answer only, that one is always given.
        apart: N group labels; what belongs to one group is never on both sides of a fold.

    Returns:
        A fitted pipeline with `predict_proba` and `classes_`.
    """
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(set(labels)) == 1:
        return make_pipeline(DummyClassifier(strategy="most_frequent")).fit(features, labels)
    learner = LogisticRegression(class_weight="balanced", max_iter=2000)
    model = make_pipeline(StandardScaler(), learner) if dense else make_pipeline(learner)
    folds = _folds(labels, apart)
    if not folds:
        return model.fit(features, labels)
    split = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    search = GridSearchCV(model, {"logisticregression__C": STRENGTHS}, cv=split)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an answer has fewer rows than there are folds
        return search.fit(features, labels, groups=apart).best_estimator_


def _folds(labels: Sequence[str], apart: Sequence[Hashable]) -> int:
    """How many parts rows can be cut into so that at least two answers are in every training part; 0: too few rows."""
    if max(Counter(labels).values()) < ENOUGH:
        return 0
    groups_of = Counter(label for label, _ in set(zip(labels, apart)))
    second = sorted(groups_of.values())[-2]
    return min(FOLDS, second) if second > 1 else 0


def _labels(samples: Sequence[Sample]) -> list[str]:
    return [sample.targets[0] for sample in samples]


def _strength(model: Any) -> str:
    """What was chosen, in words."""
    learner = model[-1]
    return f"C = {learner.C:g}" if hasattr(learner, "C") else "one answer only"


def _stored(arrays: Iterable[np.ndarray]) -> float:
    """Megabytes of these as float16."""
    return HALF * sum(array.size for array in arrays) / 1e6


def _weights(model: Any) -> list[np.ndarray]:
    """The arrays of a fitted pipeline that it answers with."""
    names = ("coef_", "intercept_", "mean_", "scale_", "idf_")
    return [np.asarray(getattr(step, name)) for _, step in model.steps for name in names if hasattr(step, name)]


def _parameters(module: nn.Module) -> float:
    """Megabytes of its weights and statistics as float16."""
    named = {name: tensor for name, tensor in module.state_dict(keep_vars=True).items() if tensor.is_floating_point()}
    return HALF * sum(tensor.numel() for tensor in {id(tensor): tensor for tensor in named.values()}.values()) / 1e6


# --- probe ------------------------------------------------------------------------------------------------------------


def fit_probe(shots: Sequence[Sample], encoded: Encoded, seed: int, minutes: float) -> Answerer:
    """Frozen features, with TF-IDF of the text where it differs from row to row, -> logistic regression."""
    shots = encoded.readable(shots)
    _need(shots)
    wanted = modalities(shots)
    started = time.perf_counter()
    words = _words(shots)

    def features(samples: Sequence[Sample], fresh: bool) -> np.ndarray:
        media = encoded.features(samples, wanted, fresh=fresh)
        if words is None:
            return media
        return np.hstack([media, words.transform([sample.text for sample in samples]).toarray()])

    model = logistic(features(shots, False), _labels(shots), apart=groups(shots), seed=seed)
    seconds = time.perf_counter() - started + encoded.seconds(shots)
    size = sum(_parameters(encoded.backbone(name)) for name in wanted) + _stored(_weights(model))

    def answer(samples: Sequence[Sample], fresh: bool) -> list[Prediction]:
        return encoded.answers(
            samples, fresh, lambda good: model.predict_proba(features(good, fresh)), list(model.classes_)
        )

    return Answerer(answer, seconds, size + _vocabulary(words), _strength(model))


def _words(shots: Sequence[Sample]) -> Any:
    """TF-IDF of the rows' texts; None if all have the same."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [sample.text for sample in shots]
    if len(set(texts)) < 2:
        return None
    return TfidfVectorizer(sublinear_tf=True, max_features=2000, token_pattern=r"(?u)\w+").fit(texts)


def _vocabulary(words: Any) -> float:
    """Megabytes of the words that a vectorizer knows."""
    return 0.0 if words is None else sum(len(word.encode()) + 1 for word in words.get_feature_names_out()) / 1e6


def _need(shots: Sequence[Sample]) -> None:
    if not shots:
        raise InputError("none of the training rows can be read; see monoglot data validate")


# --- fine-tuning ------------------------------------------------------------------------------------------------------


class Tuned(nn.Module):
    """A copy of an encoder's last blocks with a linear head, which begins as a fitted probe: float[n, ...] -> [n, K].

    Source: linear probing, then fine-tuning (Kumar et al., arXiv 2202.10054).
    """

    def __init__(self, eye: Backbone, probe: Any):
        super().__init__()
        self.eye = copy.copy(eye)
        self.eye._modules = dict(eye._modules)
        self.eye.tail = copy.deepcopy(eye.tail).requires_grad_(True)
        scaler, learner = probe[0], probe[-1]
        weight, bias = learner.coef_, learner.intercept_
        if len(weight) == 1:  # two answers: scikit-learn keeps the difference
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        weight = weight / scaler.scale_
        bias = bias - weight @ scaler.mean_
        self.head = nn.Linear(weight.shape[1], len(weight))
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(weight))
            self.head.bias.copy_(torch.from_numpy(bias))

    def forward(self, maps: list[Tensor]) -> Tensor:
        return self.head(torch.stack(run_by_shape(self.eye.last, [one.float() for one in maps])))

    def learning(self) -> list[nn.Parameter]:
        return [*self.eye.tail.parameters(), *self.head.parameters()]


def fit_finetune(shots: Sequence[Sample], encoded: Encoded, seed: int, minutes: float) -> Answerer:
    """A probe first; then its encoder's last blocks learn too, for as many epochs as a held-out fifth of the shots asks for."""
    shots = encoded.readable(shots)
    _need(shots)
    modality = modalities(shots)[0]
    eye, labels, apart = encoded.backbone(modality), _labels(shots), groups(shots)
    started = time.perf_counter()
    deadline = started + 60 * minutes
    means = encoded.features(shots, [modality])
    probe = logistic(means, labels, apart=apart, seed=seed)
    if not hasattr(probe[-1], "coef_"):
        return fit_probe(shots, encoded, seed, minutes)
    names = list(probe.classes_)
    maps = lambda samples, fresh=False: [encoded.read(s, fresh=fresh)[0][modality][0] for s in samples]  # noqa: E731
    epochs = FEW_EPOCHS
    if _folds(labels, apart):
        epochs = _epochs(eye, maps, shots, means, seed=seed, deadline=started + 30 * minutes)
    tuned = Tuned(eye, probe)
    done = len(list(_tune(tuned, maps, shots, names, epochs, seed=seed, deadline=deadline)))
    tuned.eval()
    seconds = time.perf_counter() - started + encoded.seconds(shots)

    @torch.no_grad()
    def scores(samples: Sequence[Sample], fresh: bool) -> np.ndarray:
        parts = [samples[first : first + BATCH] for first in range(0, len(samples), BATCH)]
        return np.concatenate([tuned(maps(part, fresh)).softmax(-1).numpy() for part in parts])

    def answer(samples: Sequence[Sample], fresh: bool) -> list[Prediction]:
        return encoded.answers(samples, fresh, lambda good: scores(good, fresh), names)

    size = _parameters(eye) + _parameters(tuned.head)
    return Answerer(answer, seconds, size, f"{_strength(probe)}, {done} epochs")


def _epochs(eye: Backbone, maps: Any, shots: Sequence[Sample], means: np.ndarray, *, seed: int, deadline: float) -> int:
    """How many epochs did best on a fifth of the rows, with the probe and the blocks trained on the others."""
    from sklearn.model_selection import StratifiedGroupKFold

    labels, apart = _labels(shots), groups(shots)
    split = StratifiedGroupKFold(_folds(labels, apart), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # as in `logistic`
        train, held = next(split.split(means, labels, apart))
    known = [shots[index] for index in train]
    probe = logistic(means[train], _labels(known), apart=groups(known), seed=seed)
    asked = [shots[index] for index in held if labels[index] in set(probe.classes_)]
    if not asked or not hasattr(probe[-1], "coef_"):
        return FEW_EPOCHS
    names = list(probe.classes_)
    truth = torch.tensor([names.index(label) for label in _labels(asked)])
    tuned = Tuned(eye, probe).eval()

    @torch.no_grad()
    def loss() -> float:
        parts = [asked[first : first + BATCH] for first in range(0, len(asked), BATCH)]
        return float(F.cross_entropy(torch.cat([tuned(maps(part)) for part in parts]), truth))

    best, found = loss(), 0
    for epoch, _ in enumerate(_tune(tuned, maps, known, names, EPOCHS, seed=seed, deadline=deadline), start=1):
        if (value := loss()) < best:
            best, found = value, epoch
        elif epoch - found >= PATIENCE:
            break
    return found


def _tune(
    tuned: Tuned, maps: Any, shots: Sequence[Sample], names: list[str], epochs: int, *, seed: int, deadline: float
) -> Iterator[int]:
    """Train in place; gives the number of each epoch when it is done. Stops at the deadline."""
    counts = Counter(_labels(shots))
    weight = torch.tensor([len(shots) / (len(counts) * counts[name]) if name in counts else 0.0 for name in names])
    optimiser = torch.optim.AdamW(tuned.learning(), lr=RATE)
    for epoch in range(epochs):
        order = stream(seed, "finetune", epoch).permutation(len(shots))
        for first in range(0, len(order), BATCH):
            part = [shots[index] for index in order[first : first + BATCH]]
            truth = torch.tensor([names.index(label) for label in _labels(part)])
            optimiser.zero_grad()
            F.cross_entropy(tuned(maps(part)), truth, weight=weight).backward()
            optimiser.step()
            if time.perf_counter() > deadline:
                yield epoch
                return
        yield epoch


# --- text, and plain answers ------------------------------------------------------------------------------------------


def fit_tfidf(shots: Sequence[Sample], encoded: Encoded, seed: int, minutes: float) -> Answerer:
    """TF-IDF of words and pairs of words, and of runs of letters inside words (for languages without spaces) -> logistic regression."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer

    started = time.perf_counter()
    texts = [sample.text for sample in shots]
    readers = [
        TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), token_pattern=r"(?u)\w+"),
        TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 4), analyzer="char_wb"),
    ]
    readers = [reader.fit(texts) for reader in readers]

    def features(samples: Sequence[Sample]) -> Any:
        return hstack([reader.transform([sample.text for sample in samples]) for reader in readers]).tocsr()

    model = logistic(features(shots), _labels(shots), apart=groups(shots), seed=seed, dense=False)
    size = _stored(_weights(model)) + sum(_vocabulary(reader) + _stored([reader.idf_]) for reader in readers)

    def answer(samples: Sequence[Sample], fresh: bool) -> list[Prediction]:
        scores = model.predict_proba(features(samples))
        return [_likeliest(sample, row, list(model.classes_)) for sample, row in zip(samples, scores)]

    return Answerer(answer, time.perf_counter() - started, size, _strength(model))


def _plain(answer: Callable[[Sequence[Sample], Sequence[Sample]], list[Prediction]]) -> Any:
    """An answer that is looked up, not learned."""

    def fit(shots: Sequence[Sample], encoded: Encoded, seed: int, minutes: float) -> Answerer:
        started = time.perf_counter()
        answer(shots[:1], shots)
        return Answerer(lambda samples, fresh: answer(samples, shots), time.perf_counter() - started, 0.0)

    return fit


def _is_closed(samples: Sequence[Sample]) -> bool:
    return samples[0].task in CLOSED_TASKS and all(sample.targets for sample in samples)


def _one_item(samples: Sequence[Sample]) -> bool:
    """Each row is one picture, clip or sound, and all are asked the same."""
    alone = all(len(sample.media) == 1 for sample in samples)
    return alone and len(modalities(samples)) == 1 and len({sample.text for sample in samples}) == 1


def _known_media(samples: Sequence[Sample]) -> bool:
    return bool(modalities(samples)) and set(modalities(samples)) <= {"image", "video", "audio"}


def _eyes(samples: Sequence[Sample]) -> str:
    names = {"image": Eye.name, "video": f"{Eye.name} on frames", "audio": Ear.name}
    return " + ".join(names[modality] for modality in modalities(samples))


def _probed(samples: Sequence[Sample]) -> bool:
    return _is_closed(samples) and _known_media(samples)


def _tuned(samples: Sequence[Sample]) -> bool:
    return _probed(samples) and _one_item(samples)


def _read(samples: Sequence[Sample]) -> bool:
    return _is_closed(samples) and not modalities(samples)


def _has_targets(samples: Sequence[Sample]) -> bool:
    return all(sample.targets for sample in samples)


def _has_boxes(samples: Sequence[Sample]) -> bool:
    return samples[0].task == "grounding"


def _is_summary(samples: Sequence[Sample]) -> bool:
    return samples[0].task == "summarize"


PLAIN = ("majority", "lead", "middle-box")
RIVALS.add("majority", Rival(lambda _: "most common answer", _has_targets, _has_targets, _plain(baselines.most_common)))
RIVALS.add(
    "lead",
    Rival(lambda _: "lead sentence", _is_summary, _is_summary, _plain(lambda asked, _: baselines.lead_sentence(asked))),
)
RIVALS.add("middle-box", Rival(lambda _: "mean box", _has_boxes, _has_boxes, _plain(baselines.middle_box)))
RIVALS.add("probe", Rival(lambda s: f"{_eyes(s)}, logistic regression", _probed, _probed, fit_probe))
RIVALS.add(
    "finetune",
    Rival(
        lambda s: f"{_eyes(s)}, fine-tuned",
        _tuned,
        lambda s: _tuned(s) and modalities(s) != ["video"],  # eight frames a row take their time
        fit_finetune,
    ),
)
RIVALS.add("tfidf", Rival(lambda _: "TF-IDF, logistic regression", _read, _read, fit_tfidf))
