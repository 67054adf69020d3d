"""The house keeps its shape: no two files import each other, and a long one says why it is one thing.

The two lists name what is not so yet. They only shrink: a file that is mended is struck off, and none is added.
"""

import ast
from pathlib import Path

import demeanor

ROOT = Path(demeanor.__file__).parent
LONGEST = 300  # lines
ONE_THING = "one thing"
CIRCLES: set[tuple[str, ...]] = set()
LONG: set[str] = set()


def modules():
    """Every module by name, with its source."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text(encoding="utf-8")
    return found


class _Imports(ast.NodeVisitor):
    """The modules that a source imports when it runs, at its top or inside a function."""

    def __init__(self, known):
        self.known, self.found = known, set()

    def visit_If(self, node):
        if ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for other in node.orelse:
                self.visit(other)
        else:
            self.generic_visit(node)

    def visit_Import(self, node):
        self.found |= {alias.name for alias in node.names} & self.known

    def visit_ImportFrom(self, node):
        assert node.level == 0, f"line {node.lineno}: a relative import; write the whole name"
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            self.found |= {inner if inner in self.known else node.module} & self.known


def imports(sources):
    """Which modules each one imports."""
    graph = {}
    for name, source in sources.items():
        visitor = _Imports(set(sources))
        visitor.visit(ast.parse(source))
        graph[name] = visitor.found - {name}
    return graph


def circles(graph):
    """The groups of modules that reach each other."""

    def reached(start):
        seen, waiting = set(), [start]
        while waiting:
            for other in graph[waiting.pop()] - seen:
                seen.add(other)
                waiting.append(other)
        return seen

    reach = {name: reached(name) for name in graph}
    return {tuple(sorted(other for other in reach[name] if name in reach[other])) for name in graph if name in reach[name]}


def too_long(sources):
    """The modules over the limit whose docstring does not say why."""
    return {
        name
        for name, source in sources.items()
        if len(source.splitlines()) > LONGEST and ONE_THING not in " ".join((ast.get_docstring(ast.parse(source)) or "").split())
    }


def test_no_two_files_import_each_other():
    found = circles(imports(modules()))
    assert not found - CIRCLES, "a circle of imports; what both need belongs in a file below them"
    assert not CIRCLES - found, "no circle any more; strike it off the list"


def test_a_long_file_says_why_it_is_one_thing():
    found = too_long(modules())
    assert not found - LONG, f"over {LONGEST} lines; split it, or say in its docstring why it is one thing"
    assert not LONG - found, "short, or explained; strike it off the list"


def test_circles_are_found_wherever_the_import_stands():
    sources = {"a": "def f():\n    from b import c\n", "b": "", "b.c": "from d import name\n", "d": ""}
    assert circles(imports(sources)) == set()
    for closing in ("from a import f", "import a", "def g():\n    import a", "if TYPE_CHECKING:\n    pass\nelse:\n    import a"):
        assert circles(imports(sources | {"d": closing})) == {("a", "b.c", "d")}
    assert circles(imports(sources | {"d": "if TYPE_CHECKING:\n    import a\n"})) == set()


def test_a_long_file_is_excused_by_its_docstring_alone():
    long = "x = 1  # one thing\n" * (LONGEST + 1)
    assert too_long({"a": long, "b": f'"""It is one\nthing."""\n{long}', "c": "x = 1\n" * LONGEST}) == {"a"}
