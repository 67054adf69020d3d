"""Vector sets from strangers: with every hash made anew, a set loads as it is or is refused in one line, and nothing else happens."""

import contextlib
import copy
import json
import shutil
import warnings

import pytest
import safetensors.torch
import torch
from artifacts import CALIBRATION, edit_manifest, entry, measured, unit, vector, vector_set
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from demeanor import VectorSet
from demeanor.errors import DamagedVectorSetError, VectorSetError
from demeanor.measure.conditions import AppliesWhen
from demeanor.measure.cuts import ThresholdSpec
from demeanor.vectors import PersonaVector, load_tutorial
from demeanor.vectors.card import card

LIMIT = {"z": -0.4, "unsafe_side": "below", "kind": "miss", "rate": 0.2, "n": 9, "prompts": 9, "guarantee": "made up",
         "observed_miss": 0.1, "observed_false_alarm": 0.3}  # fmt: skip
ISOTONIC = CALIBRATION | {"method": "isotonic", "points": [[-1.0, 0.1], [0.0, 0.1], [1.0, 0.8]], "thresholds": {"miss 0.2": LIMIT}}


def whole_set():
    full = measured() | {
        "style_shift": {"plain": {"value": 0.8, "low": 0.7, "high": 0.9, "pairs": 6}},
        "learning_curve": {"8": 0.7, "16": 0.8},
        "thresholds": {"miss 0.2": {"missed": 0.1, "false_alarms": 0.3}},
        "ordinary": {"auroc": 0.9, "n": 20, "false_alarms": {"miss 0.2": 0.1}},
    }
    adapted = entry("candour", seed=1, calibration=CALIBRATION | {"thresholds": {"miss 0.2": LIMIT}})
    adapted.reading.metadata |= {
        "adapted": {"rows": 20, "prompts": 9, "auroc": {"value": 0.8, "low": 0.7, "high": 0.9}, "pack_auroc": None, "penalty": "infinity"},
        "learnt_from": ["0123456789abcdef01234567"],
        "centre": 0.5,
    }
    steering = vector("warmth")
    steering.metadata |= {"floor": 0.1, "ceiling": 0.2, "doses": {"high": 0.1}}
    when = AppliesWhen(trait="candour", threshold=ThresholdSpec(z=0.0))
    return vector_set(entry("warmth", full, calibration=ISOTONIC, steering=steering, applies_when=when, judged_whole=True), adapted)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved set that holds every field there is."""
    return whole_set().save(tmp_path_factory.mktemp("sets") / "vectors")


def rewritten(folder, manifest=None, calibrations=None, tensors=None):
    """Write parts of the set anew, and sign it."""
    if calibrations is not None:
        (folder / "calibration.json").write_text(json.dumps(calibrations))
    if tensors is not None:
        safetensors.torch.save_file(tensors, folder / "vectors.safetensors")
    edit_manifest(folder, **{key: value for key, value in (manifest or {}).items() if key != "checksum"})
    return folder


@pytest.fixture
def strange(tmp_path):
    """Save the set with a field changed, by its path ("traits.warmth.safe_pole"), in the manifest or the calibration."""

    def make(path, value, file="manifest"):
        place = whole_set().save(tmp_path / "vectors")
        whole = json.loads((place / f"{file}.json").read_text())
        *parents, last = [part.replace("_2", ".2") for part in path.replace("0.2", "0_2").split(".")]
        at = whole
        for part in parents:
            at = at[part]
        if value is MISSING:
            del at[last]
        else:
            at[last] = value
        return rewritten(place, **({"manifest": whole} if file == "manifest" else {"calibrations": whole}))

    return make


MISSING = object()
STRANGE = [
    ("calibration", "warmth.spread", -2.0, r"calibrations\.warmth\.spread: input should be greater than 0, not -2\.0"),
    ("calibration", "warmth.spread", 0, "greater than 0"),
    ("calibration", "warmth.centre", "0.5", "valid number"),
    ("calibration", "warmth.centre", True, "valid number"),
    ("calibration", "warmth.method", "vibes", "'platt' or 'isotonic', not 'vibes'"),
    ("calibration", "warmth.points", [[0.0, 0.9], [1.0, 0.1]], "its points do not rise"),
    ("calibration", "warmth.points", [[1.0, 0.1], [0.0, 0.9]], "its points do not rise"),
    ("calibration", "warmth.points", [[0.0, 0.5], [1.0, 7]], "a probability of its points lies outside 0 to 1"),
    ("calibration", "warmth.points", [], "at least 1"),
    ("calibration", "warmth.points", [[0.0, 0.5, 1.0]], "at most 2"),
    ("calibration", "candour.points", [[-1.5, 0.1]], "the probability falls with the score"),
    ("calibration", "candour.points", [[1.5, 0.1], [2.0, 0.3]], "'platt' has one point"),
    ("calibration", "warmth.n_high", -1, "greater than or equal to 0"),
    ("calibration", "warmth.source", 5, "valid string"),
    ("calibration", "warmth.surprise", 1, "unexpected keyword argument"),
    ("calibration", "warmth", None, "calibrations.warmth"),
    ("calibration", "warmth.thresholds", [], "valid dict"),
    ("calibration", "warmth.thresholds.miss 0.2.z", None, "valid number"),
    ("calibration", "warmth.thresholds.miss 0.2.rate", 7, "less than 1"),
    ("calibration", "warmth.thresholds.miss 0.2.rate", 0.5, "the threshold 'miss 0.2' is one for miss 0.5"),
    ("calibration", "warmth.thresholds.miss 0.2.unsafe_side", "above", "takes above for unsafe"),
    ("calibration", "warmth.thresholds.miss 0.2.unsafe_side", "sideways", "'above' or 'below'"),
    ("manifest", "pooling", "median", "'mean', 'last' or 'max', not 'median'"),
    ("manifest", "traits.warmth.safe_pole", "sideways", "'high' or 'low', not 'sideways'"),
    ("manifest", "traits.warmth.safe_pole", "low", "takes below for unsafe, and the safe pole is the other"),
    ("manifest", "traits.warmth.reads", "mind", "'response' or 'user'"),
    ("manifest", "traits.warmth.title", ["<b>"], "valid string"),
    ("manifest", "traits.warmth.metrics", None, "'metrics' holds nothing"),
    ("manifest", "traits.warmth.applies_when", None, "'applies_when' holds nothing"),
    ("manifest", "traits.warmth.applies_when", [], "'applies_when' holds nothing"),
    ("manifest", "traits.warmth.metrics", {"auroc": 0.9}, r"metrics\.auroc"),
    ("manifest", "traits.warmth.metrics.auroc.value", 7, "less than or equal to 1"),
    (
        "manifest",
        "traits.warmth.metrics.hard",
        {"value": 0.5, "low": None, "high": None, "pairs": 2},
        "value, low and high are there together",
    ),
    ("manifest", "traits.warmth.metrics.registers.plain", None, "registers.plain"),
    ("manifest", "traits.warmth.metrics.ordinary", None, "'ordinary' holds nothing"),
    ("manifest", "traits.warmth.metrics.learning_curve", {"many": 0.5}, "learning_curve"),
    ("manifest", "traits.warmth.metrics.scores", {"high": ["a"], "low": []}, "valid number"),
    ("manifest", "traits.warmth.metrics.beats_baselines", "yes", "valid boolean"),
    ("manifest", "traits.warmth.reading.layer_idx", -1, "greater than or equal to 0"),
    ("manifest", "traits.warmth.reading.layer_idx", 9, r"layers \[1, 2\] are not among the model's 4"),
    ("manifest", "traits.warmth.reading.layer_idx", 2.0, "valid integer"),
    ("manifest", "traits.warmth.reading.strength", -1.0, "greater than or equal to 0"),
    ("manifest", "traits.warmth.reading.metadata", [], "reading.metadata"),
    ("manifest", "traits.warmth.reading.metadata.layers", [1, 1], "a layer stands twice"),
    ("manifest", "traits.warmth.reading.metadata.layers", [1, 9], "are not among the model's 4"),
    ("manifest", "traits.warmth.reading.metadata.layers", 2, "valid list"),
    ("manifest", "traits.warmth.reading.metadata.layers", [2], r"the reading direction has the shape \(2, 8\)"),
    ("manifest", "traits.warmth.reading.metadata.method", "\x1b[31m", "reading.metadata.method"),
    ("manifest", "traits.warmth.reading.metadata.layer_curve", {"0": "high"}, "valid number"),
    ("manifest", "traits.candour.reading.metadata.adapted", {"rows": 20}, "adapted.prompts"),
    ("manifest", "traits.candour.reading.metadata.learnt_from", ["I cannot sleep."], "learnt_from"),
    ("manifest", "traits.warmth.steering.metadata.doses", {"up": 1.0}, "doses"),
    ("manifest", "traits.warmth.steering.metadata.centre", "a", "valid number"),
    ("manifest", "traits.warmth.pack_hash", MISSING, "pack_hash: field required"),
    ("manifest", "traits", {}, "'order' does not name each trait once"),
    ("manifest", "order", ["warmth"], "'order' does not name each trait once"),
    ("manifest", "order", ["warmth", "candour", "warmth"], "'order' does not name each trait once"),
    ("manifest", "order", [], "at least 1"),
    ("manifest", "created", 2026, "valid string"),
    ("manifest", "versions", ["torch"], "valid dict"),
    ("manifest", "model.layers", 0, "greater than or equal to 1"),
    ("manifest", "model.layers", "4", "valid integer"),
    ("manifest", "model.hidden_size", 9, "the model is 9 wide"),
    ("manifest", "model.name", None, "valid string"),
    ("manifest", "model.surprise", "x", "extra inputs"),
    ("manifest", "made_from", ["pack"], "made_from"),
    ("manifest", "dtypes", {"float16": {"agreement": "high"}}, "dtypes"),
]


@pytest.mark.parametrize(("file", "path", "value", "words"), STRANGE)
def test_a_field_that_holds_what_it_cannot_is_one_line(strange, file, path, value, words):
    with pytest.raises(DamagedVectorSetError, match=words) as caught:
        VectorSet.load(strange(path, value, file))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["<script>", "../warmth", "Warmth", "", "warmth\x1b[31m", "a" * 65])
def test_a_trait_is_named_as_traits_are(tmp_path, name):
    place = whole_set().save(tmp_path / "vectors")
    manifest = json.loads((place / "manifest.json").read_text())
    calibrations = json.loads((place / "calibration.json").read_text())
    tensors = safetensors.torch.load_file(place / "vectors.safetensors")
    manifest["traits"][name] = manifest["traits"].pop("warmth")
    manifest["order"] = [name, "candour"]
    calibrations[name] = calibrations.pop("warmth")
    for use in ("reading", "steering"):
        tensors[f"{use}.{name}"] = tensors.pop(f"{use}.warmth")
    with pytest.raises(DamagedVectorSetError, match="is not a trait name"):
        VectorSet.load(rewritten(place, manifest, calibrations, tensors))


TENSORS = [
    ("reading.warmth", torch.zeros(2, 8), "the reading direction has length 0"),
    ("reading.warmth", unit(0, rows=2) * 3, "has length 3, and a direction must have length 1"),
    ("reading.warmth", torch.full((2, 8), torch.inf), "holds NaN or infinity"),
    ("reading.warmth", torch.ones(2, 8, dtype=torch.int64), "holds int64, not floating-point numbers"),
    ("reading.warmth", torch.zeros(1, 2, 8), "has the shape"),
    ("reading.warmth", torch.tensor(1.0), "has the shape"),
    ("steering.warmth", torch.zeros(8), "the steering direction has length 0"),
    ("neutral.norm", torch.full((4,), torch.nan), "neutral.norm holds an invalid norm"),
    ("neutral.norm", -torch.ones(4), "neutral.norm holds an invalid norm"),
    ("neutral.norm", torch.ones(3), r"neutral.norm has the shape \(3,\), and \(4,\) is wanted"),
    ("neutral.scale", -torch.ones(4, 8), "neutral.scale holds an invalid norm"),
    ("neutral.scale", torch.ones(8, 4), "neutral.scale has the shape"),
    ("neutral.scale", torch.zeros(0), "neutral.scale holds"),
]


@pytest.mark.parametrize(("name", "tensor", "words"), TENSORS)
def test_a_tensor_that_no_score_can_rest_on_is_one_line(tmp_path, name, tensor, words):
    place = whole_set().save(tmp_path / "vectors")
    tensors = safetensors.torch.load_file(place / "vectors.safetensors") | {name: tensor}
    with pytest.raises(DamagedVectorSetError, match=words):
        VectorSet.load(rewritten(place, tensors=tensors))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"spread": 2.0', '"spread": NaN'),
        ('"spread": 2.0', '"spread": 1e999'),
        ('"spread": 2.0', '"spread": ' + "7" * 5000),
        ('"spread": 2.0', '"spread": 2.0, "spread": 3.0'),
        ('"spread": 2.0', '"spread": ' + "[" * 100_000),
        ('"source": "', '"source": "\\ud83d'),
    ],
    ids=["NaN", "beyond a float", "five thousand digits", "a key twice", "nested", "half a pair"],
)
@pytest.mark.parametrize("file", ["calibration.json", "manifest.json"])
def test_json_that_is_none_is_one_line(tmp_path, old, new, file):
    place = whole_set().save(tmp_path / "vectors")
    if file == "manifest.json":
        old, new = '"pooling": "mean"', new.replace("spread", "pooling").replace("source", "pooling")
    path = place / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    if file == "calibration.json":
        edit_manifest(place)
    with pytest.raises(DamagedVectorSetError) as caught:
        VectorSet.load(place)
    assert "\n" not in str(caught.value)


def test_what_is_not_known_yet_is_let_by(tmp_path):
    place = whole_set().save(tmp_path / "vectors")
    edit_manifest(place, made_from={"warmth": "a pack"}, dtypes={"bfloat16": {"correlation": 0.99}}, later={"anything": [1, None]})
    assert list(VectorSet.load(place).traits) == ["warmth", "candour"]


def test_what_could_not_be_loaded_again_is_not_written_over_what_can(tmp_path):
    place = vector_set().save(tmp_path / "vectors")
    before = (place / "manifest.json").read_bytes()
    for poorer in (
        vector_set(entry("warmth", reading=PersonaVector("warmth", torch.zeros(8), 1, 1.0))),
        vector_set(entry("Warmth")),
    ):
        with pytest.raises(VectorSetError):
            poorer.save(place)
    assert (place / "manifest.json").read_bytes() == before


def test_vectors_that_share_memory_are_saved(tmp_path):
    both = torch.stack([unit(1), unit(2)])
    one, other = (PersonaVector(name, both[i], 2, 1.0) for i, name in enumerate(("warmth", "candour")))
    made = vector_set(entry("warmth", reading=one, steering=one), entry("candour", reading=other, steering=one))
    loaded = VectorSet.load(made.save(tmp_path / "vectors"))
    assert torch.equal(loaded["candour"].reading.direction, unit(2))
    assert torch.equal(loaded["warmth"].steering.direction, loaded["candour"].steering.direction)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6)
    | st.sampled_from(["high", "low", "mean", "user", "isotonic", "platt", "above", "warmth", -1, 0, 1, 0.5, 1e308, 1e-320]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def places(value, path=()):
    """Every place in a JSON value."""
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_any_field_with_anything_in_it_loads_as_it_is_or_is_refused(folder, tmp_path, data):
    place = tmp_path / "mutated"
    place.mkdir(exist_ok=True)
    for file in ("vectors.safetensors", "calibration.json", "manifest.json"):
        (place / file).write_bytes((folder / file).read_bytes())
    file = data.draw(st.sampled_from(["manifest", "calibration"]))
    whole = json.loads((place / f"{file}.json").read_text())
    known = [p for p in places(whole) if p and p not in (("checksum",), ("files",)) and p[0] != "files"]
    *parents, last = data.draw(st.sampled_from(known))
    at = whole
    for part in parents:
        at = at[part]
    if data.draw(st.booleans()) or not isinstance(at, dict):
        at[last] = data.draw(ANY)
    else:
        del at[last]
    try:
        if file == "manifest":
            whole.pop("checksum")
            (place / "manifest.json").write_text(json.dumps({**whole, "checksum": ""}))
            edit_manifest(place)
        else:
            rewritten(place, calibrations=whole)
    except UnicodeEncodeError:
        return  # half of a surrogate pair in clear: no file can hold it
    before = copy.deepcopy(json.loads((place / "manifest.json").read_text()))
    loaded = None
    with contextlib.suppress(VectorSetError):
        loaded = VectorSet.load(place)
    if loaded is None:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an overflow of huge numbers is a number yet
        for kept in loaded.traits.values():
            calibration = kept.calibration
            assert 0 <= float(calibration.probability(calibration.centre + calibration.spread)) <= 1
            assert calibration.spread > 0
    assert card(loaded)
    shutil.rmtree(tmp_path / "again", ignore_errors=True)
    again = json.loads((loaded.save(tmp_path / "again") / "manifest.json").read_text())
    traits = {name: {"judged_whole": False, "not_scored": "flag"} | record for name, record in before["traits"].items()}
    assert (again["traits"], again["model"], again["pooling"], again["order"]) == (
        traits, before["model"] | {"blocks": before["model"].get("blocks", "")}, before["pooling"], before["order"]
    )  # fmt: skip


GOOD = {"trait_name": "x", "direction": unit(0), "layer_idx": 1, "strength": 2.0, "metadata": {}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"direction": torch.zeros(8)}, "its direction has length 0"),
        ({"direction": unit(0) * 5}, "its direction has length 5"),
        ({"direction": torch.ones(8, dtype=torch.int64)}, "holds int64"),
        ({"direction": torch.ones(8, dtype=torch.complex64)}, "holds complex64"),
        ({"direction": "north"}, "."),
        ({"direction": torch.tensor(1.0)}, "."),
        ({"strength": float("nan")}, "strength: input should be a finite number"),
        ({"strength": -1.0}, "strength: input should be greater than or equal to 0"),
        ({"layer_idx": float("inf")}, "infinity"),
        ({"layer_idx": -3}, "layer_idx"),
        ({"layer_idx": None}, "."),
        ({"trait_name": "<script>"}, "'<script>' is not a trait name"),
        ({"trait_name": None}, "'None' is not a trait name"),
        ({"metadata": [1, 2]}, "metadata"),
        ({"metadata": {"layers": 5}}, "metadata.layers"),
        ({"metadata": {"centre": "x"}}, "metadata.centre"),
    ],
)
def test_a_tutorial_file_is_checked_field_by_field(tmp_path, change, words):
    torch.save(GOOD | change, tmp_path / "x_vector.pt")
    with pytest.raises(VectorSetError, match=f"x_vector.pt is not a tutorial vector file: .*{words}") as caught:
        load_tutorial(tmp_path)
    assert "\n" not in str(caught.value)


def test_two_tutorial_files_of_one_trait_are_an_error(tmp_path):
    for name in ("a", "b"):
        torch.save(GOOD, tmp_path / f"{name}_vector.pt")
    with pytest.raises(VectorSetError, match=r"b_vector\.pt holds x, and so does another file"):
        load_tutorial(tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 1 << 20), byte=st.binary(min_size=1, max_size=3))
def test_a_damaged_tutorial_file_is_read_or_refused(tmp_path, at, byte):
    path = tmp_path / "x_vector.pt"
    torch.save(GOOD, path)
    content = bytearray(path.read_bytes())
    at %= len(content)
    content[at : at + len(byte)] = byte
    path.write_bytes(content)
    with contextlib.suppress(VectorSetError, KeyError):  # KeyError: a name that was changed into another
        assert load_tutorial(path)["x"].layers
