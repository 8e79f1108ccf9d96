"""What a run is asked to do: which notebooks, with which parameters, from which inputs; checked first."""

import ast
import dataclasses
import textwrap
from contextlib import suppress

from impart_utils import config


class Stop(Exception):
    """Ends the run with a message for the user, without a traceback."""


def choose(paths, only):
    """The notebooks whose numbers `only` names ("02,4"), in order; all of them where it is None."""
    known = {path.name[:2]: path for path in paths}
    if not known:
        raise Stop("Found no notebooks named like 00_name.ipynb.")
    numbers = known if only is None else [number.strip().zfill(2) for number in only.split(",")]
    for number in numbers:
        if number not in known:
            raise Stop(f"Unknown notebook {number!r}. Known: {', '.join(path.stem for path in paths)}.")
    return [known[number] for number in sorted(set(numbers))]


def parse_settings(pairs):
    """["top_k=16", "limit=null"] -> {"top_k": 16, "limit": None}; what is no literal stays text."""
    settings = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise Stop(f"Expected --set NAME=VALUE, got {pair!r}.")
        words = {"null": None, "none": None, "true": True, "false": False}
        settings[name] = words.get(text.lower(), text)
        with suppress(ValueError, SyntaxError):
            value = ast.literal_eval(text)
            settings[name] = value if isinstance(value, (int, float, str, list, dict, type(None))) else text
    return settings


def assign(settings, paths, profile, packs=None):
    """The parameters of each notebook: the profile, and those of `settings` and of the packs that it has."""
    import papermill

    known = {path: list(papermill.inspect_notebook(str(path))) for path in paths}
    names = sorted({name for parameters in known.values() for name in parameters} - {"profile"})
    where = {name: ", ".join(path.name[:2] for path in paths if name in known[path]) for name in names}
    if "profile" in settings:
        raise Stop("The profile has its own option: --profile demo or --profile paper.")
    for unknown in sorted(set(settings) - set(names)):
        listed = "; ".join(f"{name} ({numbers})" for name, numbers in where.items()) or "none"
        raise Stop(f"No notebook of this run has a parameter {unknown!r}. Known, and where: {listed}.")
    given = {**settings, **(packs.settings if packs else {})}
    return {path: {"profile": profile, **{name: given[name] for name in given if name in known[path]}}
            for path in paths}


def as_config(profile, settings):
    """The configuration that these settings give; other names among them are notebooks' own."""
    known = {field.name for field in dataclasses.fields(config.Config)} - {"profile"}
    return config.load_config(profile, **{name: settings[name] for name in known & set(settings)})


def find_packs(options, settings):
    """What `--features DIR` finds, printed; None without that option."""
    if options.features is None:
        return None
    from impart_utils.preflight import take_packs

    try:
        folder = config.full_path(options.features)
        packs = take_packs(folder, as_config(options.profile, settings), given=settings)
    except (ValueError, FileNotFoundError) as error:
        raise Stop(str(error)) from error
    print(f"Features from {folder}:\n" + textwrap.indent("\n".join(packs.told), "  "))
    return packs


def check_inputs(profile, settings, paths, packs=None):
    """(the run's configuration, {notebook: why it's skipped}): what is wrong or missing, before the first.

    Without packs nothing is skipped: what a notebook lacks stops the run.
    """
    numbers = {path.name[:2]: path for path in paths}
    try:
        run_config = as_config(profile, {**settings, **(packs.settings if packs else {})})
        if packs:
            from impart_utils.preflight import reasons_to_skip

            reasons = reasons_to_skip(run_config, numbers, packs.lacking)
            told = [f"Skipped {numbers[number].stem}: {reason}" for number, reason in reasons.items()]
            if len(reasons) == len(paths):
                raise Stop("\n".join(["No notebook of this run can run from these packs.", *told]))
            print(*told, sep="\n", end="\n" if told else "")
            return run_config, {numbers[number]: reason for number, reason in reasons.items()}
        if not run_config.is_toy:  # imports take a second
            from impart_utils.preflight import require_inputs

            require_inputs(run_config, numbers, metadata=settings.get("metadata"))
    except (ValueError, FileNotFoundError, config.MissingInput) as error:
        raise Stop(str(error)) from error
    return run_config, {}
