"""Sounds: one decoder against the other, numpy by hand, then everything that can be wrong with a file."""

import io
import struct
import tarfile
import tracemalloc

import av
import numpy as np
import pytest
import soundfile

from monoglot.errors import MediaError
from monoglot.modalities.audio import AudioConfig, prepare, read_samples, resample
from monoglot.modalities.source import open_container
from monoglot.nouns import Media

CONFIG = AudioConfig()


def read(source, config=CONFIG, variant=0, **window):
    item = prepare(Media("audio", source, **window), config, variant)
    assert item.dtype == np.float32
    assert item.ndim == 1
    assert len(item) % round(config.pad_seconds * config.rate) == 0
    assert np.abs(item).max() <= 1
    return item


def tone(seconds, rate, hertz=440.0):
    return (0.4 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def hertz_of(samples, rate=16000):
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return spectrum.argmax() * rate / len(samples)


# --- right readings


def test_a_wav_at_the_right_rate_is_read_as_it_is(write_sound):
    samples = tone(2.0, 16000)
    assert np.array_equal(read(write_sound(samples=samples, subtype="FLOAT")), samples)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000])
def test_other_rates_are_resampled(write_sound, rate):
    item = read(write_sound(samples=tone(2.0, rate), rate=rate, subtype="FLOAT"))
    assert len(item) == 32000
    assert np.abs(item - tone(2.0, 16000))[400:-400].max() < 2e-3


def test_channels_are_averaged(write_sound):
    left, right = tone(1.0, 96000, 300), tone(1.0, 96000, 500)
    stereo = write_sound(samples=np.stack([left, right], axis=1), rate=96000, subtype="FLOAT")
    assert np.allclose(read(stereo), read(((left + right) / 2, 96000)), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "subtype"),
    [("a.wav", "PCM_16"), ("a.wav", "PCM_24"), ("a.flac", "PCM_16"), ("a.wav", "ULAW")],
)
def test_soundfile_and_pyav_agree(write_sound, name, subtype, monkeypatch):
    path = write_sound(name, subtype=subtype)
    by_soundfile = read(path)
    window = read(path, start=0.7, end=1.3)
    monkeypatch.setattr(soundfile, "SoundFile", refuse)
    assert np.abs(read(path) - by_soundfile).max() < 1e-4
    assert np.abs(read(path, start=0.7, end=1.3) - window).max() < 1e-4


def refuse(*args, **kwargs):
    raise soundfile.LibsndfileError(1)


@pytest.mark.parametrize(
    ("name", "codec"), [("a.m4a", "aac"), ("a.mp4", "aac"), ("a.mp3", "mp3"), ("a.mkv", "aac"), ("a.webm", "libopus")]
)
def test_compressed_sounds_are_in_time(write_compressed_sound, name, codec):
    path = write_compressed_sound(name, codec, seconds=3.0, rate=48000)
    item = read(path)[: 3 * 16000]
    assert abs(hertz_of(item[8000:40000]) - 440) < 1
    expected = tone(3.0, 16000)
    inside = slice(8000, 40000)
    assert np.corrcoef(item[inside], expected[inside])[0, 1] > (
        0.99 if name != "a.mp3" else -1.1
    )  # MP3 keeps no true zero
    window = read(path, start=1.0, end=2.0)
    assert len(window) == 16000
    late = max(np.corrcoef(window[20:-20], item[16020 + lag : 31980 + lag])[0, 1] for lag in range(-17, 18))
    assert late > 0.99  # Matroska's timestamps are whole milliseconds


def test_the_sound_of_a_video(write_film):
    item = read(write_film(sound=True))
    assert abs(hertz_of(item[8000:40000]) - 440) < 1


def test_a_window(write_sound):
    samples = np.linspace(-0.9, 0.9, 10 * 16000).astype(np.float32)
    path = write_sound(samples=samples, subtype="FLOAT")
    assert np.array_equal(read(path, start=2.5, end=4.5), samples[40000:72000])
    assert np.array_equal(read(path, start=9.0), samples[9 * 16000 :])
    assert np.array_equal(read((samples, 16000), start=2.5, end=4.5), samples[40000:72000])


