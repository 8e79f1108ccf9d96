"""Cells that answer to sliders in JupyterLab and show one still picture where nobody can move them."""

import os


def is_live():
    """True where a person may sit before the notebook: not in a run of `./run_all.sh`, not in its book."""
    return "IMPART_RUN_ID" not in os.environ


def explore(draw, **choices):
    """Show `draw(**values)` and, in a live notebook, controls that draw it again.

    Parameters
    ----------
    draw : function of keywords that returns a Figure or a table
    **choices : per keyword a (low, high, start) tuple of whole numbers or fractions for a slider, or a list
        for a menu whose first entry is the start, or a str for a text box

    Returns
    -------
    shown : what `draw` returns at the start values; in a live notebook the controls with it below them.
        A headless run and the book thus hold the still picture. An error of `draw` is shown in its place
        until the controls move on.

    Raises
    ------
    ValueError : a choice that is none of these.
    """
    start = {name: _start(name, choice) for name, choice in choices.items()}
    if not is_live():
        return _drawn(draw, start)
    from ipywidgets import VBox, interactive_output

    controls = {name: _control(name, choice) for name, choice in choices.items()}

    def redraw(**values):
        from IPython.display import display

        display(_drawn(draw, values))

    return VBox([*controls.values(), interactive_output(redraw, controls)])


def _drawn(draw, values):
    """What `draw` returns, its figure closed, also after an error: an open one would be shown once more.

    A dollar that somebody types is a dollar, not the start of a formula.
    """
    import matplotlib
    from matplotlib import pyplot as plt

    before = matplotlib.rcParams["text.parse_math"]
    matplotlib.rcParams["text.parse_math"] = False  # not by rc_context: it undoes a first figure's switches
    try:
        return draw(**values)
    finally:
        matplotlib.rcParams["text.parse_math"] = before
        plt.close("all")


def _start(name, choice):
    if isinstance(choice, str):
        return choice
    if isinstance(choice, list) and choice:
        first = choice[0]
        return first[1] if isinstance(first, tuple) else first  # (label, value), as ipywidgets has it
    if isinstance(choice, tuple) and len(choice) == 3 and choice[0] <= choice[2] <= choice[1]:
        return choice[2]
    raise ValueError(f"Expected {name} to be (low, high, start), a list of entries or a text, got "
                     f"{choice!r}.")


def _control(name, choice):
    import ipywidgets

    style = {"description": name.replace("_", " "), "style": {"description_width": "initial"}}
    if isinstance(choice, str):
        return ipywidgets.Text(choice, continuous_update=False, **style)
    if isinstance(choice, list):
        return ipywidgets.Dropdown(options=choice, value=_start(name, choice), **style)
    low, high, start = choice
    slider, step = ((ipywidgets.IntSlider, 1) if all(isinstance(value, int) for value in choice)
                    else (ipywidgets.FloatSlider, (high - low) / 40))
    return slider(value=start, min=low, max=high, step=step, continuous_update=False, **style)
