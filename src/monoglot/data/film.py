"""Frames -> an MP4 file, in one pass."""

from __future__ import annotations

import io
from collections.abc import Iterable
from fractions import Fraction

import av
import numpy as np


def encode(frames: Iterable[np.ndarray], fps: int | Fraction, *, crf: int = 25) -> bytes:
    """Encode frames as an h264 mp4; the same frames give the same bytes. Memory: a few frames, and the file.

    Args:
        frames: at least one uint8[H, W, 3], RGB, H and W even, all of one size.
        fps: frames a second.
        crf: x264's quality; lower is better and larger.
    """
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        options = {"crf": str(crf), "preset": "veryfast", "threads": "1"}
        track = container.add_stream("libx264", rate=fps, options=options)
        track.pix_fmt = "yuv420p"
        for number, picture in enumerate(frames):
            if number == 0:
                track.height, track.width = picture.shape[:2]
            container.mux(track.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(track.encode(None))
    return file.getvalue()
