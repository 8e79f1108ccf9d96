"""From docstrings to reStructuredText: the kit's compact entries, signatures, which page a module is on."""

import ast
import re

import pytest

from impart_utils import book_api
from impart_utils.book_api import list_entries

DOCSTRING = """Do it.

    python -m kit.do FILE

Parameters
----------
first : int, which goes
    on here
second : str;  third, fourth : float; both
    of them;  last : int
fifth : a thing
    It can be anything.

Returns
-------
Two arrays, of which
the second is empty

Raises
------
ValueError : no.

Notes
-----
The end::

    as it is
"""
LISTED = """Do it.

::

    python -m kit.do FILE

:Parameters:

    - ``first`` : int, which goes
      on here
    - ``second`` : str
    - ``third, fourth`` : float; both
      of them
    - ``last`` : int
    - ``fifth`` : a thing.
      It can be anything.

:Returns:

    Two arrays, of which
    the second is empty

:Raises:

    - ``ValueError`` : no.

.. rubric:: Notes

The end::

    as it is"""
CODE = '''
@dataclass
class Pair:
    """Two."""
    left: int
    right: float = 2.0
    rest: list = field(default_factory=list)

    @property
    def sum(self):
        """Of both."""

    @staticmethod
    def make(a, *, b=(1, 2)):
        """A pair."""

    def swapped(self, *others): ...

class Model(Module):
    """A model."""
    def __init__(self, dim, *, heads=8): ...
    def forward(self, x, mask=None):
        """Runs."""

def _hidden(): ...
def main(arguments=None): ...
def scale(x, /, by: float = TWO, **options) -> float:
    """Scaled."""
'''


def test_compact_entries_become_lists():
    lines = list_entries(DOCSTRING.splitlines())
    compact = [line for number, line in enumerate(lines) if line or (number and lines[number - 1])]
    assert "\n".join(compact) == LISTED


def test_no_docstring_has_entries_outside_of_a_section():
    """They would run together into one paragraph."""
    loose = []
    for path in book_api.PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                text = re.split(r"\n\w+\n---", ast.get_docstring(node) or "")[0]
                loose += re.findall(r"^[\w, ]+ : .*", text, re.MULTILINE)
    assert loose == []


def test_equations_stay_as_they_are():
    text = "Add.\n\n.. math:: a = b\n\n.. math::\n\n    c = d\n    e"
    assert list_entries(text.splitlines()) == text.splitlines()
    assert list_entries([]) == []


def test_signatures_and_kinds():
    lines = [line.strip() for line in book_api._members(ast.parse(CODE))]
    found = [line for line in lines if line.startswith((".. ", ":"))]
    assert found == [
        ".. py:class:: Pair(left, right=2.0, rest=…)", ".. py:property:: sum",
        ".. py:method:: make(a, *, b=(1, 2))", ":staticmethod:",
        ".. py:class:: Model(dim, *, heads=8)", ".. py:method:: forward(x, mask=None)",
        ".. py:function:: scale(x, /, by: float=TWO, **options)"]


@pytest.mark.parametrize(("page", "modules"), [
    ("paper", {"vanilla", "retrieval", "ram"}), ("method", {"training", "video", "ram_files"}),
    ("data", {"reference", "sources.packs"}), ("figures", {"evidence.plots", "evidence.film_plots"}),
    ("report", {"evidence.report", "evidence.report_parts", "evidence.checks"}),
    ("measures", {"evidence.metrics", "evidence.rivals"}), ("running", {"run", "config", "book"})])
def test_modules_are_on_the_page_where_one_looks(page, modules):
    assert modules <= set(book_api.api_pages()[page][1])


def test_each_module_is_on_one_page():
    named = [name for _, names in book_api.api_pages().values() for name in names]
    assert len(named) == len(set(named)) > 100
