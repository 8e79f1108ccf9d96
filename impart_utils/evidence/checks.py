"""Checks of the notebooks' exercises: right, not attempted yet, or one hint for the mistake that was made.

The tasks stand in exercises.py. An answer that equals a common mistake gets that mistake's hint, never the
answer.
"""

import numpy as np

from impart_utils.evidence.exercises import EXERCISES


def given(name):
    """What exercise `name` ("2.1") is to be computed from: a dict of small arrays and numbers."""
    return _exercise(name).given()


def check(name, answer):
    """Say whether `answer` solves exercise `name`.

    Parameters
    ----------
    name : str, such as "2.1"
    answer : number, array, tuple or str, as the exercise asks; `...` for "not attempted yet"

    Raises
    ------
    AssertionError : the answer is wrong; the message is a hint.
    ValueError : there is no such exercise.
    """
    exercise = _exercise(name)
    if answer is ... or isinstance(answer, (tuple, list)) and any(part is ... for part in answer):
        print(f"{name}: not attempted yet")
    elif _equal(answer, exercise.solution):
        print(f"{name}: correct")
    else:
        raise AssertionError(f"{name}: not yet. {_hint(exercise, answer)}")


def _exercise(name):
    if name not in EXERCISES:
        raise ValueError(f"Unknown exercise {name!r}. Known: {', '.join(EXERCISES)}.")
    return EXERCISES[name]


def _hint(exercise, answer):
    for wrong, hint in exercise.hints:
        if _equal(answer, wrong):
            return hint
    if isinstance(exercise.solution, str):
        return f"Expected another text. {exercise.prompt}"
    found, shape = _numbers(answer), np.shape(exercise.solution)
    if found is None:
        return f"Expected numbers, got {type(answer).__name__}. {exercise.prompt}"
    if found.shape != shape:
        return f"Expected shape {shape}, got {found.shape}. {exercise.prompt}"
    return f"The shape is right, the values aren't. Work one out by hand and compare. {exercise.prompt}"


def _equal(answer, value):
    if isinstance(value, str) or isinstance(answer, str):
        return isinstance(value, str) and isinstance(answer, str) and answer == value
    answer = _numbers(answer)
    if answer is None or answer.shape != np.shape(value):
        return False
    return np.allclose(answer, value, rtol=1e-4, atol=1e-6)


def _numbers(answer):
    try:
        return np.asarray(answer, dtype=float)
    except (TypeError, ValueError, RuntimeError):  # RuntimeError: a torch tensor that carries a gradient
        return None
