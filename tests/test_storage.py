"""Vector sets on disk: what is saved comes back, damage is named, and no failure costs the set that was there."""

import errno
import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from artifacts import CALIBRATION, MODEL, edit_manifest, entry, measured, unit, vector_set

from demeanor import VectorSet
from demeanor.errors import DamagedVectorSetError, FormatVersionError, OutputError, VectorSetError, WrongModelError
from demeanor.vectors import folder as folders
from demeanor.vectors import storage
from demeanor.vectors.card import card
from demeanor.vectors.entry import OwnVector


@pytest.fixture
def saved(tmp_path):
    """A folder with a saved vector set."""
    return vector_set().save(tmp_path / "vectors")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_saved_comes_back(saved):
    made, loaded = vector_set(), VectorSet.load(saved)
    assert loaded.model == made.model
    assert (loaded.pooling, loaded.created, loaded.versions) == (made.pooling, made.created, made.versions)
    assert torch.equal(loaded.neutral_norm, made.neutral_norm)
    for name, kept in made.traits.items():
        for use in ("reading", "steering"):
            before, after = getattr(kept, use), getattr(loaded[name], use)
            assert torch.equal(after.direction, before.direction)
            assert (after.trait_name, after.layer_idx, after.strength, after.metadata) == (
                name,
                before.layer_idx,
                before.strength,
                before.metadata,
            )
        assert (loaded[name].calibration, loaded[name].proof) == (kept.calibration, kept.proof)
        assert (loaded[name].safe_pole, loaded[name].reads, loaded[name].high_pole) == (kept.safe_pole, kept.reads, kept.high_pole)
    assert loaded.layers == [1, 2]


def test_the_folder_holds_what_the_docs_say_and_no_pickle(saved):
    assert sorted(contents(saved)) == ["README.md", "calibration.json", "manifest.json", "summary.json", "vectors.safetensors"]
    assert json.loads((saved / "summary.json").read_text()) == {
        "model": "tiny-chat",
        "traits": {"warmth": {"layer": 2, "strength": 3.25}, "candour": {"layer": 2, "strength": 3.25}},
    }


def test_the_same_set_gives_the_same_bytes(saved, tmp_path):
    again = vector_set().save(tmp_path / "again")
    assert contents(again) == contents(saved)


def test_a_set_that_was_loaded_is_saved_as_it_was(saved, tmp_path):
    again = VectorSet.load(saved).save(tmp_path / "again")
    for name in ("vectors.safetensors", "manifest.json", "calibration.json"):
        assert (again / name).read_bytes() == (saved / name).read_bytes()


def test_others_may_read_the_folder(saved):
    assert saved.stat().st_mode & 0o777 == 0o755


def tear(folder):
    path = folder / "vectors.safetensors"
    path.write_bytes(path.read_bytes()[:-20])


def edit_calibration(folder):
    path = folder / "calibration.json"
    path.write_text(path.read_text().replace('"centre": 0.5', '"centre": -9.5'))


def edit_the_manifest(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"safe_pole": "high"', '"safe_pole": "low"'))


def tear_the_manifest(folder):
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes()[:300])


def change_tensors(**changes):
    def damage(folder):
        path = folder / "vectors.safetensors"
        tensors = safetensors.torch.load_file(path) | {name.replace("_", "."): value for name, value in changes.items()}
        safetensors.torch.save_file({name: value for name, value in tensors.items() if value is not None}, path)
        edit_manifest(folder)

    return damage


