"""Names of characters and actors in descriptions: found and taken out.

Descriptions of clips name who acts, which pictures don't show. With and without names are two questions.
"""

import re
from collections import Counter

# Words of cast lists that name a role or a rank, not a person
ROLES = frozenset("""a an and as the of to in on his her my young old older little big first second third
    mr mrs ms miss dr doctor sir lady lord madame monsieur captain commander cmdr colonel general sergeant sgt
    lieutenant lt major officer agent detective inspector chief sheriff president mayor king queen
    prince princess father mother dad mom brother sister son daughter uncle aunt grandma grandpa
    grandmother grandfather wife husband man woman boy girl guy kid child baby voice self himself
    herself narrator soldier cop guard driver waiter waitress nurse teacher priest reporter
    bartender host crowd group friend boss student jr sr ii iii""".split())
TITLES = "Mr|Mrs|Ms|Miss|Dr|Sir|Lady|Lord|Captain|Colonel|General|Sergeant|Lieutenant|Officer|Agent|Detective"
WORD = r"[^\W\d_][\w'’.-]*"


def names_of_cast(cast):
    """All names a description may use for a movie's cast: full names, first and last names, of both kinds.

    Parameters
    ----------
    cast : dict actor -> character, as `condensed_movies.casts` gives it, such as
        ``{"Dolph Lundgren": "Ivan Drago", "Chloe Bennet": "Yi (voice)"}``

    Returns
    -------
    names : list of str, longest first. Ranks and roles ("Dr.", "Young", "French Soldier 2") are no names.
    """
    found = set()
    for text in [*cast, *cast.values()]:
        text = re.sub(r"\(.*?\)", " ", text)  # (voice), (as Michael Holt)
        for person in re.split("[/&]", text):  # Batman / Bruce Wayne
            parts = [part.strip("'\"‘’“”.,") for part in person.split()]
            proper = [part for part in parts if part[:1].isupper() and part.lower().strip(".") not in ROLES
                      and len(part) > 1 and not re.search(r"\d|['’]s$", part)]
            found.update(proper)
            if len(proper) > 1:
                found.add(" ".join(proper))
    return sorted(found, key=lambda name: (-len(name), name))


def without_names(text, names, *, replacement="someone"):
    """A description in which each name is replaced; an actor's name in parentheses goes with them.

    Parameters
    ----------
    text : str;  names : list of str, only matched as whole words with a capital letter, as written
    replacement : str; neighbors that become the same ("Ivan Drago") are one, a possessive keeps its 's

    Returns
    -------
    text : str, beginning with a capital letter if it did before
    """
    if not names:
        return text
    ordered = sorted(names, key=len, reverse=True)  # a full name before its parts
    pattern = r"\b(?:" + "|".join(re.escape(name) for name in ordered) + r")(?=['’]s\b|s?\b)"
    bare = re.sub(r"\s*\([^()]*\)", lambda found: "" if re.search(pattern, found[0]) else found[0], text)
    bare = re.sub(pattern, replacement, bare)
    again = rf"\b(?:{TITLES})\.? +(?={replacement}\b)|\b{replacement}(?: +{replacement}\b)+"
    bare = re.sub(again, lambda found: replacement if found[0].startswith(replacement) else "", bare)
    return bare[:1].upper() + bare[1:] if text[:1].isupper() else bare


def guess_names(texts, *, share=0.95):
    """Names in many texts without a cast list: words nearly always written with a capital letter.

    Parameters
    ----------
    texts : list of str, the more the better: a word such as "people" then shows itself in small letters, too
    share : float, least share of a word's occurrences with a capital

    Returns
    -------
    names : list of str. It is a guess: places ("London") and peoples ("French") are among them, and what
        begins a sentence only ("Meanwhile", seen rarely) is left out.
    """
    capital, small, inside = Counter(), Counter(), Counter()
    for text in texts:
        for sentence in re.split(r"[.!?:\"]\s+", text):
            for place, word in enumerate(re.findall(WORD, sentence)):
                word = re.sub(r"['’]s$|['’.-]+$", "", word)
                (capital if word[:1].isupper() else small)[word.lower()] += 1
                inside[word] += place > 0 and word[:1].isupper()
    return sorted(word for word, count in inside.items() if count and len(word) > 1
                  and capital[word.lower()] >= share * (capital[word.lower()] + small[word.lower()])
                  and word.lower() not in ROLES)
