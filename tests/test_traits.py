"""Trait packs: the built-in ones, a user's own, and the errors that name file, pair and field."""

import textwrap

import pytest

from demeanor.errors import TraitError
from demeanor.traits import ContrastPair, TraitDefinition, load, load_many, names
from demeanor.traits.packs import fingerprint

PACK = """\
name: warmth
description: How warm a reply is.
pairs:
- id: w-1
  family: loss
  context: My dog died.
  high: I am so sorry about your dog.
  low: Dogs die, so it goes with dogs.
"""


@pytest.fixture
def pack(tmp_path):
    """A pack from its text, by way of a file."""

    def read(text, name="mine.yaml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else textwrap.dedent(text).encode())
        return load(path)

    return read


@pytest.fixture(scope="module", params=names())
def built_in(request):
    """Each built-in trait in turn."""
    return load(request.param)


def test_built_in_packs_are_whole(built_in):
    ids = [p.id for p in built_in.pairs]
    assert len(ids) == len(set(ids)) > 50
    assert all(p.high.strip() and p.low.strip() and p.high != p.low for p in built_in.pairs)
    assert built_in.safe_pole in ("high", "low")
    assert {built_in.high_pole, built_in.low_pole}.isdisjoint({"high", "low", ""})


def test_built_in_splits_share_no_family_and_are_all_there(built_in):
    families = {split: {e.family for e in built_in.examples(split)} for split in ("train", "calibration", "test")}
    assert all(families.values())
    assert not families["train"] & families["calibration"]
    assert not families["train"] & families["test"]
    assert not families["calibration"] & families["test"]
    assert sum(len(built_in.examples(split)) for split in families) == len(built_in.examples()) == 2 * len(built_in.pairs)


def test_a_pack_becomes_pairs_and_labelled_examples(pack):
    trait = pack(PACK)
    high, low = trait.examples("train")
    assert (high.high, low.high) == (True, False)
    assert high.conversation.to_record() == [
        {"role": "user", "content": "My dog died."},
        {"role": "assistant", "content": "I am so sorry about your dog."},
    ]
    assert low.conversation.response == "Dogs die, so it goes with dogs."
    assert trait.high_trait_prompts == ["User: My dog died.\nAssistant: I am so sorry about your dog."]


def test_a_trait_that_reads_the_user_ends_with_the_user(pack):
    high, _ = pack(PACK.replace("pairs:", "reads: user\npairs:")).examples()
    assert [m.role for m in high.conversation.messages] == ["user", "user"]


FIELD_ERRORS = [
    ("name: warmth\n", "", r"field 'name'.*required"),
    ("description: How warm a reply is.\n", "", r"field 'description'.*required"),
    ("description: How", "descripton: How", r"field 'descrip"),
    ("  high: I am so sorry about your dog.\n", "", r"pair w-1, field 'high'.*required"),
    ("  low: Dogs die, so it goes with dogs.", "  low: ''", r"pair w-1, field 'low'.*at least 1 character"),
    ("  low: Dogs die, so it goes with dogs.", "  low: '   '", r"pair w-1, field 'low'.*at least 1 character"),
    ("  low: Dogs die, so it goes with dogs.", "  low: 3", r"pair w-1, field 'low'.*string"),
    ("  low: Dogs", "  lwo: x\n  low: Dogs", r"pair w-1, field 'lwo'.*not permitted"),
    ("Dogs die, so it goes with dogs.", "I am so sorry about your dog.", r"pair w-1: 'high' and 'low' are the same"),
    ("name: warmth", "name: ../../warmth", r"'\.\./\.\./warmth' is not a trait name"),
    ("name: warmth", "name: a/b", r"'a/b' is not a trait name"),
    ("name: warmth", "name: Warmth", r"lower-case"),
    ("pairs:", "families: {loss: training}\npairs:", r"field 'families\.loss'.*'train'"),
    ("pairs:", "families: {los: train}\npairs:", r"pair w-1: family 'loss' has no split; did you mean los\?"),
    ("pairs:", "families: {loss: test}\npairs:", r"no pair is in the train split"),
    ("pairs:", "safe_pole: middle\npairs:", r"field 'safe_pole'.*'high'"),
    ("pairs:", "reads: assistant\npairs:", r"field 'reads'.*'response'"),
    ("context: My dog died.", "context: [{customer: My dog died.}]", r"pair w-1, field 'context'.*'user: \.\.\.'"),
    ("context: My dog died.", "context: [{user: a, assistant: b}]", r"pair w-1, field 'context'.*each message is one"),
]


@pytest.mark.parametrize(("old", "new", "words"), FIELD_ERRORS)
def test_errors_name_file_pair_and_field(pack, old, new, words):
    assert old in PACK
    with pytest.raises(TraitError, match=rf"mine\.yaml: .*{words}") as caught:
        pack(PACK.replace(old, new))
    assert "\n" not in str(caught.value)


def test_a_pair_without_an_id_is_named_by_its_number(pack):
    with pytest.raises(TraitError, match=r"mine\.yaml: pair 2, field 'low'"):
        pack(PACK + "- {high: a b c}\n")


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ("- {id: w-1, high: a, low: b}", r"pair w-1: the id appears twice"),
        (
            "- {id: w-2, context: My dog died., high: I am so sorry about your dog., low: 'Dogs die, so it goes with dogs.'}",
            r"pair w-2 repeats pair w-1",
        ),
    ],
)
def test_duplicate_pairs_are_named(pack, second, words):
    with pytest.raises(TraitError, match=rf"mine\.yaml: {words}"):
        pack(PACK + second + "\n")


