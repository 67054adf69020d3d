"""Kept activations: the same numbers, read once; nothing wrong from a damaged file; within the limit."""

import sqlite3

import numpy as np
import pytest
import torch

from demeanor.conversation import SpanOf
from demeanor.extraction import extract_vectors
from demeanor.extraction.activations import KeptActivations
from demeanor.model.pooling import Pooling
from demeanor.model.reader import ActivationReader
from demeanor.model.residual import residual_norms
from demeanor.traits import ContrastPair, TraitDefinition

TALKS = [f"User: I cannot sleep {i}.\nAssistant: That sounds exhausting, {'very ' * i}truly." for i in range(6)]


@pytest.fixture
def reader(make_model, tokenizer):
    return ActivationReader(make_model("llama"), tokenizer)


@pytest.fixture
def kept(tmp_path):
    return KeptActivations(tmp_path / "kept" / "activations.db")


def runs(reader, monkeypatch):
    """How many conversations the model was run on, as a list that grows."""
    seen, run = [], ActivationReader.run

    def counted(self, jobs, *args, **named):
        seen.append(len(jobs))
        return run(self, jobs, *args, **named)

    monkeypatch.setattr(ActivationReader, "run", counted)
    return seen


def test_what_is_kept_is_not_read_again_and_is_the_same(reader, kept, monkeypatch):
    seen = runs(reader, monkeypatch)
    first = kept.read(reader, TALKS, [0, 2])
    assert np.array_equal(kept.read(reader, TALKS, [0, 2]), first)
    assert np.allclose(first, reader.read(TALKS, [0, 2]).numpy(), atol=1e-5)
    assert sum(seen) == 2 * len(TALKS)  # once by each of both


def test_only_what_is_new_is_read(reader, kept, monkeypatch):
    kept.read(reader, TALKS[:4], [1])
    seen = runs(reader, monkeypatch)
    done = []
    found = kept.read(reader, [TALKS[5], *TALKS[:4], TALKS[4]], [1], progress=done.append)
    assert seen == [2]
    assert sum(done) == 6
    assert np.allclose(found, reader.read([TALKS[5], *TALKS[:4], TALKS[4]], [1]).numpy(), atol=1e-5)


@pytest.mark.parametrize("change", ["layer", "pooling", "span", "weights", "dtype", "rope"])
def test_what_would_read_otherwise_is_read(make_model, tokenizer, kept, monkeypatch, change):
    reader = ActivationReader(make_model("llama"), tokenizer)
    kept.read(reader, TALKS, [1])
    layers = [1]
    span: SpanOf = "response"
    pooling: Pooling = "mean"
    if change == "layer":
        layers = [1, 2]
    elif change == "span":
        span = "user"
    elif change == "pooling":
        pooling = "last"
    else:
        model = make_model("llama")
        if change == "weights":
            with torch.no_grad():
                model.model.layers[0].mlp.up_proj.weight.mul_(1.5)
        elif change == "dtype":
            model = model.to(torch.bfloat16)
        else:
            model = make_model("llama", rope_parameters={"rope_type": "default", "rope_theta": 500.0})
        reader = ActivationReader(model, tokenizer)
    seen = runs(reader, monkeypatch)
    found = kept.read(reader, TALKS, layers, span, pooling)
    assert sum(seen) == len(TALKS)
    assert np.allclose(found, reader.read(TALKS, layers, span, pooling).numpy(), atol=1e-2)


def test_a_damaged_file_costs_time_only(reader, kept, monkeypatch):
    wanted = kept.read(reader, TALKS, [1])
    kept.path.write_bytes(b"no database" * 1000)
    assert np.allclose(kept.read(reader, TALKS, [1]), wanted, atol=1e-5)
    seen = runs(reader, monkeypatch)
    kept.read(reader, TALKS, [1])
    assert seen in ([], [0])  # it was made anew


