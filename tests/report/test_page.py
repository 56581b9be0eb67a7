"""Pages: whole, escaped, self-contained; cards and verdicts of rows; figures."""

import base64
import io
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile
from PIL import Image

from monoglot.data.rows import read_rows
from monoglot.demo import SAMPLES, Machine, to_html
from monoglot.errors import InputError
from monoglot.nouns import Candidate, Media, Prediction, Sample
from monoglot.report import figures, page
from monoglot.report.answers import card, judge, question_of

VOID = {"meta", "img", "br", "link", "input", "hr"}
NASTY = '<script>alert("x")</script> & "quoted"'


class Reader(HTMLParser):
    """Collects links and words, and checks that every tag is closed in order."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.tags: list[tuple[str, dict]] = []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.links += [value for name, value in attributes if name in ("src", "href", "srcset", "poster", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def parsed(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


def true_answer(sample: Sample) -> Prediction:
    text = sample.targets[0] if sample.targets else ""
    candidates = (Candidate(text, 0.9), Candidate(NASTY, 0.05))
    return Prediction(
        sample.id, sample.task, text, sample.box if sample.task == "grounding" else None, 0.9, candidates, 0.1
    )


@pytest.fixture(scope="module")
def samples():
    return list(read_rows(SAMPLES / "rows.jsonl"))


@pytest.fixture(scope="module")
def whole(samples):
    """The page of all bundled rows, answered right but for one, which is answered with markup."""
    answers = [true_answer(sample) for sample in samples]
    answers[0] = Prediction(samples[0].id, samples[0].task, NASTY, None, 0.5, (Candidate(NASTY, 0.5),), 0.1)
    machine = Machine("nano", 25_000_000, 2, 2, "x86_64", 1.0, 3.1)
    return to_html(list(zip(samples, answers)), machine)


def test_the_page_holds_every_row(whole, samples):
    reader = parsed(whole)
    words = re.sub(r"\s+", " ", " ".join(reader.words))
    assert sum(tag == "article" for tag, _ in reader.tags) == len(samples)
    for sample in samples:
        assert question_of(sample)[0] in words
        assert all(" ".join(target.split()) in words for target in sample.targets[:1])


def test_the_page_needs_nothing_else(whole):
    reader = parsed(whole)
    assert reader.links
    assert all(link.startswith("data:") for link in reader.links)
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//|url\(|@import|<script""", whole)
    for link in reader.links:
        if link.startswith("data:image/svg+xml"):
            drawn = base64.b64decode(link.partition(",")[2])
            targets = [
                v for node in ElementTree.fromstring(drawn).iter() for k, v in node.attrib.items() if k.endswith("href")
            ]
            assert all(target.startswith(("#", "data:")) for target in targets)


def test_answers_are_escaped(whole):
    assert "<script>" not in whole
    assert "&lt;script&gt;alert(" in whole
    assert NASTY in "".join(parsed(whole).words)


def test_media_have_words_for_those_who_cannot_see_them(whole):
    for tag, attributes in parsed(whole).tags:
        if tag == "img":
            assert attributes["alt"]
            assert int(attributes["width"]) > 0
        if tag == "audio":
            assert attributes["aria-label"]


def test_right_and_wrong_are_words_and_signs_too(whole):
    assert "✗ wrong" in whole
    assert "✓ right" in whole
    assert "◐ ROUGE-L 1.00" in whole


def test_a_page_of_plain_blocks():
    picture = figures.encoded(Image.new("RGB", (20, 10), "red"), "a red field", side=20)
    table = page.Table(("metric", "value"), (("accuracy", "0.5"),), caption="scores", numbers=(1,), total=("all", "1"))
    blocks = (page.Prose(("one", "two"), (("lead", "point"),)), table, page.Plate(picture, "a caption"))
    html = page.render(
        "A <title>", [page.Section("Part one", blocks, aside="2 of 3")], facts=[("model", "x")], foot="end"
    )
    reader = parsed(html)
    assert html.startswith("<!doctype html>")
    assert "<title>A &lt;title&gt;</title>" in html
    assert {"one", "two", "accuracy", "scores", "a caption", "end"} <= {word.strip() for word in reader.words}
    assert ("section", {"id": "part-one"}) in reader.tags


def test_contrast_of_text_is_enough():
    """WCAG 2.2, 1.4.3: 4.5 to 1, in light and dark."""
    css = (page.Path(page.__file__).parent / "templates/page.css").read_text()
    light, dark = (dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in re.findall(r":root \{([^}]*)\}", css))

    def luminance(colour):
        channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    for colours in (light, dark):
        for ground in ("paper", "tint"):
            for ink in ("ink", "soft", "accent", "right", "wrong", "scored"):
                bright, dim = sorted((luminance(colours[ground]), luminance(colours[ink])), reverse=True)
                assert (bright + 0.05) / (dim + 0.05) >= 4.5, (ground, ink)