DAMAGE = [
    (tear, r"vectors\.safetensors is damaged or was edited.*restore it or extract again"),
    (edit_calibration, r"calibration\.json is damaged or was edited.*restore it or extract again"),
    (edit_the_manifest, r"manifest\.json was edited.*restore it or extract again"),
    (tear_the_manifest, r"manifest\.json is damaged or incomplete.*restore it or extract again"),
    (lambda f: (f / "manifest.json").write_text("[]"), r"manifest\.json is damaged or incomplete"),
    (lambda f: (f / "manifest.json").write_bytes(b"\xff\xfe{}"), r"manifest\.json is damaged or incomplete"),
    (lambda f: edit_manifest(f, format_version="first"), r"manifest\.json is damaged or incomplete"),
    (lambda f: (f / "vectors.safetensors").unlink(), r"vectors\.safetensors is missing; restore"),
    (lambda f: (f / "calibration.json").unlink(), r"calibration\.json is missing; restore"),
    (change_tensors(steering_warmth=torch.full((8,), torch.nan)), r"warmth: the steering direction holds NaN.*extract it again"),
    (change_tensors(reading_warmth=torch.ones(2, 16)), r"warmth: the reading direction has the shape \(2, 16\).*8 wide.*extract it again"),
    (change_tensors(reading_warmth=unit(0, rows=3)), r"warmth: the reading direction has the shape \(3, 8\)"),
    (change_tensors(steering_candour=None), r"is inconsistent.*extract it again"),
    (lambda f: edit_manifest(f, model={**asdict(MODEL), "layers": 2}), r"layers \[1, 2\] are not among the model's 2"),
    (lambda f: edit_manifest(f, model={"name": "tiny-chat"}), r"is inconsistent.*extract it again"),
    (lambda f: (f / "calibration.json").write_text("{}") and edit_manifest(f), r"is inconsistent.*extract it again"),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGE)
def test_damage_is_named_with_the_way_out(saved, damage, words):
    damage(saved)
    with pytest.raises(DamagedVectorSetError, match=words):
        VectorSet.load(saved)


@pytest.mark.parametrize("change", [{"format_version": 3}, {"format_version": 3, "traits": ["a new shape"]}])
def test_a_newer_format_asks_for_an_upgrade(saved, change):
    edit_manifest(saved, **change)
    with pytest.raises(FormatVersionError, match="format version 3, this Demeanor reads up to 2; upgrade: pip install -U demeanor"):
        VectorSet.load(saved)


def test_where_there_is_no_set_the_command_that_makes_one_is_named(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(VectorSetError, match=r"no vector set in .*make one with `demeanor extract --output") as caught:
            VectorSet.load(folder)
        assert not isinstance(caught.value, DamagedVectorSetError)


def test_a_set_that_may_not_be_read_says_so(saved, monkeypatch):
    def forbidden(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", forbidden)
    with pytest.raises(VectorSetError, match=r"cannot be read: Permission denied; check its permissions"):
        VectorSet.load(saved)


def test_saving_over_a_set_replaces_it(saved):
    vector_set(entry("patience", seed=5)).save(saved)
    assert list(VectorSet.load(saved).traits) == ["patience"]
    assert [p.name for p in saved.parent.iterdir()] == ["vectors"]


def test_a_damaged_set_can_be_replaced(saved):
    tear_the_manifest(saved)
    vector_set().save(saved)
    assert VectorSet.load(saved).layers == [1, 2]


def test_an_empty_folder_is_used(tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    assert VectorSet.load(vector_set().save(folder)).layers == [1, 2]


@pytest.mark.parametrize("relative", [True, False])
def test_a_set_behind_a_symbolic_link_is_replaced_and_the_link_stays(saved, relative):
    link = saved.parent / "link"
    link.symlink_to("vectors" if relative else saved)
    (saved / "report.html").write_text("mine")
    vector_set(entry("patience")).save(link)
    assert link.is_symlink()
    assert list(VectorSet.load(saved).traits) == ["patience"]
    assert (saved / "report.html").read_text() == "mine"
    assert sorted(p.name for p in saved.parent.iterdir()) == ["link", "vectors"]


@pytest.mark.parametrize("name", [".", "../empty"])
def test_the_folder_that_one_is_in_is_refused_before_the_work(tmp_path, monkeypatch, name):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(OutputError, match="the folder that you are in, and saving would replace it; name another folder"):
        storage.refuse_foreign(Path(name))


@pytest.mark.parametrize("name", ["thesis.txt", "manifest.json"])
def test_a_folder_of_something_else_is_left_alone(tmp_path, name):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / name).write_text('{"manifest_version": 3}')
    with pytest.raises(OutputError, match="is not a vector set; name another folder"):
        vector_set().save(folder)
    assert contents(folder) == {name: b'{"manifest_version": 3}'}


def test_a_file_in_the_way_is_left_alone(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="name another folder"):
        vector_set().save(tmp_path / "file")
    with pytest.raises(OutputError, match="cannot write"):
        vector_set().save(tmp_path / "file" / "vectors")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def fail_at_call(monkeypatch, owner, name, call):
    """Let the `call`-th call of a function find the disk full."""
    real, calls = getattr(owner, name), []

    def wrapped(*args):
        calls.append(args)
        if len(calls) == call:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args)

    monkeypatch.setattr(owner, name, wrapped)


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [(folders, "_sync", 2), (os, "replace", 1), (os, "replace", 2)],
    ids=["while writing", "while putting the old set aside", "while putting the new set in place"],
)
def test_a_failure_keeps_the_old_set_and_leaves_nothing_else(saved, monkeypatch, owner, name, call):
    before = contents(saved)
    fail_at_call(monkeypatch, owner, name, call)
    with pytest.raises(OutputError, match=r"cannot write the vector set to .*: No space left on device"):
        vector_set(entry("patience")).save(saved)
    assert contents(saved) == before
    assert [p.name for p in saved.parent.iterdir()] == ["vectors"]


