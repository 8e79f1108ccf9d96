"""Names taken out of descriptions, on texts and casts as Condensed Movies has them."""

from pathlib import Path

import pytest

from impart_utils.sources.cast_names import guess_names, names_of_cast, without_names
from impart_utils.sources.condensed_movies import paper_gallery, split_clips

METADATA = Path(__file__).parents[2] / "shared" / "data" / "metadata"


@pytest.mark.parametrize(("character", "names"), [
    ("Yi       (voice)", {"Yi"}),
    ("Viktor Drago       (as Florian 'Big Nasty' Munteanu)", {"Viktor Drago", "Viktor", "Drago"}),
    ("Batman /              Bruce Wayne", {"Batman", "Bruce Wayne", "Bruce", "Wayne"}),
    ("Dr. Sivana", {"Sivana"}), ("Young Darryl", {"Darryl"}), ("Éponine", {"Éponine"}),
    ("Convict 1", {"Convict"}), ("French Soldier 2", {"French"}),  # roles it can't know: listed for review
    ("Max's Dad", set()), ("Mother", set()),
    ("The Miner & Harry Warden", {"Miner", "Harry Warden", "Harry", "Warden"}),
])
def test_names_of_a_character(character, names):
    assert set(names_of_cast({"": character})) == names


def test_names_come_longest_first_and_from_both_sides():
    assert names_of_cast({"Damon Wayans": "Darryl Walker"}) == [
        "Darryl Walker", "Damon Wayans", "Darryl", "Walker", "Wayans", "Damon"]
    assert names_of_cast({}) == []


CAST = names_of_cast({"Damon Wayans": "Darryl Walker", "Mark Strong": "Dr. Sivana", "Jacob Tremblay": "Max",
                      "Michael B. Jordan": "Adonis Johnson"})


@pytest.mark.parametrize(("text", "bare"), [
    ("Darryl Walker meets Max.", "Someone meets someone."),
    ("Darryl (Damon Wayans) saves Max's dog.", "Someone saves someone's dog."),
    ("Dr. Sivana fights (in the rain) with Mr. Walker.", "Someone fights (in the rain) with someone."),
    ("The maximum is Maxine's, to the max.", "The maximum is Maxine's, to the max."),
    ("the end", "the end"), ("", ""),
    ("An army led by Adonis Johnson, and Max", "An army led by someone, and someone"),
])
def test_texts_without_names(text, bare):
    assert without_names(text, CAST) == bare


def test_another_word_may_stand_for_a_name_and_no_names_change_nothing():
    assert without_names("Max runs to Max.", ["Max"], replacement="a person") == "A person runs to a person."
    assert without_names("Max runs.", []) == "Max runs."
    assert without_names("C++ (by A.B.)", ["C++", "A.B."]) == "C++ (by A.B.)"  # a name is no pattern


def test_names_are_guessed_from_capitals_inside_sentences():
    texts = ["The boys meet Hannah in London.", "Hannah's dog bites the boys.",
             "Boys will be boys. Meanwhile, rain.", "When Max sleeps, the dog barks.",
             "The Dog barks at Max; the dog is mad."]
    assert guess_names(texts) == ["Hannah", "London", "Max"]
    assert "Dog" in guess_names(texts, share=0.2)
    assert guess_names([]) == []


@pytest.mark.skipif(not METADATA.is_dir(), reason="shared/data/metadata is absent")
def test_guesses_on_the_real_descriptions():
    names = set(guess_names(split_clips(METADATA, "all")["description"][::4]))
    assert {"Max", "Hannah", "Darryl", "Marius", "Viktor"} <= names
    assert not {"People", "House", "The", "When", "Fight", "Boys", "Team", "Love"} & names
    texts = paper_gallery(METADATA)["description"]
    bare = [without_names(text, [name for name in names if name in text]) for text in texts]
    named = [text for text in texts if "Darryl" in text]
    assert len(named) >= 3 and not any("Darryl" in text for text in bare)
    assert sum(a != b for a, b in zip(texts, bare, strict=True)) > 70  # most descriptions name somebody