@pytest.mark.parametrize("empty", ["high_trait_prompts: [a]\nlow_trait_prompts: []", "high_trait_prompts: [a]\nlow_trait_prompts: [' ']"])
def test_an_empty_pole_is_named(pack, empty):
    with pytest.raises(TraitError, match=r"mine\.yaml: trait warmth: the low pole is empty"):
        pack(f"name: warmth\ndescription: d\n{empty}\n")


def test_a_pack_without_examples_is_refused(pack):
    with pytest.raises(TraitError, match=r"mine\.yaml: both poles are empty; write some 'pairs'"):
        pack("name: warmth\ndescription: d\n")


def test_an_empty_text_among_others_is_found_when_it_is_read(pack):
    trait = pack("name: warmth\ndescription: d\nhigh_trait_prompts: [good, '']\nlow_trait_prompts: [bad]\n")
    with pytest.raises(TraitError, match="trait warmth: example '': the text is empty"):
        trait.examples()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("name: warmth\ndescription: [a\npairs: }\n", r"line 3 is not valid YAML"),
        ("name: warmth\ndescription: {}\npairs: *nowhere\n", r"line 3 is not valid YAML"),
        (PACK + "pairs:\n- {high: a, low: b}\n", r"line 9 is not valid YAML: the key 'pairs' appears twice"),
        (PACK + "  low: Woof.\n", r"line 9 is not valid YAML: the key 'low' appears twice"),
        ("- just\n- a list\n", "a pack is a mapping"),
        ("", "a pack is a mapping"),
        ("name: warmth\ndescription: 2024-13-45\n", "month"),
        (PACK.replace("dog", "café").encode("latin-1"), "not UTF-8 text"),
        ("name: 'a\x00b'\n", "not valid YAML"),
    ],
)
def test_files_that_are_no_pack(pack, content, words):
    with pytest.raises(TraitError, match=rf"mine\.yaml:.*{words}"):
        pack(content)


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.mkdir [{folder}]", "!!python/name:os.system", "!!python/object:os.PathLike {{}}"]
)
def test_tags_that_would_run_code_are_refused(pack, tmp_path, tag):
    made = tmp_path / "made-by-yaml"
    with pytest.raises(TraitError, match=r"not valid YAML.*python/"):
        pack(f"name: {tag.format(folder=made)}\ndescription: d\n")
    assert not made.exists()


def test_unknown_traits_name_the_nearest():
    with pytest.raises(TraitError, match=r"unknown trait 'crisis_recogniton'; did you mean crisis_recognition\?"):
        load("crisis_recogniton")
    with pytest.raises(TraitError, match=r"known: .*user_risk"):
        load("qqqq")
    with pytest.raises(TraitError, match="unknown trait 'xxx"):
        load("x" * 5000)


def test_a_trait_name_cannot_leave_the_built_in_folder():
    with pytest.raises(TraitError, match="unknown trait"):
        load("../packs/user_risk")