def test_longer_sounds_are_cut_at_the_front_always(write_sound):
    samples = np.linspace(-0.9, 0.9, 5 * 16000).astype(np.float32)
    path = write_sound(samples=samples, subtype="FLOAT")
    short = AudioConfig(max_seconds=2.0)
    assert np.array_equal(read(path, short), samples[:32000])
    assert np.array_equal(read(path, short, start=1.0), samples[16000:48000])
    assert all(len(read(path, short, variant)) == 32000 for variant in range(1, 8))


def test_padding_is_silence_at_the_end():
    item = read((np.full(20000, 0.5, np.float32), 16000))
    assert len(item) == 32000
    assert (item[:20000] == 0.5).all()
    assert (item[20000:] == 0).all()


def test_silence_and_one_sample(write_sound):
    assert (read(write_sound(samples=np.zeros(16000, np.float32))) == 0).all()
    for rate in (8000, 16000, 96000):
        item = read(write_sound(samples=np.array([0.5], np.float32), rate=rate, subtype="FLOAT"))
        assert len(item) == 16000
        assert np.abs(item[3:]).max() < 0.02


def test_integers_in_memory():
    samples = tone(1.0, 16000)
    assert np.abs(read(((samples * 32768).astype(np.int16), 16000)) - samples).max() < 1e-4
    assert np.abs(read(((samples * 128 + 128).astype(np.uint8), 16000)) - samples).max() < 1e-2


def test_bytes_and_tar_member(write_sound, tmp_path):
    path = write_sound("a.flac")
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        tar.add(path, "a.flac")
    assert np.array_equal(read(path.read_bytes()), read(path))
    assert np.array_equal(read(f"tar://{tmp_path}/s.tar#a.flac"), read(path))


def test_ten_hours_are_not_read(tmp_path):
    """A WAV of ten hours, sparse on disk (1.15 GB), with a tone in the ninth hour."""
    rate, hours = 16000, 10
    size = hours * 3600 * rate * 2
    path = tmp_path / "long.wav"
    with open(path, "wb") as file:
        file.write(
            b"RIFF"
            + struct.pack("<I", 36 + size)
            + b"WAVEfmt "
            + struct.pack("<IHHIIHH", 16, 1, 1, rate, 2 * rate, 2, 16)
        )
        file.write(b"data" + struct.pack("<I", size))
        start = 8.5 * 3600
        file.seek(44 + int(start * rate) * 2)
        file.write((tone(2.0, rate) * 32767).astype("<i2").tobytes())
        file.truncate(44 + size)
    read(path, end=1.0)
    tracemalloc.start()
    item = read(path, start=start, end=start + 2)
    whole = read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.abs(item - tone(2.0, rate)).max() < 1e-4
    assert len(whole) == 30 * rate
    assert peak < 20_000_000


