"""Image files to pixels: upright, one frame, grey or RGB."""

from __future__ import annotations

import warnings
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError, features

from core.errors import UserError
from core.images.sources.intake import Intake, is_grey
from core.images.sources.source import MAX_SIDE, check_side, refuse_bomb

FORMATS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
HEIC = (".heic", ".heif")
HEIC_SKIPPED = "HEIC (install the extra: pip install 'textdiffusion[heic]')"
MAX_PIXELS = 1 << 27  # of one image that is to be shrunk
UPRIGHT = 1  # what EXIF says of an image that is not turned


def formats() -> tuple[str, ...]:
    """Names of the formats that this machine's Pillow reads, of those that are read here."""
    names = [name for name in FORMATS if name != "WEBP" or features.check("webp")]
    return (*names, "HEIF") if _reads_heic() else tuple(names)


def suffixes() -> tuple[str, ...]:
    """How the names of files end that are read as images."""
    known = {**FORMATS, "HEIF": HEIC}
    return tuple(suffix for name in formats() for suffix in known[name])


def _reads_heic() -> bool:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def fitted(image: Image.Image, resolution: int, intake: Intake) -> Image.Image:
    """The centre square of `image` at `resolution` pixels a side."""
    side = min(image.size)
    if image.size != (side, side):
        intake.tally.count("cropped")
        image = ImageOps.fit(image, (side, side))
    return image.resize((resolution,) * 2, Image.Resampling.BICUBIC)


def decode(name: str, stream: IO[bytes], intake: Intake, allowed: tuple[str, ...]) -> Image.Image:
    """The first frame of an image upright, as mode L or RGB.

    Raises:
        UserError: it is damaged, larger than is allowed, or of values outside data.value_range.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the size is checked here, strictly, instead of Pillow's warning
            image = Image.open(stream, formats=allowed)
            _check_size(name, image, stream, intake)
            image.load()
            intake.tally.count("first_frames", int(getattr(image, "n_frames", 1) > 1))
            intake.tally.count("rotated", int(image.getexif().get(ExifTags.Base.Orientation, UPRIGHT) != UPRIGHT))
            return _as_grey_or_rgb(name, ImageOps.exif_transpose(image), intake)
    except UserError:
        raise
    except UnidentifiedImageError:  # its message holds the repr of the stream
        raise UserError(f"{name}: unreadable image: damaged, or no image") from None
    except Exception as error:  # Pillow's readers raise many types on damaged files
        raise UserError(f"{name}: unreadable image: {str(error) or type(error).__name__}") from None


def _check_size(name: str, image: Image.Image, stream: IO[bytes], intake: Intake) -> None:
    """Refuses what is too large before it is decoded; a photo that is to be shrunk may be larger."""
    width, height = image.size
    resolution = intake.config.resolution
    if resolution is None or max(width, height) <= MAX_SIDE:
        check_side(name, height, width, hint="; set data.resolution to shrink them" if resolution is None else "")
        return
    if width * height > MAX_PIXELS:
        raise UserError(f"{name}: {width} x {height} pixels; allowed are up to {MAX_PIXELS:,} pixels of one image")
    position = stream.tell()
    refuse_bomb(name, stream.seek(0, 2), 3 * width * height)
    stream.seek(position)
    intake.tally.count("reduced")
    image.draft(None, (2 * resolution, 2 * resolution))  # JPEG: decodes a half, a quarter or an eighth of its size


def _as_grey_or_rgb(name: str, image: Image.Image, intake: Intake) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return _of_wide_values(name, image, intake)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = intake.on_background(name, image)
    elif image.mode == "P":
        image = image.convert("RGB")
        image = image.convert("L") if is_grey(image) else image
    else:
        image = image.convert("L" if image.mode in ("1", "L") else "RGB")
    pixels = np.asarray(image)
    taken = intake.to_uint8(name, pixels[None])[0]
    return image if taken is pixels or np.shares_memory(taken, pixels) else Image.fromarray(taken)


def _of_wide_values(name: str, image: Image.Image, intake: Intake) -> Image.Image:
    """A grey image of 16 or 32 bits or of floats."""
    wide: NDArray[Any] = np.asarray(image)
    if wide.dtype.kind == "f":
        return Image.fromarray(intake.to_uint8(name, wide[None])[0])
    return Image.fromarray(intake.to_uint8(name, wide.astype(np.int64)[None], most=65535)[0])