@pytest.mark.parametrize(
    ("task", "fields", "said", "right", "note"),
    [
        ("name", {"targets": ("owl", "bird")}, "Bird", True, ""),
        ("name", {"targets": ("owl",)}, "bird", False, ""),
        ("vqa", {"targets": ("two",)}, "2", True, ""),
        ("transcribe", {"targets": ("yellow heart",)}, "yellow heart", True, ""),
        ("transcribe", {"targets": ("yellow heart",)}, "yellow part", False, "word error rate 50%"),
        ("caption", {"targets": ("a cat and a dog",)}, "a cat and a dog", None, "ROUGE-L 1.00"),
        ("grounding", {"box": (0.0, 0.0, 0.5, 1.0)}, (0.0, 0.0, 0.5, 0.6), True, "overlap 0.60"),
        ("grounding", {"box": (0.0, 0.0, 0.5, 1.0)}, (0.0, 0.0, 0.5, 0.4), False, "overlap 0.40"),
        ("grounding", {"box": (0.0, 0.0, 0.5, 1.0)}, None, False, "overlap 0.00"),
    ],
)
def test_an_answer_is_judged_by_its_tasks_main_metric(task, fields, said, right, note):
    prediction = Prediction("1", task, said if isinstance(said, str) else "", said if isinstance(said, tuple) else None)
    verdict = judge(Sample("1", task, **fields), prediction)
    assert (verdict.right, verdict.note) == (right, note)


def test_no_truth_no_verdict_and_no_answer_is_wrong():
    assert judge(Sample("1", "name"), Prediction("1", "name", "owl")) is None
    assert judge(Sample("1", "name", targets=("owl",)), Prediction("1", "name", "", error="gone")).right is False


def test_boxes_are_drawn_as_answer_and_truth():
    picture = Media("image", np.zeros((30, 40, 3), np.uint8))
    box = (0.1, 0.2, 0.5, 0.6)
    sample = Sample("1", "grounding", (picture,), "the cup", box=box)
    shown = card(sample, Prediction("1", "grounding", "", (0.0, 0.2, 0.5, 0.6), 0.5))
    assert [(region.label, region.dashed) for region in shown.views[0].regions] == [("answer", False), ("truth", True)]
    asked = card(Sample("1", "region_caption", (picture,), box=box), Prediction("1", "region_caption", "cup"))
    assert [region.label for region in asked.views[0].regions] == ["asked about"]
    assert asked.question == "what does the region describe? region: the marked box"


def test_a_long_text_stands_apart_from_the_question_and_is_cut():
    sample = Sample("1", "summarize", text="word " * 1000, targets=("words",))
    question, document = question_of(sample)
    assert question == "what is the summary of article “…”?"
    assert len(document) <= 700
    assert document.endswith("…")


def test_pictures_are_small_upright_and_on_white():
    clear = Image.new("RGBA", (800, 400), (0, 0, 0, 0))
    shown = figures.picture(Media("image", clear), "nothing")
    assert (shown.width, shown.height) == (360, 180)
    assert Image.open(io.BytesIO(shown.data)).convert("RGB").getpixel((5, 5)) == (255, 255, 255)


def test_frames_are_as_many_as_asked_for():
    film = [Image.new("RGB", (64, 64), (20 * number, 0, 0)) for number in range(10)]
    assert len(figures.frames(Media("video", film))) == 8


@pytest.mark.parametrize("seconds", [0.001, 0.5, 3.0])
def test_a_sound_can_be_heard_and_seen(seconds):
    rate = 8000
    samples = np.sin(np.arange(max(1, int(seconds * rate))) * 0.3).astype(np.float32)
    shown = figures.sound(Media("audio", (samples, rate)), "a tone")
    heard, found = soundfile.read(io.BytesIO(shown.data))
    assert found == rate
    np.testing.assert_allclose(heard, samples, atol=1e-4)
    assert ElementTree.fromstring(shown.figure.data).tag.endswith("svg")
    assert b"currentColor" in shown.figure.data


def test_the_spectrogram_shows_a_tone_at_its_height():
    rate = 16_000
    tone = np.sin(2 * np.pi * 1000 * np.arange(rate) / rate).astype(np.float32)
    loudest = figures.log_mel(tone, rate)[:, 50].argmax()
    assert abs((loudest + 0.5) / 80 - figures.mel_height(1000)) <= 1.5 / 80


def test_a_missing_extra_is_told(monkeypatch):
    monkeypatch.setattr("monoglot.report.find_spec", lambda name: None)
    with pytest.raises(InputError, match="reports need jinja2 and matplotlib; run: pip install"):
        page.render("x", [])
