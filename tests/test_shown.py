"""What a notebook shows of an object: short reprs, data frames, the layer curve and its figure."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import fields, replace
from html.parser import HTMLParser
from typing import Any, get_args

import pytest
import torch
from artifacts import CALIBRATION, entry, measured, unit, vector, vector_set

import demeanor
from demeanor import (
    ActivationReader,
    Calibration,
    ContrastPair,
    Decision,
    Extraction,
    LoadedModel,
    Message,
    NotScored,
    PersonaVector,
    PersonaVectorExtractor,
    Reading,
    Score,
    Scorer,
    TraitDefinition,
    traits,
)
from demeanor.errors import VectorSetError
from demeanor.measure.thresholds import Threshold
from demeanor.model.identity import identify
from demeanor.monitor.outcome import RuleResult
from demeanor.monitor.policy import Situation
from demeanor.monitor.replies import load_replies
from demeanor.notebook import SAFE, UNSAFE
from demeanor.reports.vectors import _curves
from demeanor.scoring import to_frame
from demeanor.vectors.persona_vector import layer_words

WARM, COLD = Score(3.0, 2.5, 1.25, 0.876), Score(-3.0, -3.5, -1.75, 0.0001)


def reading(**scores: Score) -> Reading:
    return Reading(scores, dict.fromkeys(scores, (1, 2)), "tiny-chat")


@pytest.mark.parametrize(("layers", "words"), [((3,), "layer 3"), ((3, 4, 5), "layers 3-5"), ((2, 4, 6), "layers 2, 4, 6")])
def test_layers_in_words(layers, words):
    assert layer_words(layers) == words


def test_the_repr_of_a_vector_names_trait_layers_and_method_and_prints_no_tensor():
    assert repr(vector()) == "PersonaVector(warmth: layer 2 of width 8, strength 3.25, mean_difference)"
    assert repr(entry().reading) == "PersonaVector(warmth: layers 1-2 of width 8, strength 3.25, lda)"
    assert repr(PersonaVector("bare", unit(0), 2, 1.0)) == "PersonaVector(bare: layer 2 of width 8, strength 1.00)"


def test_the_repr_of_an_entry_says_how_well_it_was_measured_and_on_what():
    assert repr(entry("warmth", measured())) == (
        "TraitEntry(warmth: layers 1-2, AUROC 0.90 (0.80 to 0.97) on 6 held-out pairs, safe pole high)"
    )
    assert repr(entry("risk", reads="user", safe_pole="low")) == (
        "TraitEntry(risk: layers 1-2, not measured, safe pole low, reads the user's message)"
    )
    adapted = entry()
    adapted.reading.metadata["adapted"] = {"rows": 40, "auroc": {"value": 0.85, "low": 0.7, "high": 0.95}}
    assert "AUROC 0.85 (0.70 to 0.95) on 40 labelled replies, cross-validated" in repr(adapted)


def test_the_repr_of_a_set_has_a_line_a_trait_and_an_end():
    shown = repr(vector_set())
    assert shown.splitlines() == [
        "VectorSet of tiny-chat (float32), 2 traits, pooling mean, made 2026-01-31",
        "  warmth   layers 1-2, AUROC 0.90 (0.80 to 0.97) on 6 held-out pairs, safe pole high",
        "  candour  layers 1-2, not measured, safe pole high",
    ]
    many = repr(vector_set(*(entry(f"trait{i}", seed=i) for i in range(30))))
    assert len(many.splitlines()) == 14
    assert many.endswith("and 18 more")
    assert repr(Extraction(vector_set(), {}, {})) == f"Extraction of {shown}"


def test_the_repr_of_a_trait_counts_its_pairs_and_shows_none():
    empathy = traits.load("empathetic_responsiveness")
    assert repr(empathy).startswith(f"TraitDefinition(empathetic_responsiveness: {len(empathy.pairs)} pairs (")
    assert " train, " in repr(empathy)
    assert len(repr(empathy)) < 150
    plain = TraitDefinition("calm", "", ["User: a\nAssistant: b"], ["User: a\nAssistant: c", "Assistant: d"], safe_pole="low", reads="user")
    assert repr(plain) == "TraitDefinition(calm: 1 high and 2 low texts, safe pole low, reads the user's message)"
    few = TraitDefinition("calm", "", pairs=(ContrastPair("1", (Message("user", "a"),), "b", "c", "loss"),))
    assert repr(few) == "TraitDefinition(calm: 1 pair (1 train), safe pole high)"


def test_the_repr_of_a_reading_has_a_line_a_trait_and_calls_nothing_certain():
    assert repr(WARM) == "Score(z +1.25, probability 0.88, centred +2.50, raw +3.00)"
    assert repr(reading(warmth=WARM, tact=COLD)).splitlines() == [
        "Reading by tiny-chat",
        "  warmth  z +1.25, probability 0.88",
        "  tact    z -1.75, probability <0.01",
    ]
    assert "probability >0.99" in repr(Score(1.0, 1.0, 9.0, 0.999999))
    assert repr(Reading({}, {}, "tiny-chat", windows=3)) == "Reading by tiny-chat, in 3 windows"


def test_the_repr_of_a_calibration_names_its_thresholds_without_their_content():
    corners = tuple((float(i), i / 100) for i in range(100))
    long = Calibration(0.5, 2.0, "isotonic", corners, 50, 49, "made up", {"miss 0.2": Threshold(-0.123456, "below", "miss", 0.2)})
    assert repr(long) == "Calibration(centre 0.5, spread 2, isotonic on 50 high and 49 low (made up), thresholds: miss 0.2)"
    assert "thresholds" not in repr(Calibration.from_record(CALIBRATION))


def test_reprs_of_what_holds_a_model_are_one_line_and_print_no_weights(llama, tokenizer):
    loaded = LoadedModel(llama, tokenizer)
    about = "LlamaForCausalLM (llama, 3 layers of width 32, float32 on cpu)"
    assert repr(loaded) == f"LoadedModel({about})"
    assert repr(PersonaVectorExtractor(llama, tokenizer, target_layers=[0, 2])) == (
        f"PersonaVectorExtractor({about}; mean_difference at layers 0, 2)"
    )
    name = "warmth"
    reading = PersonaVector(name, torch.ones(32) / math.sqrt(32), 1, 1.0)
    vectors = vector_set(entry(name, reading=reading, steering=reading), model=identify(llama, tokenizer))
    assert repr(Scorer(ActivationReader(llama, tokenizer), vectors)) == f"Scorer({about}; traits: warmth)"
    vectors.model = replace(vectors.model, dtype="bfloat16")
    assert "\n  warning: made in bfloat16, read in float32" in repr(Scorer(ActivationReader(llama, tokenizer), vectors))


def test_fields_and_equality_are_what_they_were():
    assert [f.name for f in fields(Reading)] == ["scores", "layers", "model", "windows", "signs", "apart", "worst", "users", "caution"]
    assert Score._fields == ("raw", "centred", "z", "probability")
    assert reading(warmth=WARM) == reading(warmth=Score(*WARM)) != reading(warmth=COLD)
    assert vector() != vector()
    model: Any = object()
    other: Any = object()
    assert LoadedModel(model, other) == (model, other)


def test_the_curve_is_by_layer_in_order_as_numbers():
    made = PersonaVector("t", unit(0), 2, 1.0, {"layer_curve": {"10": 0.75, "9": 1, "2": 0.5}})
    assert list(made.curve().items()) == [(2, 0.5), (9, 1.0), (10, 0.75)]
    assert all(type(layer) is int and type(value) is float for layer, value in made.curve().items())


@pytest.mark.parametrize("metadata", [{}, {"layer_curve": {}}, {"layer_curve": None}])
def test_where_no_curve_was_measured_it_is_empty_and_is_not_drawn(metadata):
    made = PersonaVector("t", unit(0), 2, 1.0, metadata | {"layer_choice": "half the depth: 2 families"})
    assert made.curve() == {}
    with pytest.raises(VectorSetError, match=r"t has no layer curve \(half the depth: 2 families\); extract it from pairs of at least"):
        made.plot_layers()
    with pytest.raises(VectorSetError, match="no trait of this vector set has a layer curve"):
        vector_set(entry(reading=made)).plot_layers()


def test_the_figure_has_the_curve_and_a_dot_at_each_chosen_layer():
    line, dots = entry().reading.plot_layers().data
    assert (list(line.x), list(line.y)) == ([0, 1, 2, 3], [0.5, 0.7, 0.8, 0.75])
    assert (list(dots.x), list(dots.y)) == ([1, 2], [0.7, 0.8])
    assert line.name == "warmth"


def test_a_set_s_figure_has_a_line_a_trait_and_names_the_one_without_a_curve():
    bare = entry("bare", reading=PersonaVector("bare", unit(0), 2, 1.0))
    figure = vector_set(entry(), bare).plot_layers()
    assert [trace.name for trace in figure.data if trace.mode == "lines"] == ["warmth", "bare (no layer curve)"]


def test_the_report_draws_the_same_curves_and_survives_a_trait_without_one():
    bare = entry("bare", reading=PersonaVector("bare", unit(0), 2, 1.0))
    assert [named.name for named in _curves(vector_set(entry(), bare)).legend] == ["warmth", "bare (no layer curve)"]


def test_a_reading_as_a_frame_has_a_row_a_trait():
    frame = reading(warmth=WARM, tact=COLD).to_frame()
    assert list(frame.columns) == ["raw", "centred", "z", "probability"]
    assert frame.loc["tact"].to_dict() == COLD._asdict()
    assert list(reading().to_frame().columns) == ["raw", "centred", "z", "probability"]


def test_readings_as_a_frame_keep_their_places_and_what_was_not_scored_is_nan_with_its_error():
    rows: list[Reading | NotScored] = [reading(warmth=WARM), NotScored("no reply"), reading(warmth=COLD, risk=WARM)]
    frame = to_frame(iter(rows))
    assert list(frame.columns) == ["warmth_raw", "warmth_z", "warmth_probability", "risk_raw", "risk_z", "risk_probability", "error"]
    assert len(frame) == 3
    assert frame["warmth_z"].tolist()[::2] == [1.25, -1.75]
    assert frame.loc[1].drop("error").isna().all()
    assert frame["error"].isna().tolist() == [True, False, True]
    assert frame["error"][1] == "no reply"
    assert math.isnan(frame["risk_z"][0])
    assert {str(kind) for kind in frame.drop(columns="error").dtypes} == {"float64"}


@pytest.mark.parametrize("cut", [-9.0, 0.0, 9.0])
def test_what_was_not_scored_is_on_no_side_of_any_cut(cut):
    frame = to_frame([reading(warmth=WARM), NotScored("no reply")])
    assert not (frame["warmth_z"] > cut)[1]
    assert not (frame["warmth_z"] <= cut)[1]


def test_a_frame_of_nothing_scored_still_has_its_rows_and_errors():
    frame = to_frame([NotScored("a"), NotScored("b")])
    assert list(frame.columns) == ["error"]
    assert frame["error"].tolist() == ["a", "b"]
    assert len(to_frame([])) == 0


def test_a_set_as_a_frame_says_what_was_not_measured():
    frame = vector_set().to_frame()
    assert frame.index.tolist() == ["warmth", "candour"]
    assert frame.loc["warmth", ["layers", "auroc", "auroc_low", "auroc_high", "measured_on"]].tolist() == [
        "1-2", 0.9, 0.8, 0.97, "6 held-out pairs",
    ]  # fmt: skip
    assert math.isnan(frame.loc["candour", "auroc"])
    assert frame.loc["candour", "measured_on"] == "not measured"


@pytest.mark.slow
@pytest.mark.parametrize(("rooms", "unused"), [("vectors, demeanor.vectors.curves", "plotly pandas"), ("scoring", "plotly")])
def test_plotly_and_pandas_are_imported_when_they_are_asked_for(rooms, unused):
    code = f"import sys, demeanor.{rooms}; print([m for m in '{unused}'.split() if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


class _Page(HTMLParser):
    """The texts of a piece of HTML, with its tags; fails where a tag is not closed in its turn."""

    def __init__(self, html):
        super().__init__()
        self.texts, self.tags, self.styles, self._open = [], [], [], []
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.styles += [value for name, value in attrs if name == "style"]
        self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data.strip())


HOSTILE = "<script>alert('1')</script> & \"\ud800"
ALLOWED_TAGS = {"div", "table", "tr", "th", "td", "span"}


def decision(text="I hear you.", **changes):
    results = (RuleResult("cold", "fired", "flag", "yellow", "unchecked", False, "warmth", "below", "cold: fired: z -1.75."),)
    fields = {"action": "flag", "severity": "yellow", "rules": ("cold",), "reading": None, "text": text, "source": "observed"}
    return Decision(**{**fields, "results": results, **changes})


@pytest.mark.parametrize(
    "shown",
    [
        reading(**{HOSTILE: WARM}),
        Reading({}, {}, HOSTILE, windows=3),
        vector_set(entry(HOSTILE)),
        decision(HOSTILE),
        decision(not_scored=HOSTILE, instead=HOSTILE),
    ],
    ids=["trait", "model", "set", "decision", "trial"],
)
def test_what_a_notebook_shows_is_escaped_small_and_well_formed(shown):
    html = shown._repr_html_()
    page = _Page(html)
    assert set(page.tags) <= ALLOWED_TAGS
    assert "<script" not in html
    assert any("<script>alert('1')</script> & \"?" in text for text in page.texts)
    assert len(html.encode()) < 5000
    assert "background" not in html  # the notebook's own ground and ink, light or dark
    assert all("color:" not in style or style in (f"color: {SAFE}", f"color: {UNSAFE}") for style in page.styles)


def test_a_notebook_shows_the_numbers_of_the_repr():
    both = reading(warmth=WARM, tact=COLD)
    texts = _Page(both._repr_html_()).texts
    for line in repr(both).splitlines()[1:]:
        assert set(line.replace(",", "").replace("probability", "").split()) - {"z"} <= set(texts)
    made = vector_set()
    texts = _Page(made._repr_html_()).texts
    assert repr(made).splitlines()[0] in texts
    for name, one in made.traits.items():
        assert {name, str(one.measured), one.safe_pole} <= set(texts)
    many = vector_set(*(entry(f"trait{i}", seed=i) for i in range(30)))._repr_html_()
    assert "and 18 more" in _Page(many).texts
    assert "trait12" not in many


@pytest.mark.parametrize(
    ("made", "colour"),
    [
        (decision(action="allow", severity=None), SAFE),
        (decision(action="allow", severity=None, not_scored="out of memory"), UNSAFE),
        (decision(), UNSAFE),
        (decision(action="substitute", severity="red", situation="unchecked"), UNSAFE),
        (decision(action="substitute", severity="red", instead="I am here."), UNSAFE),
    ],
    ids=["allowed", "not scored", "flagged", "withheld", "trial"],
)
def test_only_a_reply_that_was_scored_and_allowed_is_marked_as_safe(made, colour):
    html = made._repr_html_()
    assert html.count("●") == 1
    assert f'"color: {colour}"' in html
    texts = " ".join(_Page(html).texts)
    assert made.action in texts
    assert "cold: fired: z -1.75." in texts
    assert ("I am here." in texts, "trial run" in texts) == (made.instead is not None,) * 2


def test_every_reviewed_reply_is_shown_whole():
    replies = load_replies()
    for situation in get_args(Situation):
        text = replies.reply(situation, "US", 0).text
        assert text.split() == " ".join(_Page(decision(text)._repr_html_()).texts).partition("shown ")[2].partition(" why ")[0].split()


def test_a_long_reply_is_cut_where_it_is_shown():
    assert len(decision("word " * 10_000)._repr_html_()) < 5000


def test_readings_become_a_table_from_the_top_level():
    found = demeanor.to_frame([reading(warmth=WARM), NotScored("empty reply")])
    assert found["warmth_z"].tolist()[0] == WARM.z
    assert found["error"].tolist()[1] == "empty reply"
