"""SVG text to pixels, by resvg (extra `packs`); what resvg cannot read goes to cairosvg if that is installed."""

from __future__ import annotations

import io

from PIL import Image

from monoglot.errors import InputError, MediaError


def render(svg: str, size: int, *, fonts: bool = False) -> Image.Image:
    """Draw `svg` centred on a transparent square of `size` x `size` pixels, its longer side touching the edges.

    Args:
        fonts: draw `<text>` with this system's fonts; off, pictures are the same on every machine, and drawn quicker.

    Returns:
        An RGBA image.

    Raises:
        InputError: no renderer is installed.
        MediaError: no installed renderer can read this SVG.

    >>> square = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 4 2"><path fill="#f00" d="M0 0h4v2H0z"/></svg>'
    >>> picture = render(square, 8)
    >>> picture.size, picture.getpixel((4, 4)), picture.getpixel((4, 0))
    ((8, 8), (255, 0, 0, 255), (0, 0, 0, 0))
    """
    failures = []
    for draw in (_resvg, _cairosvg):
        try:
            picture = Image.open(io.BytesIO(draw(svg, size, fonts))).convert("RGBA")
        except ImportError:
            continue
        except Exception as failure:  # renderers raise whatever their native half raises
            failures.append(f"{draw.__name__[1:]}: {str(failure).strip() or type(failure).__name__}")
            continue
        return _square(picture, size)
    if not failures:
        raise InputError.at("svg", "renderer", "none is installed", "pip install 'monoglot[packs]' (brings resvg-py)")
    raise MediaError.at("svg", "", f"cannot be drawn ({'; '.join(failures)})")


def _resvg(svg: str, size: int, fonts: bool) -> bytes:
    import resvg_py

    return bytes(resvg_py.svg_to_bytes(svg_string=svg, width=size, skip_system_fonts=not fonts))


def _cairosvg(svg: str, size: int, fonts: bool) -> bytes:  # always draws text
    import cairosvg

    return cairosvg.svg2png(bytestring=svg.encode(), output_width=size)


def _square(picture: Image.Image, size: int) -> Image.Image:
    """Fit into size x size without changing the aspect; renderers were only told the width."""
    if picture.size == (size, size):
        return picture
    scale = size / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    canvas = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    canvas.paste(picture.resize((width, height), Image.Resampling.LANCZOS), ((size - width) // 2, (size - height) // 2))
    return canvas
