"""The tiny CLIP's recipe: OpenAI's own architecture class, trained on the toy world in a minute or two.

`python -m impart_utils.toy_world.train_clip` repeats it and writes data/toy_clip.safetensors.
"""

import argparse
import hashlib
import json
import math
import random
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import torch
from torch.nn import functional as F

from impart_utils.config import ROOT
from impart_utils.sources.features import atomic_path
from impart_utils.toy_world import scenes as world

MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's own picture statistics (clip.clip._transform)
STD = (0.26862954, 0.26130258, 0.27577711)


THREADS = 2  # of the shipped weights: the order of sums, and so the last digits, depend on it


@dataclass(frozen=True)
class Recipe:
    """Every constant that decides the weights, besides the seed and the toy world itself."""
    pictures: int = 24_000      # drawn once, seen several times
    captions: int = 4           # per picture; each view draws one of them
    steps: int = 500
    batch: int = 256
    learning_rate: float = 3e-3
    warmup: int = 25            # steps
    weight_decay: float = 0.05
    shift: int = 2              # pixels a picture is moved at most, so that no two views are equal
    rates: dict = field(default_factory=lambda: {"full": 0.50, "partial": 0.45, "empty": 0.03, "wrong": 0.02})
    people: float = 0.15        # share of pictures that show one of the films' characters
    # the architecture: clip.model.CLIP's arguments. Heads follow from widths, or the checkpoint would
    # reload as another model
    embed_dim: int = 64
    resolution: int = 32
    vision_layers: tuple = (1, 1, 1, 1)  # a tuple is clip's sign for its ResNet
    vision_width: int = 16
    text_width: int = 64
    text_layers: int = 2
    context: int = 77
    vocabulary: int = 49408


# What notebook 00 trains before the reader's eyes in some 15 seconds: small batches and captions that
# mostly name the object, for most progress a second.
LIVE = Recipe(pictures=6000, batch=64, steps=350, learning_rate=1e-3, people=0.0,
              rates={"full": 0.2, "partial": 0.8, "empty": 0.0, "wrong": 0.0})


def tiny_clip_path():
    """Where the shipped weights lie."""
    return ROOT / "data" / "toy_clip.safetensors"


def recipe_hash(recipe=None):
    """Hash of the recipe's constants and of the world's version; the weights' metadata holds it.

    Not `content_hash`, which serves caches and may change with them: this one is written into a shipped file.
    """
    constants = json.dumps([asdict(recipe or Recipe()), world.WORLD_VERSION], sort_keys=True)
    return hashlib.sha256(constants.encode()).hexdigest()[:16]


def make_model(recipe, seed=0):
    """An untrained `clip.model.CLIP` of the recipe's size, its random start given by `seed`."""
    from clip.model import CLIP

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLIP(recipe.embed_dim, recipe.resolution, recipe.vision_layers, recipe.vision_width, None,
                    recipe.context, recipe.vocabulary, recipe.text_width, recipe.text_width // 64,
                    recipe.text_layers).float()


def to_input(pictures):
    """What CLIP's own preprocessing makes of uint8 pictures that already have its resolution.

    (n, size, size, 3) uint8 -> (n, 3, size, size) float32, equal to `clip.clip._transform(size)`.
    """
    values = torch.as_tensor(pictures).permute(0, 3, 1, 2).float() / 255
    values = values.contiguous(memory_format=torch.channels_last)
    return (values - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def train(recipe=None, *, steps=None, seed=0, progress=None, probe_every=20, cache=None):
    """Train the tiny CLIP from a random start.

    Parameters
    ----------
    recipe : Recipe (default: the shipped weights')
    steps : int, instead of the recipe's; the schedule runs its whole course in them
    seed : int, of the start, the training pictures and the order: the same seed on the same number of
        threads gives the same weights
    progress : callable(list of steps) -> iterable, such as tqdm's, or None
    probe_every : int, steps between two measurements of accuracy (0: none)
    cache : folder for the training pictures, or None

    Returns
    -------
    model : clip.model.CLIP in eval mode, fp32
    history : list of dicts: step, views (pictures seen), loss, accuracy (zero-shot over all shapes, on
        held-out pictures; None between measurements)

    Raises
    ------
    ValueError : steps below 1.
    """
    recipe = recipe or Recipe()
    steps = recipe.steps if steps is None else steps
    if steps < 1:
        raise ValueError(f"Expected steps >= 1, got {steps}.")
    # no more pictures than a short run looks at
    recipe = replace(recipe, steps=steps, pictures=min(recipe.pictures, steps * recipe.batch))
    pictures, tokens, texts = training_data(recipe, seed, cache)
    model, rng = make_model(recipe, seed).train(), np.random.default_rng(seed)
    model.visual.to(memory_format=torch.channels_last)  # the same numbers, a third faster on a CPU
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=recipe.weight_decay,
                                  betas=(0.9, 0.98), eps=1e-6, fused=True)  # as CLIP's larger models
    probe, history = Probe(seed) if probe_every else None, []
    for step in (progress or list)(range(recipe.steps)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step)
        rows = rng.choice(len(pictures), recipe.batch, replace=False)
        views = moved(pictures[rows], recipe.shift, rng)
        text = texts[rows, rng.integers(recipe.captions, size=recipe.batch)]
        loss = caption_loss(model, to_input(views), text, tokens)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(100))  # as CLIP does (Radford et al. 2021, Sec. 2.5)
        measure = probe and (step % probe_every == 0 or step == recipe.steps - 1)
        history.append({"step": step + 1, "views": (step + 1) * recipe.batch, "loss": loss.item(),
                        "accuracy": probe(model) if measure else None})
    model.visual.to(memory_format=torch.contiguous_format)
    return model.eval().requires_grad_(False), history