def test_several_traits_from_names_files_and_folders(tmp_path, pack):
    pack(PACK)
    (tmp_path / "other.yml").write_text(PACK.replace("warmth", "candour"))
    assert [t.name for t in load_many(["user_risk", tmp_path])] == ["user_risk", "warmth", "candour"]
    assert [t.name for t in load_many(["all"])][:2] == ["empathetic_responsiveness", "crisis_recognition"]
    assert sorted(t.name for t in load_many(["all"])) == names()


def test_a_name_may_not_come_twice(tmp_path, pack):
    pack(PACK)
    with pytest.raises(TraitError, match="warmth is given 2 times"):
        load_many([tmp_path, tmp_path / "mine.yaml"])


def test_folders_are_explained(tmp_path):
    with pytest.raises(TraitError, match=r"has no \.yaml"):
        load_many([tmp_path])
    with pytest.raises(TraitError, match="is a folder"):
        load(tmp_path)


def pairs(families):
    return tuple(ContrastPair(f"p-{i}", (), f"high {i}", f"low {i}", family) for i, family in enumerate(families))


def test_families_without_splits_are_spread_over_them():
    trait = TraitDefinition("warmth", "d", pairs=pairs("abcdefghij" * 2))
    counts = {split: len({e.family for e in trait.examples(split)}) for split in ("train", "calibration", "test")}
    assert counts == {"train": 6, "calibration": 2, "test": 2}
    assert len(trait.examples("test")) == 8


def test_fewer_than_five_families_all_train():
    trait = TraitDefinition("warmth", "d", pairs=pairs("abcdabcd"))
    assert len(trait.examples("train")) == 16
    assert trait.examples("test") == trait.examples("calibration") == []


def test_pairs_without_a_family_are_families_of_their_own(pack):
    trait = pack("name: warmth\ndescription: d\npairs:\n" + "".join(f"- {{high: high {i}, low: low {i}}}\n" for i in range(5)))
    assert len(trait.splits) == 5
    assert [e.pair_id for e in trait.examples("test")] == ["pair-4", "pair-4"]


def test_the_tutorials_two_lists():
    trait = TraitDefinition("warmth", "How warm.", ["User: hi\nAssistant: Welcome!", "I am glad."], ["User: hi\nAssistant: What."])
    assert trait.title == "Warmth"
    assert [(e.conversation.response, e.high) for e in trait.examples()] == [("Welcome!", True), ("I am glad.", True), ("What.", False)]
    assert trait.examples("train") == trait.examples()
    assert trait.examples("test") == []


def test_the_tutorials_lists_may_not_be_empty():
    with pytest.raises(TraitError, match="warmth: the high pole is empty; give at least one"):
        TraitDefinition("warmth", "d", [], ["a"])


def test_an_example_without_a_reply_is_named():
    with pytest.raises(TraitError, match="trait warmth: example 'User: hi': no assistant message"):
        TraitDefinition("warmth", "d", ["User: hi"], ["b"]).examples()


FINGERPRINT = fingerprint(TraitDefinition("warmth", "d", pairs=pairs("ab"), splits={"a": "train", "b": "test"}))


@pytest.mark.parametrize(
    "same",
    [
        {"title": "Another title"},
        {"description": "other words"},
        {"high_pole": "warm", "low_pole": "cold"},
        {"splits": {"b": "test", "a": "train"}},
    ],
)
def test_the_fingerprint_does_not_depend_on_words_about_the_trait(same):
    fields = {"name": "warmth", "description": "d", "pairs": pairs("ab"), "splits": {"a": "train", "b": "test"}}
    assert fingerprint(TraitDefinition(**fields | same)) == FINGERPRINT


@pytest.mark.parametrize(
    "other",
    [
        {"name": "candour"},
        {"safe_pole": "low"},
        {"reads": "user"},
        {"splits": {"a": "train", "b": "calibration"}},
        {"pairs": pairs("ab")[::-1]},
        {"pairs": (pairs("ab")[0], ContrastPair("p-1", (), "high 1.", "low 1", "b"))},
    ],
)
def test_the_fingerprint_depends_on_what_a_vector_is_made_of(other):
    fields = {"name": "warmth", "description": "d", "pairs": pairs("ab"), "splits": {"a": "train", "b": "test"}}
    assert fingerprint(TraitDefinition(**fields | other)) != FINGERPRINT
