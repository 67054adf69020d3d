"""The public names: one list, from which everything else follows, and importing them costs nothing until they are used.

What freezes them is docs/api.md: a name that comes or goes changes that page, where a reader sees it.
"""

import ast
import inspect
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import demeanor
from demeanor import errors, traits

PUBLIC = demeanor.__all__
NEVER_FAIL = {"to_frame", "validate_vector"}  # beyond what Python itself raises
PAGE = Path(__file__).parent.parent / "docs" / "api.md"


def bullets(page):
    """The names of each section of the page, in its order."""
    found = {}
    for section in re.split(r"^## ", page, flags=re.MULTILINE)[1:]:
        found[section.splitlines()[0]] = re.findall(r"^- `([\w.]+)[^`]*`:? \S", section, re.MULTILINE)
    return found


def for_type_checkers(source):
    """The names that a type checker sees, each with the module that it comes from."""
    (block,) = (n for n in ast.parse(source).body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    found = {}
    for node in block.body:
        if isinstance(node, ast.AnnAssign):
            found[ast.unparse(node.target)] = "demeanor"
            continue
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.asname == alias.name, f"'import {alias.name} as {alias.name}' tells a type checker that it is public"
            found[alias.name] = node.module
    return found


def test_the_public_names_are_those_of_the_page():
    shown = bullets(PAGE.read_text(encoding="utf-8"))
    assert {use: [name for name in names if "." not in name] for use, names in shown.items() if use in demeanor.PUBLIC} == {
        use: list(names) for use, names in demeanor.PUBLIC.items()
    }
    assert all("." in name for use, names in shown.items() if use not in demeanor.PUBLIC for name in names)


def test_what_the_page_names_in_the_rooms_is_there():
    named = [name for names in bullets(PAGE.read_text(encoding="utf-8")).values() for name in names if "." in name]
    assert len(named) == len(set(named))
    for name in named:
        module, _, last = name.rpartition(".")
        assert hasattr(import_module(module), last), name


def test_the_arguments_that_the_page_shows_exist():
    shown = re.findall(r"^- `(\w+)\(([^)]*)\)`", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(shown) > 15
    for name, arguments in shown:
        first = list(inspect.signature(getattr(demeanor, name)).parameters)
        wanted = arguments.split(", ")
        assert wanted == first[: len(wanted)], name


def test_type_checkers_see_the_public_names_from_where_they_are_taken():
    assert for_type_checkers(inspect.getsource(demeanor)) == {n: h for names in demeanor.PUBLIC.values() for n, h in names.items()}


def test_every_name_has_one_use():
    assert len(PUBLIC) == len(set(PUBLIC)) == sum(map(len, demeanor.PUBLIC.values()))
    assert set(PUBLIC) <= set(dir(demeanor))


@pytest.mark.parametrize("name", PUBLIC)
def test_each_name_resolves(name):
    found = getattr(demeanor, name)
    assert found is not None
    assert getattr(found, "__name__", name).split(".")[-1] == name


FUNCTIONS = [name for name in PUBLIC if inspect.isfunction(getattr(demeanor, name))]


@pytest.mark.parametrize("name", [name for name in PUBLIC if callable(getattr(demeanor, name))])
def test_each_callable_says_what_it_is(name):
    found = getattr(demeanor, name)
    assert found.__doc__, name
    assert not found.__doc__.startswith(f"{name}("), f"{name}: a dataclass says what it is, not only its fields"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_function_s_docstring_names_its_arguments_and_its_errors(name):
    found = getattr(demeanor, name)
    told = inspect.getdoc(found)
    if len(inspect.signature(found).parameters) > 1:
        arguments = re.split(r"\n(?=\S)", told.partition("Args:\n")[2])[0]
        documented = {a for line in re.findall(r"^    ([\w, ]+):", arguments, re.MULTILINE) for a in line.split(", ")}
        assert set(inspect.signature(found).parameters) <= documented, name
    assert name in NEVER_FAIL or re.search(r"Raises|Error", told), name


def test_every_error_has_a_place_and_one_root():
    found = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}
    assert {"ConversationError", "MissingExtraError", "WrongModelError", "PolicyError"} < found
    assert all(issubclass(getattr(errors, name), demeanor.DemeanorError) for name in found)
    assert demeanor.errors is errors


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'demeanor' has no attribute 'load_modle'"):
        _ = demeanor.load_modle  # type: ignore[attr-defined]


def test_all_traits_are_the_tutorials_four_in_its_order():
    assert [t.name for t in demeanor.ALL_TRAITS] == [
        "empathetic_responsiveness",
        "crisis_recognition",
        "sycophancy_harmful_validation",
        "boundary_maintenance",
    ]
    assert demeanor.ALL_TRAITS is demeanor.ALL_TRAITS
    assert all(len(t.high_trait_prompts) == len(t.low_trait_prompts) > 0 for t in demeanor.ALL_TRAITS)


def test_the_traits_room():
    assert traits.__all__ == ["ContrastPair", "Example", "TraitDefinition", "load", "load_many", "names"]
    assert set(traits.names()) == {t.name for t in demeanor.ALL_TRAITS} | {"user_risk"}


def test_the_tutorials_imports_work():
    from demeanor import ALL_TRAITS, PersonaVector, PersonaVectorExtractor, TraitDefinition

    assert list(PersonaVector.__dataclass_fields__) == ["trait_name", "direction", "layer_idx", "strength", "metadata"]
    assert list(TraitDefinition.__dataclass_fields__)[:4] == ["name", "description", "high_trait_prompts", "low_trait_prompts"]
    assert PersonaVectorExtractor.__init__.__annotations__.keys() >= {"model", "tokenizer", "device", "target_layers"}
    assert isinstance(ALL_TRAITS[0], TraitDefinition)


HEAVY = "('torch', 'transformers', 'sklearn')"


@pytest.mark.parametrize(
    "first", ["import demeanor", "from demeanor import traits; traits.load('user_risk')", "from demeanor import errors"]
)
def test_importing_loads_neither_torch_nor_transformers(first):
    code = f"{first}; import sys; print([m for m in {HEAVY} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize("name", ["Calibration", "Cut", "Labelled", "Message"])
def test_numbers_rows_and_words_come_without_a_model(name):
    code = f"from demeanor import {name}; import sys; print([m for m in {HEAVY} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
