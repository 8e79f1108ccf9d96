"""A picture file as RGB, as the paper's code sees it; what is no sound picture raises with its reason."""

import warnings

MOST_STRETCHED = 100  # times as long as wide: resized to CLIP's 224 pixels a line of pixels would fill memory


def open_picture(path):
    """The picture in a file, its first frame where it is animated, as an RGB PIL image.

    The EXIF orientation is not applied: neither the paper's code (PIL's `open`, then CLIP's preprocessing)
    nor CLIP's own applies it.

    Raises
    ------
    PIL.Image.DecompressionBombError : more pixels than `PIL.Image.MAX_IMAGE_PIXELS`, where PIL only warns.
    OSError, ValueError, and whatever else PIL's readers raise : no whole picture.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(path)
    except Image.DecompressionBombWarning as error:
        raise Image.DecompressionBombError(f"{error} Shrink the file, or raise PIL.Image.MAX_IMAGE_PIXELS "
                                           "if you trust it.") from error
    with picture:
        return to_rgb(picture)


def to_rgb(picture):
    """A PIL image of any mode as RGB with 8 bits.

    Grey values of 16 bits are scaled (PIL itself cuts them at 255, so that nearly all turn white).
    Transparency is dropped, as in the paper's code: what counts is the color that lies under it.

    Raises
    ------
    ValueError : pixels of 32 bits whose range isn't one of 0…1 (floats), 0…255 or 0…65535; or a picture
        more than `MOST_STRETCHED` times as long as wide.
    """
    if max(picture.size) > MOST_STRETCHED * min(picture.size):
        raise ValueError(f"Expected a picture at most {MOST_STRETCHED} times as long as wide, got "
                         f"{picture.width} x {picture.height} pixels. Cut it.")
    if picture.mode.startswith("I") or picture.mode == "F":
        return _eight_bits(picture).convert("RGB")
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")  # PIL's advice: straight to RGB it warns
    return picture.convert("RGB")


def _eight_bits(picture):
    """A grey picture of mode I;16, I or F as mode L: the end of its scale becomes 255."""
    import numpy as np
    from PIL import Image

    values = np.asarray(picture, dtype=np.float64)  # (h, w)
    ends = [65535] if "16" in picture.mode else [1, 255, 65535] if picture.mode == "F" else [255, 65535]
    end = next((end for end in ends if values.max() <= end), None)
    if end is None or not values.min() >= 0:
        raise ValueError(f"Expected grey values from 0 to {ends[-1]}, got {values.min():g} to "
                         f"{values.max():g} in mode {picture.mode}. Scale the picture to 8 bits.")
    return Image.fromarray(np.rint(values * (255 / end)).astype(np.uint8))
