"""What a CLIP's name promises of its weights' shapes, and the model built from weights."""

import warnings
from typing import NamedTuple

TINY = "tiny"


class Architecture(NamedTuple):
    """What a model's name promises of its weights' shapes; `patch` is None for a ResNet."""

    width: int  # of the picture tower
    blocks: int
    patch: int | None
    pixels: int  # side of the pictures
    text_width: int
    text_blocks: int
    dim: int  # of the features
    context: int = 77
    vocabulary: int = 49408


ARCHITECTURES = {  # all that clip knows; sources: clip.model.build_model, open_clip's model_configs
    "ViT-B/32": Architecture(768, 12, 32, 224, 512, 12, 512),
    "ViT-B/16": Architecture(768, 12, 16, 224, 512, 12, 512),
    "ViT-L/14": Architecture(1024, 24, 14, 224, 768, 12, 768),
    "ViT-L/14@336px": Architecture(1024, 24, 14, 336, 768, 12, 768),
    "RN50": Architecture(64, 16, None, 224, 512, 12, 1024),
    "RN101": Architecture(64, 33, None, 224, 512, 12, 512),
    "RN50x4": Architecture(80, 26, None, 288, 640, 12, 640),
    "RN50x16": Architecture(96, 40, None, 384, 768, 12, 768),
    "RN50x64": Architecture(128, 64, None, 448, 1024, 12, 1024),
    TINY: Architecture(16, 4, None, 32, 64, 2, 64),
}


def import_clip():
    """The package `clip`, without the deprecation warning of its one use of pkg_resources."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import clip
    return clip


def architecture(state_dict):
    """The `Architecture` that the shapes of a state dict show.

    Raises
    ------
    KeyError : it lacks a tensor that every CLIP has.
    """
    def blocks(start):
        return len({name[len(start):].split(".")[0] for name in state_dict if name.startswith(start)})

    if "visual.proj" in state_dict:  # a vision transformer
        width, _, _, patch = state_dict["visual.conv1.weight"].shape
        picture = (width, blocks("visual.transformer.resblocks."), patch)
        grid, side = state_dict["visual.positional_embedding"].shape[0] - 1, patch
    else:
        count = sum(name.startswith("visual.layer") and name.endswith(".conv3.weight") for name in state_dict)
        picture = (state_dict["visual.layer1.0.conv1.weight"].shape[0], count, None)
        grid, side = state_dict["visual.attnpool.positional_embedding"].shape[0] - 1, 32
    context, text_width = state_dict["positional_embedding"].shape
    return Architecture(*picture, side * round(grid**0.5), text_width, blocks("transformer.resblocks."),
                        state_dict["text_projection"].shape[1], context,
                        state_dict["token_embedding.weight"].shape[0])


def check_architecture(state_dict, path, name):
    """Refuse weights whose shapes aren't what a name promises; a name not listed here promises nothing.

    Raises
    ------
    ValueError : the message lists what differs and whose shapes these are.
    """
    try:
        found, expected = architecture(state_dict), ARCHITECTURES.get(name)
    except (KeyError, IndexError, ValueError) as error:  # the latter two: other numbers of dimensions
        raise ValueError(f"{path} isn't a whole CLIP, something is missing or misshapen: {error}.") from error
    if expected in (None, found):
        return
    differences = [f"{field.replace('_', ' ')} is {value}, expected {wanted}" for field, value, wanted
                   in zip(Architecture._fields, found, expected, strict=True) if value != wanted]
    same = [key for key, shapes in ARCHITECTURES.items() if shapes == found]
    hint = (f"Its shapes are those of {same[0]}: ask for it by that name (--set clip={same[0]})." if same
            else f"Known: {', '.join(ARCHITECTURES)}.")
    raise ValueError(f"{path} isn't a {name}: {', '.join(differences)}. {hint}")


def build_model(state_dict, path):
    """A `clip.model.CLIP` with these weights in fp32, on the CPU, in eval mode.

    It is made without numbers and then takes the file's: random first values would cost as much time as
    all the rest, and clip's own way rounds to fp16 in between.

    Raises
    ------
    ValueError : weights that are missing, or one too many.
    """
    import torch

    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nothing is copied into a model without numbers: as meant
            model = import_clip().model.build_model(dict(state_dict)).float()  # it empties the dict it gets
        model.load_state_dict({key: state_dict[key].detach().to(value.dtype, copy=True)
                               for key, value in model.state_dict().items()}, assign=True)
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{path} can't be made into a CLIP: {str(error)[:300]}") from error
    for block in model.transformer.resblocks:
        block.attn_mask = model.build_attention_mask()  # no weight, so that it had no numbers either
    return model.eval()
