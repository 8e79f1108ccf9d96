"""Exercises: the solution passes, `...` is reported, each mistake gets its hint, no hint tells the answer."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from impart_utils.evidence.checks import EXERCISES, check, given
from impart_utils.training import chance_loss
from impart_utils.vanilla import augment
from impart_utils.zeroshot import predict, unit

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


@pytest.mark.parametrize("name", EXERCISES)
def test_solution_is_correct(name, capsys):
    check(name, EXERCISES[name].solution)
    assert capsys.readouterr().out == f"{name}: correct\n"


@pytest.mark.parametrize("name", EXERCISES)
@pytest.mark.parametrize("answer", [..., (..., ...), [1, ...]])
def test_ellipsis_is_not_attempted(name, answer, capsys):
    check(name, answer)
    assert capsys.readouterr().out == f"{name}: not attempted yet\n"


@pytest.mark.parametrize("name", EXERCISES)
def test_each_mistake_gets_its_own_hint(name):
    exercise = EXERCISES[name]
    assert len(exercise.hints) >= 2
    told = set()
    for mistake, hint in exercise.hints:
        with pytest.raises(AssertionError) as error:
            check(name, mistake)
        assert str(error.value) == f"{name}: not yet. {hint}"
        told.add(hint)
    assert len(told) == len(exercise.hints)


# there the verdicts are all named
@pytest.mark.parametrize("name", [name for name in EXERCISES if name != "9.1"])
def test_no_hint_tells_the_answer(name):
    solution = EXERCISES[name].solution
    if isinstance(solution, str):
        words = {solution}
    else:
        words = {f"{value:.{digits}f}" for value in np.ravel(solution) for digits in (2, 3)}
        words |= {str(value) for value in np.ravel(solution) if abs(value) > 10}
    for _, hint in EXERCISES[name].hints:
        assert not any(word in hint for word in words)


@pytest.mark.parametrize("name", [name for name in EXERCISES if name not in ("1.1", "9.1")])
def test_shape_comes_before_values(name):
    solution = np.asarray(EXERCISES[name].solution, dtype=float)
    with pytest.raises(AssertionError, match=r"Expected shape .*, got \(1, 1, "):
        check(name, np.broadcast_to(solution, (1, 1, *solution.shape)) if solution.ndim
              else np.ones((1, 1, 1)))
    with pytest.raises(AssertionError, match="The shape is right, the values aren't"):
        check(name, solution * 1.37 + 0.123)
    with pytest.raises(AssertionError, match="Expected numbers, got str"):
        check(name, "no idea")


def test_answers_may_be_lists_float32_or_rounded_a_little():
    check("2.1", EXERCISES["2.1"].solution.astype(np.float32))
    check("2.1", EXERCISES["2.1"].solution.tolist())
    check("4.1", [3, 2])
    with pytest.raises(AssertionError):
        check("2.1", EXERCISES["2.1"].solution + 0.01)


def test_known_answers_by_hand():
    check("0.1", 56 / 65)
    check("0.2", [0, 1, 0, 2])
    check("1.1", "Tom & I: our boat, at last in the harbor")
    check("2.1", [[1.29, 0.43, 0.73]])
    check("3.2", 1_050_624)
    check("4.1", (3, 2))
    check("5.1", [[1.6, 0.8], [0.6, 1.2]])
    check("6.1", 6)
    check("6.2", 5 / 8)
    check("9.1", "not comparable")


def test_the_package_solves_its_own_exercises():
    g = given("2.1")
    check("2.1", augment(g["v"], g["r_img"], g["r_txt"], image_weight=g["image_weight"],
                         text_weight=g["text_weight"]))
    check("0.2", predict(**given("0.2")))
    check("3.1", chance_loss(given("3.1")["batch_size"]))
    check("5.1", given("5.1")["h"] + unit(given("5.1")["a"]))


def test_given_is_fresh_at_every_call():
    given("2.1")["v"][:] = 99
    assert given("2.1")["v"].max() == 1.0
    check("2.1", [[1.29, 0.43, 0.73]])


def test_unknown_exercise():
    with pytest.raises(ValueError, match="Unknown exercise '7.7'. Known: 0.1, 0.2"):
        check("7.7", 1)
    with pytest.raises(ValueError, match="Unknown exercise '7.7'"):
        given("7.7")


def test_every_check_in_a_notebook_exists_and_every_exercise_is_used():
    cells = [cell for path in NOTEBOOKS.glob("*.ipynb") for cell in json.loads(path.read_text())["cells"]]
    if not cells:
        pytest.skip("there are no notebooks in this checkout")
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert set(re.findall(r'check\("(\d\.\d)"', code)) == set(EXERCISES)