def test_where_other_files_cannot_be_moved_it_says_that_the_set_is_saved_and_where_they_are(saved, monkeypatch):
    (saved / "report.html").write_text("mine")
    fail_at_call(monkeypatch, os, "replace", 3)
    with pytest.raises(OutputError, match=r"is saved in .*No space left on device; move the rest from ") as caught:
        vector_set(entry("patience")).save(saved)
    assert list(VectorSet.load(saved).traits) == ["patience"]
    assert (Path(str(caught.value).split("from ")[-1]) / "report.html").read_text() == "mine"


def test_a_failure_leaves_nothing_where_there_was_nothing(tmp_path, monkeypatch):
    fail_at_call(monkeypatch, folders, "_sync", 2)
    with pytest.raises(OutputError, match="No space left on device; nothing of it was kept"):
        vector_set().save(tmp_path / "vectors")
    assert list(tmp_path.iterdir()) == []


def test_the_card_names_limits_and_what_was_not_measured():
    lines = card(vector_set()).splitlines()
    warmth, candour = (next(line for line in lines if line.startswith(f"| {name} |")) for name in ("warmth", "candour"))
    assert "0.90 | 0.80 to 0.97 | 6" in warmth
    assert "not measured" in candour
    text = "\n".join(lines)
    assert "## Limits" in text
    assert "no diagnosis" in text
    assert "High: the reply shows candour." in text


def other(**changes):
    return replace(MODEL, **changes)


def test_the_same_model_is_accepted_in_silence():
    assert vector_set().check_model(MODEL) == []
    assert vector_set().check_model(other(name="the same under another name")) == []


def test_another_dtype_is_a_warning():
    assert vector_set().check_model(other(dtype="bfloat16")) == ["made in float32, read in bfloat16: scores may move a little"]


OTHER_MODELS = [
    (
        {"fingerprint": "e" * 24, "name": "big-chat"},
        r"another model: they were made with tiny-chat \(ffffffff\), loaded is big-chat \(eeeeeeee\)",
    ),
    ({"quantization": "4bit"}, "another quantisation: none then, 4bit now"),
    ({"template_hash": "u" * 24}, "another chat template"),
]


@pytest.mark.parametrize(("changes", "words"), OTHER_MODELS)
def test_another_model_is_refused_unless_it_is_allowed_aloud(changes, words):
    with pytest.raises(WrongModelError, match=rf"{words}.*Extract vectors for this model, or allow it \(--allow-other-model\)"):
        vector_set().check_model(other(**changes))
    (warning,) = vector_set().check_model(other(**changes), allow_other=True)
    assert words.split(":")[0] in warning


@pytest.mark.parametrize("changes", [{"layers": 5}, {"hidden_size": 16}])
def test_a_model_of_another_shape_cannot_be_allowed(changes):
    with pytest.raises(WrongModelError, match="the vectors of one do not fit the other"):
        vector_set().check_model(other(fingerprint="e" * 24, **changes), allow_other=True)


def test_unknown_traits_name_the_nearest():
    with pytest.raises(VectorSetError, match=r"no trait 'warmt'; did you mean warmth\?"):
        vector_set()["warmt"]


def test_the_fingerprint_covers_scores_and_if_wanted_thresholds():
    set_, same, other = (vector_set(entry("candour", seed=seed)) for seed in (1, 1, 2))
    moved = vector_set(
        entry(
            "candour",
            seed=1,
            calibration={**CALIBRATION, "thresholds": {"miss 0.1": {"z": 0.0, "unsafe_side": "below", "kind": "miss", "rate": 0.1}}},
        )
    )
    assert set_.fingerprint() == same.fingerprint() != other.fingerprint()
    assert moved.fingerprint() != set_.fingerprint()
    assert moved.fingerprint(thresholds=False) == set_.fingerprint(thresholds=False)


