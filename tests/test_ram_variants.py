"""Named configurations: each is the paper's code with one thing changed."""

import pytest

from impart_utils import training
from impart_utils.ram import RAM
from impart_utils.ram_variants import (
    CONFIGURATIONS,
    PAPER_CODE,
    RAM_OPTIONS,
    configuration,
    every_combination,
    parts,
)


def test_the_papers_code():
    """original_code.md, section 1: RAM, loss, optimizer of branch main."""
    assert PAPER_CODE == {"epochs": 8, "batch_size": 100, "learning_rate": 1e-3, "temperature": 1.0}
    assert configuration() == configuration("paper_code") == {
        **PAPER_CODE, "heads": 8, "layers": 2, "normalize": "none", "between": "relu", "gate": None,
        "attention": "learned", "learn_temperature": False, "schedule": "constant"}
    assert parts(configuration())[0] == RAM(16).options  # RAM's own defaults


@pytest.mark.parametrize("name, changed", [
    ("branch", {"normalize"}), ("sum", {"normalize"}), ("no_relu", {"between"}),
    ("temperature_0.07", {"temperature"}), ("temperature_0.01", {"temperature"}),
    ("learned_temperature", {"temperature", "learn_temperature"}), ("zero_gate", {"gate"}),
    ("one_layer", {"layers"}), ("mean", {"attention"})])
def test_the_others_change_one_thing(name, changed):
    paper, other = configuration(), configuration(name)
    assert {entry for entry in paper if paper[entry] != other[entry]} == changed and set(paper) == set(other)


def test_each_name_is_tested_above():
    assert len(CONFIGURATIONS) == 10 and training.CONFIGURATIONS is CONFIGURATIONS


def test_changes_are_merged_into_a_copy():
    changed = configuration("branch", temperature=0.07, gate="zero")
    assert (changed["normalize"], changed["temperature"], changed["gate"]) == ("branch", 0.07, "zero")
    assert CONFIGURATIONS["branch"]["gate"] is None


def test_parts_are_what_ram_and_training_take():
    options, settings = parts(configuration("zero_gate"))
    assert set(options) == set(RAM_OPTIONS) and not set(settings) & set(options)
    assert RAM(16, **options).gate is not None
    with pytest.raises(ValueError, match="Expected one text and one row"):  # all settings are known to it
        training.train_ram(RAM(16, **options), [], [], [], [], [], seed=0, **settings)


@pytest.mark.parametrize("name, changes, message", [
    ("paper", {}, "Unknown configuration 'paper'. Known: paper_code, branch, sum, no_relu"),
    ("branch", {"head": 4}, "Unknown setting 'head' of RAM. Known: heads, layers, normalize")])
def test_unknown_names_list_the_known(name, changes, message):
    with pytest.raises(ValueError, match=message):
        configuration(name, **changes)


def test_every_combination_is_there_once_under_a_name_of_its_own():
    found = every_combination()
    assert len(found) == 3 * 3 * 2 * 2 * 3
    assert len({tuple(change.values()) for change in found.values()}) == len(found)
    first, change = next(iter(found.items()))
    assert first == "T = 1, none, ReLU, raw" and change.pop("scale") == "raw"
    assert configuration(**change) == configuration("paper_code")
    assert found["T = 0.01, sum, gate, mixed"] == {"temperature": 0.01, "normalize": "sum", "gate": "zero",
                                                   "between": "none", "scale": "mixed"}
    assert len(every_combination(("unit",))) == 36