def test_a_place_that_cannot_be_written_costs_time_only(reader, tmp_path):
    (tmp_path / "file").write_text("")
    kept = KeptActivations(tmp_path / "file" / "activations.db")
    assert np.allclose(kept.read(reader, TALKS, [1]), reader.read(TALKS, [1]).numpy(), atol=1e-5)


def test_a_locked_file_costs_time_only(reader, kept, monkeypatch):
    kept.read(reader, TALKS[:2], [1])
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, **options: connect(path, **options | {"timeout": 0.01}))
    other = connect(kept.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    assert np.allclose(kept.read(reader, TALKS, [1]), reader.read(TALKS, [1]).numpy(), atol=1e-5)
    other.close()


def test_the_file_stays_within_its_limit_and_what_was_used_last_stays(reader, tmp_path, monkeypatch):
    kept = KeptActivations(tmp_path / "a.db", limit=60_000)
    many = [f"Assistant: That sounds hard, number {i}." for i in range(400)]
    for at in range(0, 400, 50):
        kept.read(reader, many[at : at + 50], [0, 1, 2])
    assert kept.size() <= 60_000 + 8192
    seen = runs(reader, monkeypatch)
    kept.read(reader, many[350:], [0, 1, 2])
    assert sum(seen) == 0


def test_it_is_shown_and_emptied(reader, kept):
    kept.read(reader, TALKS, [1])
    assert kept.size() > 0
    kept.empty()
    assert kept.size() == 0


def test_norms_of_everyday_talk_are_kept_too(reader, kept, monkeypatch):
    wanted = residual_norms(reader, TALKS)
    assert torch.allclose(kept.residual_norms(reader, TALKS), wanted, atol=1e-5)
    seen = runs(reader, monkeypatch)
    assert torch.allclose(kept.residual_norms(reader, TALKS), wanted, atol=1e-5)
    assert sum(seen) == 0


def test_an_extraction_through_it_gives_the_same_vectors_and_reads_an_edit_only(reader, kept, monkeypatch):
    pairs = tuple(ContrastPair(f"p-{i}", (), f"I hear you, number {i}.", f"You should stop, number {i}.", f"f{i % 5}") for i in range(15))
    trait = TraitDefinition("warmth", "How warm.", pairs=pairs)
    plain = extract_vectors(reader, [trait]).vectors["warmth"]
    through = extract_vectors(reader, [trait], kept=kept).vectors["warmth"]
    again = extract_vectors(reader, [trait], kept=kept).vectors["warmth"]
    assert torch.allclose(plain.reading.direction, through.reading.direction, atol=1e-4)
    assert torch.equal(through.reading.direction, again.reading.direction)
    edited = (*pairs[:14], ContrastPair("p-14", (), "Are you safe right now?", "Doctors know nothing.", "f4"))
    seen = runs(reader, monkeypatch)
    extract_vectors(reader, [TraitDefinition("warmth", "How warm.", pairs=edited)], kept=kept)
    assert sum(seen) == 2


def test_the_file_is_for_its_owner_alone(reader, kept):
    kept.read(reader, TALKS[:1], [1])
    assert kept.path.stat().st_mode & 0o077 == 0


def test_all_spans_of_a_text_are_kept_as_one(reader, kept, monkeypatch):
    from dataclasses import replace

    jobs = [replace(job, spans=[*job.spans, (0, 2), (1, 3)]) for job in reader.jobs(TALKS)]
    wanted = reader.run(jobs, [0, 2])
    for _ in range(2):
        for found, want in zip(kept.spans(reader, jobs, [0, 2]), wanted, strict=True):
            assert np.allclose(found, want.numpy(), atol=1e-5)
    seen = runs(reader, monkeypatch)
    kept.spans(reader, jobs, [0, 2])
    assert sum(seen) == 0
    kept.spans(reader, [replace(jobs[0], spans=jobs[0].spans[:2])], [0, 2])
    assert sum(seen) == 1
