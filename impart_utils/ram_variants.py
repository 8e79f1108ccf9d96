"""RAM under its names: the paper's code, and the same with one thing changed at a time."""

import itertools

# what `ram.RAM` is made with; every other setting is `training.train_ram`'s
RAM_OPTIONS = ("heads", "layers", "normalize", "between", "gate", "attention")

# branch main of the paper's code; torch's Adam with its defaults, no schedule, no clipping
PAPER_CODE = {"epochs": 8, "batch_size": 100, "learning_rate": 1e-3, "temperature": 1.0}

_PAPER = {"heads": 8, "layers": 2, "normalize": "none", "between": "relu", "gate": None,
          "attention": "learned", **PAPER_CODE, "learn_temperature": False, "schedule": "constant"}

CONFIGURATIONS = {
    "paper_code": _PAPER,
    "branch": {**_PAPER, "normalize": "branch"},   # two readings of Fig. 1's "normalized", which no branch
    "sum": {**_PAPER, "normalize": "sum"},         # of the paper's code has
    "no_relu": {**_PAPER, "between": "none"},
    "temperature_0.07": {**_PAPER, "temperature": 0.07},  # where CLIP's own training starts
    "temperature_0.01": {**_PAPER, "temperature": 0.01},  # where it ends
    # CLIP's rule: T is a parameter, starts at 0.07 and never falls below 0.01 (Radford et al. 2021, Sec. 2.5)
    "learned_temperature": {**_PAPER, "temperature": 0.07, "learn_temperature": True},
    "zero_gate": {**_PAPER, "gate": "zero"},
    "one_layer": {**_PAPER, "layers": 1},
    "mean": {**_PAPER, "attention": "mean"},       # control: no attention, each neighbor counts the same
}


def configuration(name="paper_code", **changes):
    """The options and settings of a named configuration, some replaced.

    Parameters
    ----------
    name : str, one of `CONFIGURATIONS`;  **changes : any of its entries

    Returns
    -------
    settings : dict, a copy. `parts` divides it into what `RAM` and what `train_ram` take.

    Raises
    ------
    ValueError : unknown name or entry; the message lists the known.
    """
    if name not in CONFIGURATIONS:
        raise ValueError(f"Unknown configuration {name!r}. Known: {', '.join(CONFIGURATIONS)}.")
    unknown = sorted(set(changes) - set(_PAPER))
    if unknown:
        raise ValueError(f"Unknown setting {unknown[0]!r} of RAM. Known: {', '.join(_PAPER)}.")
    return {**CONFIGURATIONS[name], **changes}


def every_combination(scales=("raw", "unit", "mixed")):
    """The factorial of Fig. 1's questions: temperature x normalization x gate x ReLU x input scale.

    Parameters
    ----------
    scales : sequence of str, the inputs to cross (see `reference.scaled`)

    Returns
    -------
    changes : dict name -> arguments of `cached.ram_job`; the first is the paper's code at the first scale. A
        name says what is there: the gate and the ReLU are left out of it where they are left out.
    """
    found, words = {}, {"zero": "gate", "relu": "ReLU"}
    for temperature, normalize, gate, between, scale in itertools.product(
            (1.0, 0.07, 0.01), ("none", "branch", "sum"), (None, "zero"), ("relu", "none"), scales):
        said = [f"T = {temperature:g}", normalize, *(words[x] for x in (gate, between) if x in words), scale]
        found[", ".join(said)] = {"temperature": temperature, "normalize": normalize, "gate": gate,
                                  "between": between, "scale": scale}
    return found


def parts(settings):
    """(options of `ram.RAM`, settings of `training.train_ram`) of a `configuration`."""
    options = {name: value for name, value in settings.items() if name in RAM_OPTIONS}
    return options, {name: value for name, value in settings.items() if name not in RAM_OPTIONS}
