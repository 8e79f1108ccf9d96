"""The book's pages on the code, from the text of the modules and their docstrings.

Sphinx's autodoc would import every module, torch with them, and take 15 s of processor time; the docstrings'
compact entries would need mending for it all the same. Reading the text takes a tenth of a second.
"""

import ast
import re
from pathlib import Path

PACKAGE = Path(__file__).parent
# Pages on the code: name, title, modules. A * stands for anything; a module goes to the first page that asks.
API = [
    ("paper", "The paper's three files", ["vanilla", "retrieval", "ram"]),
    ("method", "The method around them", [
        "zeroshot", "clip_model", "clip_towers", "search_backends", "contrastive", "training", "video",
        "film_scores", "scene_windows", "outros", "ram_*"]),
    ("data", "Data: references, test sets, films", [
        "reference", "scored_sets", "cached", "gallery", "export", "sources.*"]),
    ("toy_world", "The toy world", ["toy_world.*"]),
    ("report", "Evidence: results, claims, exercises", [
        "evidence.results", "evidence.tolerances", "evidence.verdicts", "evidence.claims", "evidence.report*",
        "evidence.exports", "evidence.run_diff", "evidence.readme_table", "evidence.pretraining",
        "evidence.checks", "evidence.exercises"]),
    ("figures", "Evidence: figures", ["evidence.plots", "evidence.figure*", "evidence.*_plots",
                                      "evidence.live_figures"]),
    ("measures", "Evidence: measures, controls, rivals", ["evidence.*"]),
    ("running", "Running", ["*"])]
SECTIONS = ("Parameters", "Attributes", "Returns", "Yields", "Raises")  # of a docstring, as lists
NEXT = r";  (?=[^;]+ : )"  # between two entries on a line


def api_pages():
    """{page: (title, names of its modules)}; each module of the kit is on one page."""
    left = [".".join(path.relative_to(PACKAGE).with_suffix("").parts)
            for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__init__.py"]
    pages = {}
    for page, title, patterns in API:
        found = []
        for pattern in patterns:
            rule = re.compile(re.escape(pattern).replace(r"\*", ".*"))
            found += [name for name in left if rule.fullmatch(name) and name not in found]
        left = [name for name in left if name not in found]
        pages[page] = title, found
    return pages


def write_api(source):
    """Write the pages on the code into `source`/api, from the modules' text: none of them is imported."""
    folder = source / "api"
    folder.mkdir()
    pages = api_pages()
    for page, (title, modules) in pages.items():
        (folder / f"{page}.md").write_text("\n".join([f"# {title}\n", *map(module_words, modules)]),
                                           encoding="utf-8")
    listed = [f"- [{title}]({page}.md): {', '.join(f'`{name}`' for name in modules)}"
              for page, (title, modules) in pages.items()]
    contents = "```{toctree}\n:hidden:\n\n" + "\n".join(pages) + "\n```\n"
    about = ("Every public function and class, from its docstring. Arrays are given with their shape: n "
             "queries, m references, k neighbors, c classes, d numbers a feature.")
    (folder / "index.md").write_text("\n".join(["# The code\n", about, "", *listed, "", contents]),
                                     encoding="utf-8")


def module_words(name):
    """A module's part of its page: what it says of itself and of its public functions and classes."""
    tree = ast.parse((PACKAGE / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8"))
    lines = [f".. py:module:: impart_utils.{name}", "", *_docstring(tree), "", *_members(tree)]
    return "\n".join([f"## `{name}`\n", "```{eval-rst}", *lines, "```\n"])


def _members(node):
    """reStructuredText of a module's public definitions, or of a class's that have a docstring."""
    for child in node.body:
        inside = isinstance(node, ast.ClassDef)
        if not isinstance(child, (ast.FunctionDef, ast.ClassDef)) or child.name.startswith("_"):
            continue
        if child.name == "main" or (inside and not ast.get_docstring(child)):
            continue
        marks = {ast.unparse(mark).rpartition(".")[2] for mark in child.decorator_list}
        kind = ("class" if isinstance(child, ast.ClassDef) else "function" if not inside
                else "property" if marks & {"property", "cached_property"} else "method")
        yield f".. py:{kind}:: {child.name}{'' if kind == 'property' else _signature(child, inside, marks)}"
        yield from (f"   :{mark}:" for mark in sorted(marks & {"staticmethod", "classmethod"}))
        members = _members(child) if kind == "class" else ()
        yield from (f"   {line}" for line in ["", *_docstring(child), "", *members])


def _signature(node, inside, marks):
    """(a, b=1): of a class those of its __init__, or its fields; of a method without self."""
    if isinstance(node, ast.ClassDef):
        made = [child for child in node.body if getattr(child, "name", "") == "__init__"]
        if made:
            return _signature(made[0], True, set())
        return f"({', '.join(_field(child) for child in node.body if isinstance(child, ast.AnnAssign))})"
    text = ast.unparse(node.args)
    return f"({re.sub(r'^(self|cls)(, )?', '', text) if inside and 'staticmethod' not in marks else text})"


def _field(node):
    """A dataclass's field with its default, if that is a plain value."""
    default = f"={ast.unparse(node.value)}" if isinstance(node.value, ast.Constant) else ""
    return node.target.id + (default or ("=…" if node.value else ""))


def _docstring(node):
    return list_entries((ast.get_docstring(node) or "").splitlines())


def list_entries(lines):
    """A docstring's lines with the entries of `SECTIONS` as reStructuredText lists.

    The kit writes ``name : all that is said``, and several short ones on a line with two blanks after the
    semicolon; numpydoc's own readers would take what follows the colon as a type, in italics.
    """
    out, section, paragraph = [], False, False
    for line, below in zip(lines, [*lines[1:], ""], strict=False):
        if re.fullmatch(r"-{3,}", below) and line == line.strip() != "":
            section = line in SECTIONS
            out += ["", f":{line}:" if section else f".. rubric:: {line}", ""]
            paragraph = False
        elif re.fullmatch(r"-{3,}", line):
            continue
        elif not section or not line:
            if line[:4] == "    " and not out[-1] and not re.search(r"^\.\. |::$", _last(out)):
                out += ["::", ""]  # an indented block is code to be typed
            out.append(line)
        elif line[0] == " ":
            words, *entries = re.split(NEXT, line.strip())
            out += [f"      {words}", *map(_entry, entries)]
        elif " : " not in line:
            out += [f"    {line}"] if paragraph else ["", f"    {line}"]
            paragraph = True
        else:
            out += map(_entry, re.split(NEXT, line))
            if re.match(r' +("|[A-Z][a-z]+ )', below) and len(line) + len(below.split()[0]) < 95:
                out[-1] += "."  # the line was broken on purpose: what follows is a sentence of its own
            paragraph = False
    return out


def _entry(text):
    names, _, words = text.partition(" : ")
    return f"    - ``{names}`` : {words}"


def _last(lines):
    """The last line that isn't blank; of an indented block that follows it, the line above the block."""
    return next((line for line in reversed(lines) if line and line[0] != " "), "")