def test_only_keeps_the_rest_of_the_set():
    kept = vector_set(entry("warmth", measured()), entry("candour")).only(["candour"])
    assert list(kept.traits) == ["candour"]
    assert (kept.model, kept.created) == (MODEL, "2026-01-31")
    with pytest.raises(VectorSetError, match="no trait 'x'"):
        kept.only(["x"])


def adapted(name, seed=0):
    made = entry(name, seed=seed)
    made.reading.metadata["adapted"] = {"rows": 20, "prompts": 10, "auroc": {"value": 0.8, "low": 0.7, "high": 0.9}}
    return made


def test_what_was_learnt_of_labels_is_not_written_over_by_a_set_without_it(tmp_path):
    folder = vector_set(adapted("warmth"), entry("candour", seed=1)).save(tmp_path / "adapted")
    before = contents(folder)
    for poorer in (vector_set(), vector_set(entry("warmth"), adapted("candour", 1)), vector_set(entry("patience"))):
        with pytest.raises(OutputError, match="holds warmth adapted to labelled replies, and what is to be saved does not; name another"):
            poorer.save(folder)
        assert contents(folder) == before
    vector_set(adapted("warmth", seed=7)).save(folder)  # adapted anew, or calibrated
    vector_set(adapted("warmth"), adapted("candour", 1)).save(folder)
    assert list(VectorSet.load(folder).traits) == ["warmth", "candour"]


def with_own(**changes):
    """A set with an adapted trait that holds the pack's own vector."""
    pack = entry("warmth", measured(), seed=3)
    fit = replace(adapted("warmth", seed=7), own=OwnVector(pack.reading, pack.calibration, pack.proof))
    fit.reading.metadata["labels_given"] = ["ab" * 12]
    return vector_set(replace(fit, **changes), entry("candour", seed=1)), pack


def test_the_packs_own_vector_of_an_adapted_trait_comes_back(tmp_path):
    vectors, pack = with_own()
    own = VectorSet.load(vectors.save(tmp_path / "set"))["warmth"].own
    assert torch.equal(own.reading.direction, pack.reading.direction)
    assert (own.calibration, own.proof, own.reading.layers) == (pack.calibration, pack.proof, pack.reading.layers)
    assert VectorSet.load(tmp_path / "set")["candour"].own is None
    again = VectorSet.load(tmp_path / "set").save(tmp_path / "again")
    assert (again / "manifest.json").read_bytes() == (tmp_path / "set" / "manifest.json").read_bytes()
    assert vectors.fingerprint() == with_own(own=None)[0].fingerprint()  # no score rests on it


def test_a_set_without_the_packs_own_vector_is_read_as_before(tmp_path):
    vectors, _ = with_own(own=None)
    manifest = json.loads((vectors.save(tmp_path / "set") / "manifest.json").read_text())
    assert "own" not in manifest["traits"]["warmth"]
    assert VectorSet.load(tmp_path / "set")["warmth"].own is None


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (change_tensors(own_warmth=None), r"is inconsistent.*extract it again"),
        (change_tensors(own_warmth=torch.full((2, 8), torch.nan)), r"warmth: the own direction holds NaN"),
        (change_tensors(own_warmth=torch.zeros(2, 8)), r"warmth: the own direction has length 0"),
        (change_tensors(own_warmth=unit(0, rows=3)), r"warmth: the own direction has the shape \(3, 8\)"),
    ],
)
def test_damage_of_the_packs_own_vector_is_named(tmp_path, damage, words):
    folder = with_own()[0].save(tmp_path / "set")
    damage(folder)
    with pytest.raises(DamagedVectorSetError, match=words):
        VectorSet.load(folder)


def test_an_adapted_set_may_be_written_over_where_the_packs_vector_was_kept_after_all(tmp_path):
    folder = with_own()[0].save(tmp_path / "set")
    kept = entry("warmth", measured())
    kept.reading.metadata["tried"] = {"rows": 40, "prompts": 20, "auroc": {"value": 0.6, "low": 0.5, "high": 0.7}}
    vector_set(kept, entry("candour", seed=1)).save(folder)
    assert VectorSet.load(folder)["warmth"].reading.metadata["tried"]["rows"] == 40
