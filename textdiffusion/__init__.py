"""The front door: small diffusion models of images and of text in Python. `import textdiffusion as td`.

    data = td.images(images, labels)              # arrays uint8 [N, H, W] or [N, H, W, 3] and [N], a folder, an npz
    model = td.train(data, minutes=5)
    samples = model.sample(16, label=7)           # uint8 [16, H, W]
    td.grid(samples).save("sevens.png")
    td.evaluate(model, data)                      # metrics, each with its floor, count and judge

Nothing is imported before it is used: neither torch nor numpy by the command line's --help, and never KFP.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.errors import UserError as UserError
    from core.images.image_diffusion import ImageDiffusion as ImageDiffusion
    from core.text.text_diffusion import TextDiffusion as TextDiffusion
    from textdiffusion.datasets import Images as Images
    from textdiffusion.datasets import Texts as Texts
    from textdiffusion.datasets import images as images
    from textdiffusion.datasets import text as text
    from textdiffusion.drawing import grid as grid
    from textdiffusion.drawing import picture as picture
    from textdiffusion.loading import load as load
    from textdiffusion.measuring import Metrics as Metrics
    from textdiffusion.measuring import evaluate as evaluate
    from textdiffusion.training import train as train

_HOMES = {
    "images": "textdiffusion.datasets",
    "text": "textdiffusion.datasets",
    "train": "textdiffusion.training",
    "evaluate": "textdiffusion.measuring",
    "load": "textdiffusion.loading",
    "grid": "textdiffusion.drawing",
    "picture": "textdiffusion.drawing",
    "ImageDiffusion": "core.images.image_diffusion",
    "TextDiffusion": "core.text.text_diffusion",
    "Images": "textdiffusion.datasets",
    "Texts": "textdiffusion.datasets",
    "Metrics": "textdiffusion.measuring",
    "UserError": "core.errors",
}
__all__ = [
    "ImageDiffusion",
    "Images",
    "Metrics",
    "TextDiffusion",
    "Texts",
    "UserError",
    "evaluate",
    "grid",
    "images",
    "load",
    "picture",
    "text",
    "train",
]


if not TYPE_CHECKING:  # else a name that is not there would be taken for one

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(_HOMES)}")
        value = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
