"""CLIP by its card: what caches are keyed with is known at once, the model is loaded when it has to encode.

Loading CLIP takes seconds, the import of what it stands on among them, and most notebooks find all features
on disk.
"""

import json
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

from impart_utils.sources import checkpoints
from impart_utils.sources.files import atomic_path, content_hash, file_hash

FIELDS = ("name", "provenance", "dim", "key", "device", "precision")
HERE = Path(__file__).parent
# what makes the fields, besides the checkpoint
CODE = [HERE / "clip_model.py", HERE / "clip_towers.py", *(HERE / "sources" / f"{name}.py" for name in (
    "checkpoint_formats", "checkpoints", "clip_architectures", "clip_checks", "packs", "pictures_io"))]
PACKAGES = ("torch", "torchvision", "clip-anytorch", "pillow", "numpy")


class CardedClip:
    """What notebooks use of a `clip_model.Clip`: its `FIELDS`, methods, and, loading it, `model`.

    The fields are read off a card that is there for the same bytes of the checkpoint, settings, code,
    packages and kind of device. Without one CLIP is loaded, with all its checks, and the card written.

    Parameters
    ----------
    folder : path, where the cards are
    name, **options : as for `clip_model.load_clip`, which says what is raised
    """

    def __init__(self, folder, name, **options):
        self._asked = name, options
        path = Path(folder) / f"{_card_key(name, **options)}.json"
        try:
            card = json.loads(path.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            card = {field: getattr(self.loaded, field) for field in FIELDS}
            with atomic_path(path) as temporary:
                temporary.write_text(json.dumps(card, indent=2) + "\n")
        for field in FIELDS:
            setattr(self, field, card[field])

    @cached_property
    def loaded(self):
        """The `clip_model.Clip` itself."""
        from impart_utils.clip_model import load_clip

        name, options = self._asked
        return load_clip(name, **options)

    @property
    def model(self):
        return self.loaded.model

    def encode_images(self, pictures):
        return self.loaded.encode_images(pictures)

    def encode_texts(self, texts):
        return self.loaded.encode_texts(texts)

    @property
    def prepare(self):
        """As `Clip.prepare`, and no reason to load CLIP as long as it isn't called."""
        return self.loaded.prepare if "loaded" in vars(self) else self._prepare

    def _prepare(self, picture):
        return self.loaded.prepare(picture)


def _card_key(name, *, checkpoint=None, **options):
    import torch

    name, checkpoint = checkpoints.named(name, checkpoint)
    path = checkpoints.find_checkpoint(name, checkpoint, fetch=True)
    return content_hash(name, str(path.resolve()), file_hash(path), options, torch.cuda.is_available(),
                        [file_hash(code) for code in CODE],
                        {package: version(package) for package in PACKAGES})