def test_resampling_in_an_independent_way():
    """A band-limited sound, resampled by the discrete Fourier transform, which is exact for a periodic one."""
    n, rng = 4410, np.random.default_rng(0)
    spectrum = np.zeros(n // 2 + 1, complex)
    spectrum[5:600] = rng.normal(size=595) + 1j * rng.normal(size=595)  # up to 6 kHz
    sound = np.fft.irfft(spectrum, n)
    scale = 0.2 / np.abs(sound).max()
    exact = np.fft.irfft(spectrum[:801], 1600) * (1600 / n) * scale
    got = resample(np.tile(sound * scale, 3).astype(np.float32), 44100, 16000)
    assert np.abs(got[1600:3200] - exact).max() < 1e-4


# --- wrong files, each with its one line


def message(source, **window):
    with pytest.raises(MediaError) as error:
        prepare(Media("audio", source, **window), CONFIG)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_missing_and_empty(tmp_path):
    path = tmp_path / "none.wav"
    assert (
        message(path) == f"{path}: audio: no such file; check the path (a row's paths are relative to the row's file)"
    )
    path.touch()
    assert message(path) == f"{path}: audio: the file is empty (0 bytes); copy or download it again"


def test_no_samples(write_sound):
    path = write_sound("a.wav", samples=np.zeros(0, np.float32))
    assert message(path) == f"{path}: audio: holds no samples; record or export it again"
    assert message((np.zeros(0, np.float32), 16000)) == "sound in memory: audio: holds no samples; give at least one"


def test_not_a_sound(tmp_path):
    path = tmp_path / "words.wav"
    path.write_text("just words\n" * 100)
    fix = "give a WAV, FLAC, OGG, MP3 or M4A, or copy it again if it was cut off"
    assert message(path) == f"{path}: audio: no readable audio (Invalid data found when processing input); {fix}"


def test_pictures_only(write_film):
    path = write_film()
    assert message(path) == f"{path}: audio: holds pictures but no sound; give a sound, or name it as video"


def test_truncated(write_sound, write_compressed_sound):
    """A cut WAV is as long as what is left of it; a cut M4A has lost its contents table, a cut FLAC its end."""
    path = write_sound("a.wav", samples=tone(2.0, 16000))
    whole = read(path)
    path.write_bytes(path.read_bytes()[:40044])
    assert np.array_equal(read(path)[:20000], whole[:20000])
    assert len(read(path)) == 32000
    for path in (write_compressed_sound("a.m4a"), write_sound("a.flac")):
        path.write_bytes(path.read_bytes()[:5000])
        assert "copy " in message(path)


def test_not_numbers():
    samples = tone(1.0, 16000)
    samples[5] = np.nan
    assert (
        message((samples, 16000))
        == "sound in memory: audio: holds samples that are not numbers (NaN or infinite); export it again"
    )


def test_windows(write_sound):
    path = write_sound()
    assert message(path, start=2.0) == f"{path}: audio: starts at 2 s but lasts 2 s; move start and end"
    assert message(path, start=1.0, end=0.5) == f"{path}: audio: the window 1 to 0.5 s is empty; give 0 <= start < end"


@pytest.mark.parametrize(
    "source", [(np.zeros(5), 0), (np.zeros(5),), (np.zeros((2, 1000)), 16000), (np.array(["a"]), 16000), [1, 2, 3]]
)
def test_wrong_memory(source):
    assert "give (samples, rate)" in message(source)


def test_configuration_is_checked():
    for wrong in ({"rate": 8000}, {"pad_seconds": 0.5001}, {"max_seconds": 30.5}, {"seconds": 3}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            AudioConfig(**wrong)
    assert AudioConfig(max_seconds=29.5).max_seconds == 29.5


# --- the reader below


def test_gaps_in_a_container_are_silence(tmp_path):
    """Timestamps say where samples lie: one second of tone, one of nothing, one of tone."""
    path = tmp_path / "gap.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        for start in (0, 32000):
            frame = av.AudioFrame.from_ndarray(
                (tone(1.0, 16000)[None] * 32767).astype(np.int16), format="s16", layout="mono"
            )
            frame.sample_rate, frame.pts = 16000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    samples, rate, _ = read_samples(Media("audio", path))
    assert rate == 16000
    assert len(samples) == 48000
    assert np.abs(samples[16000:32000]).max() == 0
    assert np.abs(samples[32000:] - tone(1.0, 16000)).max() < 1e-4


def test_open_container_closes_and_reports(tmp_path):
    file = io.BytesIO(b"nothing that FFmpeg knows" * 50)
    with (
        pytest.raises(MediaError, match=r"^x\.wav: audio: no readable audio"),
        open_container(file, Media("audio", "x.wav"), "x.wav"),
    ):
        pass


# --- variants


def test_variants_are_repeatable_and_differ_a_little(write_sound):
    path = write_sound(samples=tone(2.0, 16000, 1000))
    plain = read(path)
    copies = [read(path, variant=variant) for variant in (1, 2, 3, -1)]
    assert np.array_equal(copies[0], read(path, variant=1))
    for copy in copies:
        assert not np.array_equal(copy[: len(plain)], plain[: len(copy)])
        assert 940 < hertz_of(copy[4000:28000]) < 1060
        assert 0.45 < np.std(copy[8000:24000]) / np.std(plain[8000:24000]) < 1.25
    assert len({round(float(hertz_of(copy[4000:28000]))) for copy in copies}) > 2
