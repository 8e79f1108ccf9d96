"""CLIP weights in files: formats, the names mirrors give, what a file says of itself, a copy to load from."""

import contextlib
import hashlib
import json
import re
import warnings
from pathlib import Path

from impart_utils.sources.files import atomic_path

NEEDED = ("visual.conv1.weight", "text_projection", "ln_final.weight")
TRANSFORMERS = (  # names of Hugging Face's Transformers, piece by piece -> OpenAI's
    ("vision_model.embeddings.patch_embedding", "visual.conv1"),
    ("vision_model.embeddings.position_embedding.weight", "visual.positional_embedding"),
    ("vision_model.embeddings.class_embedding", "visual.class_embedding"),
    ("vision_model.pre_layrnorm", "visual.ln_pre"),  # their spelling
    ("vision_model.post_layernorm", "visual.ln_post"),
    ("vision_model.encoder.layers", "visual.transformer.resblocks"),
    ("text_model.embeddings.token_embedding", "token_embedding"),
    ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
    ("text_model.final_layer_norm", "ln_final"),
    ("text_model.encoder.layers", "transformer.resblocks"),
    (".self_attn.", ".attn."), (".layer_norm1.", ".ln_1."), (".layer_norm2.", ".ln_2."),
    (".mlp.fc1.", ".mlp.c_fc."), (".mlp.fc2.", ".mlp.c_proj."),
)


def read_state_dict(path):
    """The state dict in a file, under OpenAI's names.

    The file may be safetensors, a plain `torch.save` or OpenAI's TorchScript archive; the names OpenAI's
    (open_clip has the same), open_clip's with a separate text tower, or those of Transformers.

    Returns
    -------
    state_dict : dict, name -> tensor, on the CPU, in the file's own precision

    Raises
    ------
    ValueError : a web page, a truncated file, a checkpoint wrapped in something else, half a CLIP, or
        something else. The message names the file and the remedy.
    """
    path = Path(path)
    with open(path, "rb") as file:
        head = file.read(512)
    if re.match(rb"(\xef\xbb\xbf)?\s*<[!?a-z]", head, re.IGNORECASE):
        raise ValueError(f"{path} is an HTML or XML page, not a checkpoint: the server answered with an "
                         "error page. Download it again.")
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path} is a Git LFS pointer, which only names the checkpoint. Get the file "
                         "itself: git lfs pull, or download it from the repository's page.")
    try:
        if head[8:9] == b"{":  # safetensors: the header's length in 8 bytes, then JSON
            from safetensors.torch import load_file

            state_dict = load_file(path)
        else:
            state_dict = _read_torch(path)
    except Exception as error:  # zip, pickle and safetensors readers each raise their own kinds
        raise ValueError(f"{path} can't be read as a checkpoint ({type(error).__name__}: "
                         f"{str(error)[:200]}). The file may be cut short: compare its size with the "
                         "source's and download it again.") from error
    return _in_openais_names(state_dict, path)


def _read_torch(path):
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit.load is deprecated, but OpenAI's file is TorchScript
        try:
            model = torch.jit.load(path, map_location="cpu")
            return {name: value.detach() for name, value in model.state_dict().items()}
        except RuntimeError as not_torchscript:
            try:
                # weights_only never runs code from the file
                return torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:
                raise error from not_torchscript


def _in_openais_names(state_dict, path):
    import torch

    if not isinstance(state_dict, dict):
        state_dict = {type(state_dict).__name__: state_dict}  # refused below by this name
    names = list(map(str, state_dict))
    towers = {name.split(".")[0] for name in names} & {"text_model", "vision_model"}
    if len(towers) == 1 or "patch_embed.proj.weight" in names:  # the latter is timm's name
        raise ValueError(f"{path} holds one tower of a CLIP without the other: its first names are "
                         f"{names[:3]}. Take the whole model's file (open_clip_model.safetensors in "
                         "open_clip's repositories, model.safetensors in those for Transformers).")
    if towers:
        state_dict = _from_transformers(state_dict, path)
    elif "text.token_embedding.weight" in names:  # open_clip's CustomTextCLIP
        state_dict = {name.removeprefix("text."): value for name, value in state_dict.items()}
    if missing := [name for name in NEEDED if name not in state_dict]:
        if inner := next((name for name, value in state_dict.items() if isinstance(value, dict)), None):
            raise ValueError(f"{path} wraps the weights under {inner!r}. Save the inner dict alone: "
                             f"torch.save(checkpoint[{inner!r}], …).")
        raise ValueError(f"{path} isn't a CLIP in a layout known here (OpenAI's, open_clip's or "
                         f"Transformers'): it has no {missing[0]!r}; its first names are {names[:3]}.")
    return {name: value for name, value in state_dict.items()
            if torch.is_tensor(value) and name != "attn_mask"}  # the causal mask, which is no weight


