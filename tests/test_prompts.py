"""Prompt templates and class names: the published lists as they were published, and what has none."""

import hashlib

import pytest

from impart_utils.sources import caltech, prompts
from impart_utils.toy_world import scenes
from impart_utils.zeroshot import class_features

CIFAR100 = ["aquarium_fish", "lawn_mower", "maple_tree", "oak_tree", "palm_tree", "pickup_truck", "pine_tree",
            "sweet_pepper", "willow_tree", "apple"]  # torchvision's names that have underscores, and one


def digest(lines):
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


@pytest.mark.parametrize("dataset, count, published", [
    ("cifar10", 18, "9bbf912e1144ca4c"), ("cifar100", 18, "9bbf912e1144ca4c"),
    ("caltech101", 34, "90561580b7ea5dba")])
def test_templates_are_the_published_ones(dataset, count, published):
    """Hashes of the lists in openai/CLIP, data/prompts.md (commit 04f4dc2), in their order."""
    found = prompts.templates("openai", dataset)
    assert len(set(found)) == len(found) == count and digest(found) == published
    assert all(template.count("{}") == 1 for template in found)


def test_caltechs_names_are_the_published_ones():
    """One more space in "head of a  crocodile", which CLIP's tokenizer drops, is left out here."""
    folders = sorted(caltech.COUNTS)  # capitals first, as torchvision, and as the published list has them
    clean = prompts.class_names("clean", "caltech101", folders)
    assert len(set(clean)) == 102 and digest(clean) == "5fc74dfb21dc46ad"
    names = dict(zip(folders, clean, strict=True))
    assert names["Faces"] == "off-center face" and names["Faces_easy"] == "centered face"
    assert names["car_side"] == "side of a car" and names["BACKGROUND_Google"] == "background"


def test_the_papers_prompt_is_one_template_and_its_names_are_raw():
    for dataset in ("cifar10", "caltech101", "toy10", "folder:pets"):
        assert prompts.templates("paper", dataset) == ("a photo of a {}",)
    assert prompts.class_names("raw", "caltech101", ("Faces_easy", "car_side")) == ["Faces_easy", "car_side"]


def test_clean_names_without_a_published_list_have_spaces():
    clean = prompts.class_names("clean", "cifar100", CIFAR100)
    assert clean == ["aquarium fish", "lawn mower", "maple tree", "oak tree", "palm tree", "pickup truck",
                     "pine tree", "sweet pepper", "willow tree", "apple"]
    assert prompts.class_names("clean", "folder:x", ["Faces", "ice_cream"]) == ["Faces", "ice cream"]
    for name, raw in scenes.CLASS_NAMES.items():
        assert prompts.class_names("clean", name, raw) == raw


def test_other_data_sets_get_the_general_ensemble():
    general = prompts.templates("openai", "toy10")
    assert general == prompts.templates("openai", "folder:pets") == prompts.GENERAL
    assert len(general) == 7 and general[0] == "itap of a {}." and "a {} in a video game." in general


@pytest.mark.parametrize("asked, dataset, words", [
    ("paper", "cifar10", "a photo of a {}"), ("openai", "cifar100", "openai (18 templates)"),
    ("openai", "caltech101", "openai (34 templates)"), ("openai", "toy101", "openai (7 templates)")])
def test_described_in_a_results_row(asked, dataset, words):
    assert prompts.described(asked, dataset) == words


def test_what_does_not_exist_is_named():
    with pytest.raises(ValueError, match="Unknown prompts 'best'. Known: paper, openai, stored"):
        prompts.templates("best", "cifar10")
    with pytest.raises(ValueError, match="Unknown names 'Clean'. Known: raw, clean, stored"):
        prompts.class_names("Clean", "cifar10", ["a"])
    with pytest.raises(ValueError, match="cifar10 has no stored prompts: only a feature pack has .*'openai'"):
        prompts.templates("stored", "cifar10")
    with pytest.raises(ValueError, match="toy10 has no stored names: .*Give names='raw' or 'clean'"):
        prompts.class_names("stored", "toy10", ["a"])


@pytest.mark.parametrize("name", ["TCP/IP", "{}", "{0}", "{name}", "100%", "%s", "a\\b", "50 % {off}"])
def test_any_class_name_goes_into_a_template_as_it_is(name):
    asked = []

    def encode(texts):
        asked.extend(texts)
        return [[1.0, 2.0]] * len(texts)

    class_features(encode, [name], prompts.templates("openai", "cifar10"))
    assert asked[:2] == [f"a photo of a {name}.", f"a blurry photo of a {name}."] and len(asked) == 18