def train_live(seed=0, *, steps=None, progress=None, cache=None):
    """`train` with the short recipe LIVE, from chance upwards in some 15 seconds on two quiet cores."""
    return train(LIVE, steps=steps, seed=seed, progress=progress, cache=cache)


def training_data(recipe, seed, cache=None):
    """What a run learns from.

    Returns
    -------
    pictures : uint8 array (n, 32, 32, 3)
    tokens : int tensor (t, 77), of all different captions
    texts : int array (n, captions), rows of `tokens` that belong to a picture
    """
    import clip

    scenes, captions = training_captions(recipe, seed)
    different = sorted({caption for own in captions for caption in own})
    number = {caption: row for row, caption in enumerate(different)}
    texts = np.array([[number[caption] for caption in own] for own in captions])
    return world.pictures(scenes, cache, recipe.resolution), clip.tokenize(different), texts


def training_captions(recipe, seed):
    """Scenes (list of n) and their captions (n lists of `recipe.captions` strings)."""
    pairs = world.pairs(recipe.pictures, seed, rates=recipe.rates, people=recipe.people, role="clip")
    captions = [[pair.caption] for pair in pairs]
    kinds, shares = list(recipe.rates), list(recipe.rates.values())
    for pair, own in zip(pairs, captions, strict=True):
        rng = random.Random(f"captions {pair.scene.seed}")
        more = rng.choices(kinds, shares, k=recipe.captions - 1)
        own += [world.caption(pair.scene, kind, rng) for kind in more]
    return [pair.scene for pair in pairs], captions