def _from_transformers(state_dict, path):
    """Transformers' names to OpenAI's: pieces renamed, query, key and value joined, projections turned."""
    import torch

    found = {}
    for name, value in state_dict.items():
        for theirs, ours in TRANSFORMERS:
            name = name.replace(theirs, ours)
        if not name.endswith("position_ids"):
            found[name] = value
    try:
        for name in [name for name in found if ".attn.q_proj." in name]:
            parts = [found.pop(name.replace("q_proj", f"{part}_proj")) for part in "qkv"]  # 3 times (w, w)
            found[name.replace("q_proj.", "in_proj_")] = torch.cat(parts)  # (3w, w)
        found["visual.proj"] = found.pop("visual_projection.weight").T.contiguous()  # (d, w) -> (w, d)
        found["text_projection"] = found.pop("text_projection.weight").T.contiguous()
    except KeyError as error:
        raise ValueError(f"{path} has the names of Transformers, but lacks {error}. Download it "
                         "again.") from error
    return found


# ---- what a file says of itself -----------------------------------------------------------------


def plain_gelu(path):
    """Where it is said that weights need another activation than CLIP's quick GELU, or None.

    Read from the header of a safetensors file and from config.json (Transformers) and
    open_clip_config.json beside the file. OpenAI's model code has quick GELU built in: weights that were
    trained with plain GELU load without a word and give wrong features.

    Returns
    -------
    statement : str such as 'config.json beside it says "hidden_act": "gelu"', or None
    """
    path = Path(path)
    statements = [("its header", _header(path))]
    for name in ("config.json", "open_clip_config.json"):
        with contextlib.suppress(OSError, ValueError):  # isn't there, or says nothing that can be read
            statements.append((f"{name} beside it", json.loads(path.with_name(name).read_text("utf-8"))))
    for where, config in statements:
        if found := _stated_activation(config):
            return f"{where} {found}"
    return None


def _stated_activation(config):
    if not isinstance(config, dict) or not str(config.get("model_type", "clip")).startswith("clip"):
        return None  # another model's config that lies in the same folder
    parts = [config, *(config.get(name) for name in ("text_config", "vision_config"))]
    for part in parts:
        if isinstance(part, dict) and part.get("hidden_act", "quick_gelu") != "quick_gelu":
            return f'says "hidden_act": {json.dumps(part["hidden_act"])}'
    model = config.get("model_cfg", config)
    if isinstance(model, dict) and ("vision_cfg" in model or "quick_gelu" in model):  # open_clip's
        quick = model.get("quick_gelu", False)
        if str(quick).lower() != "true":
            return f'says "quick_gelu": {json.dumps(quick)}' if "quick_gelu" in model \
                else 'has no "quick_gelu": true'
    return None


def _header(path):
    """What a safetensors file says of itself: a dict of str; {} for other files."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError):
        return {}


# ---- OpenAI's file, kept as safetensors --------------------------------------------------------


def copy_path(path):
    """Where the copy of a verified checkpoint lies: beside it, under a name that nothing else has."""
    path = Path(path)
    return path.with_name(f"{path.name}.safetensors")


def keep_copy(state_dict, path, sha256):
    """Write a copy of a verified checkpoint, from which later loads read.

    It needs neither TorchScript, which torch is about to give up, nor the checkpoint's hash.
    Where the folder can't be written to there is none, which costs time only.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    state_dict = {name: value.contiguous() for name, value in state_dict.items()}
    header = {**_stamp(path, sha256), "tensors_sha256": tensors_hash(state_dict)}
    with contextlib.suppress(OSError, SafetensorError), atomic_path(copy_path(path)) as temporary:
        save_file(state_dict, temporary, metadata=header)


def read_copy(path, sha256):
    """The state dict from the copy of a checkpoint, or None where there is none that can be trusted.

    Trusted is a copy whose header names this SHA-256 and the checkpoint's present size and time, and whose
    tensors have the hash that the header gives: a checkpoint that was replaced, another file's copy, a
    flipped bit and a cut all end it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    header = _header(copy_path(path))
    if {name: header.get(name) for name in _stamp(path, sha256)} != _stamp(path, sha256):
        return None
    try:
        state_dict = load_file(copy_path(path))
    except (OSError, SafetensorError):
        return None
    return state_dict if tensors_hash(state_dict) == header.get("tensors_sha256") else None


def _stamp(path, sha256):
    status = Path(path).stat()
    return {"sha256": sha256, "size": str(status.st_size), "mtime_ns": str(status.st_mtime_ns)}


def tensors_hash(state_dict):
    """SHA-256 over names, types, shapes and bytes of a state dict, whatever its order; hex."""
    import torch

    digest = hashlib.sha256()
    for name, value in sorted(state_dict.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
