"""RAM on disk: trained weights, and a training between two epochs so that it can go on.

safetensors with a JSON header, RAM alone: the frozen CLIP, nine times in the paper's checkpoints, in none.
"""

import json
from dataclasses import dataclass, field

import torch

from impart_utils.adam import Adam
from impart_utils.ram import RAM
from impart_utils.sources.files import atomic_path


def save_ram(path, ram, options, history=()):
    """Write RAM's weights (safetensors); `new_ram`'s options and the history stand in the header."""
    from safetensors.torch import save_file

    header = {"dim": json.dumps(ram.dim), "options": json.dumps(options),
              "history": json.dumps(list(history))}
    with atomic_path(path) as temporary:
        save_file(_contiguous(ram.state_dict()), temporary, metadata=header)


def load_ram(path):
    """(ram in eval mode, history) as `save_ram` wrote them."""
    header, weights = _read(path)
    if "options" not in header:
        raise ValueError(f"{path} holds no RAM: its header lacks the options. Write it with save_ram.")
    with torch.random.fork_rng():  # the start that is drawn here is thrown away
        ram = RAM(json.loads(header["dim"]), **json.loads(header["options"]))
    ram.load_state_dict(weights)
    return ram.eval(), json.loads(header["history"])


def load_history(path):
    """The history alone, from the header of a file of `save_ram`."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["history"])


@dataclass
class TrainingState:
    """All that the next epoch depends on besides data and settings.

    Attributes
    ----------
    ram : RAM;  log_temperature : tensor (), ln T;  optimizer : Adam over both
    order : torch.Generator, draws the order of the batches;  history : list of dict
    best : state dict of the epoch with the lowest validation loss; empty where none is kept
    """

    ram: torch.nn.Module
    log_temperature: torch.Tensor
    optimizer: Adam
    order: torch.Generator
    history: list = field(default_factory=list)
    best: dict = field(default_factory=dict)


def save_state(path, state, key):
    """Write a `TrainingState`; `key` names the data and settings that it belongs to."""
    from safetensors.torch import save_file

    tensors = {f"ram.{name}": value for name, value in state.ram.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in state.best.items()}
    tensors |= {f"adam.{row}.{name}": value for name, values in state.optimizer.state.items()
                for row, value in enumerate(values)}
    tensors |= {"log_temperature": state.log_temperature.detach(), "order": state.order.get_state()}
    with atomic_path(path) as temporary:
        save_file(_contiguous(tensors), temporary,
                  metadata={"training": key, "history": json.dumps(state.history)})


def load_state(path, state, key):
    """Put what `save_state` wrote into `state`, to the last bit.

    Raises
    ------
    ValueError : another file, or the checkpoint of a training with other data or settings.
    """
    header, tensors = _read(path)
    if "training" not in header:
        raise ValueError(f"{path} is no checkpoint of a training. Choose another path for checkpoint.")
    if header["training"] != key:
        raise ValueError(f"The checkpoint {path} belongs to another training: its data, settings or start "
                         "differ from these. Remove it, or choose another path for checkpoint.")

    def under(prefix):
        return {name[len(prefix):]: value for name, value in tensors.items() if name.startswith(prefix)}

    state.ram.load_state_dict(under("ram."))
    for name, values in state.optimizer.state.items():
        for row, value in enumerate(values):
            value.copy_(tensors[f"adam.{row}.{name}"])
    with torch.no_grad():
        state.log_temperature.copy_(tensors["log_temperature"])
    state.order.set_state(tensors["order"])
    state.history, state.best = json.loads(header["history"]), under("best.")


def _read(path):
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}


def _contiguous(tensors):
    return {name: value.contiguous() for name, value in tensors.items()}