def learning_rate(recipe, step):
    """Linear warm-up, then a cosine down to zero."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    share = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


def moved(pictures, shift, rng):
    """Each picture moved by up to `shift` pixels, its edge repeated: (n, s, s, 3) -> (n, s, s, 3)."""
    n, size = pictures.shape[:2]
    steps = np.arange(size)
    down, right = rng.integers(-shift, shift + 1, size=(2, n, 1))
    rows, columns = (steps + down).clip(0, size - 1), (steps + right).clip(0, size - 1)  # (n, s)
    return pictures[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]


def caption_loss(model, images, text, tokens):
    """CLIP's contrastive loss, in which equal captions of a batch are one text.

    Parameters
    ----------
    images : float tensor (b, 3, s, s)
    text : int array (b,), each picture's row of `tokens`;  tokens : int tensor (t, 77)

    Returns
    -------
    loss : scalar tensor. A picture has one right text; a text has as many right pictures as bear it, and
        its target is spread evenly over them. With all captions different this is CLIP's own loss
        (Radford et al. 2021, Fig. 3).
    """
    different, which = np.unique(text, return_inverse=True)  # (u,), (b,)
    batch, which = tokens[different], torch.as_tensor(which)
    batch = batch[:, :int(batch.argmax(dim=1).max()) + 1]  # cut at the batch's longest text
    image_features = F.normalize(model.encode_image(images), dim=1)      # (b, d)
    text_features = F.normalize(model.encode_text(batch), dim=1)         # (u, d)
    logits = model.logit_scale.exp() * image_features @ text_features.T  # (b, u)
    bears = F.one_hot(which, len(different)).float()                     # (b, u)
    image_loss = F.cross_entropy(logits, which)
    text_loss = F.cross_entropy(logits.T, (bears / bears.sum(dim=0)).T)
    return (image_loss + text_loss) / 2


@torch.inference_mode()
def encode_pictures(model, pictures, block=500):
    """uint8 pictures (n, 32, 32, 3) -> unit image features (n, d), float32."""
    was_training = model.training
    model.eval()
    features = [model.encode_image(to_input(pictures[i:i + block])) for i in range(0, len(pictures), block)]
    model.train(was_training)
    return F.normalize(torch.cat(features), dim=1).numpy()


@torch.inference_mode()
def encode_names(model, class_names):
    """Unit text features (c, d) of the prompts "a photo of a NAME"."""
    import clip

    tokens = clip.tokenize([f"a photo of a {name}" for name in class_names])
    return F.normalize(model.encode_text(tokens), dim=1).numpy()


class Probe:
    """Zero-shot accuracy over all shapes, on pictures of the everyday styles held out from training."""

    def __init__(self, seed, count=500):
        pairs = world.pairs(count, seed, people=0.0, role="probe")
        self.names = list(world.SHAPES)
        self.labels = np.array([self.names.index(pair.scene.shape) for pair in pairs])
        self.pictures = world.pictures([pair.scene for pair in pairs])

    def __call__(self, model):
        scores = encode_pictures(model, self.pictures) @ encode_names(model, self.names).T  # (n, c)
        return float((scores.argmax(axis=1) == self.labels).mean())


def zero_shot_accuracy(model, name, seed=0, *, limit=None, cache=None):
    """Accuracy (a fraction) of the model on one of the three test sets, with the paper's one prompt."""
    test = world.test_set(name, seed)
    pictures = world.pictures(test.scenes[:limit], cache)
    scores = encode_pictures(model, pictures) @ encode_names(model, test.class_names).T  # (n, c)
    return float((scores.argmax(axis=1) == test.labels[:limit]).mean())


def save_weights(model, path, *, recipe, seed):
    """Write the weights in half precision, rows of tokens that no caption holds set to zero.

    The metadata hold what made them: recipe_hash, world_version, seed, steps.
    """
    import clip
    from safetensors.torch import save_file

    state = {name: value.half() if value.is_floating_point() else value.clone()
             for name, value in model.state_dict().items()}
    _, captions = training_captions(recipe, seed)
    used = clip.tokenize(sorted({caption for own in captions for caption in own})).unique()
    unused = torch.ones(recipe.vocabulary, dtype=torch.bool)
    unused[used] = False
    state["token_embedding.weight"][unused] = 0
    metadata = {"recipe_hash": recipe_hash(recipe), "world_version": str(world.WORLD_VERSION),
                "seed": str(seed), "steps": str(recipe.steps)}
    with atomic_path(path) as temporary:
        save_file({name: value.contiguous() for name, value in state.items()}, temporary, metadata=metadata)


def read_metadata(path=None):
    """What `save_weights` wrote beside the weights (default: the shipped ones): dict of strings."""
    from safetensors import safe_open

    with safe_open(path or tiny_clip_path(), framework="pt") as file:
        return file.metadata()


def load_weights(path=None):
    """The tiny CLIP from a file of `save_weights` (default: the shipped one): clip.model.CLIP, eval, fp32."""
    from clip.model import build_model
    from safetensors.torch import load_file

    return build_model(load_file(path or tiny_clip_path())).float().requires_grad_(False)


def main(arguments=None):
    """Repeat the whole recipe and write the weights."""
    from tqdm import tqdm

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="default: %(default)s")
    parser.add_argument("--out", default=tiny_clip_path(), help="default: %(default)s")
    options = parser.parse_args(arguments)
    torch.set_num_threads(THREADS)
    recipe = Recipe(steps=options.steps)
    model, history = train(recipe, seed=options.seed, progress=lambda steps: tqdm(steps, desc="tiny CLIP"))
    save_weights(model, options.out, recipe=recipe, seed=options.seed)
    print(f"accuracy over {len(world.SHAPES)} shapes on held-out pictures: {history[-1]['accuracy']:.1%}")
    for name in world.CLASS_NAMES:
        print(f"zero-shot accuracy on {name}: {zero_shot_accuracy(model, name):.1%}")
    print(f"weights: {options.out}")


if __name__ == "__main__":
    main()
