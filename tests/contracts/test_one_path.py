"""One path: a conversation reads the same, and falls on the same side of every cut, by whichever way it is read.

The library's ways take all forty conversations, the commands a dozen of them. All in float32; the cuts are those that the policy's
text and the stored calibration name, worked out here and not by the code under test.
"""

import json
import math

import pyarrow.parquet as pq
import pytest
import yaml

from demeanor import Monitor

pytestmark = pytest.mark.model
TOLERANCE = 1e-3  # of z; measured: below 1e-4


SLOPE, CALLED_FOR = 3.0, 1.0  # a reply is eased by so many z for each z that the user's messages fall short of this
TOPIC_SLOPE = 2.0  # and for each z that the reply itself falls short of it, where the trait has a topic
RISK, RISK_SLOPE = "ordinary 0.01", 2.0  # crisis recognition is eased, too, short of this threshold of the user's risk
COUNTS = 3.0  # z of easing up to which a comparison counts a prompt


def z_of(record):
    """z by trait, and that of the worst part, of a reading as plain data."""
    found = {trait: score["z"] for trait, score in record["scores"].items()}
    return found | {f"worst {trait}": score["z"] for trait, score in record.get("worst_part", {}).items()}


def same(found, expected, where):
    assert found.keys() == expected.keys(), where
    apart = {trait: (found[trait], z) for trait, z in expected.items() if not math.isclose(found[trait], z, abs_tol=TOLERANCE)}
    assert not apart, f"{where}: found and expected z: {apart}"


def as_text(messages):
    return "\n".join(f"{m['role'].capitalize()}: {m['content']}" for m in messages)


def test_forty_conversations_of_every_kind(talks, readings):
    assert len({talk["name"] for talk in talks}) == 40
    assert sum(talk["commands"] for talk in talks) == 12
    assert any("worst_part" in record for record in readings.values())
    assert max(len(as_text(talk["messages"]).split()) for talk in talks) > 2000


def test_in_a_batch_and_written_out_as_text(exact_scorer, talks, readings):
    found = exact_scorer.score_many(as_text(talk["messages"]) for talk in talks)
    for talk, reading in zip(talks, found, strict=True):
        same(z_of(reading.to_record()), z_of(readings[talk["name"]]), talk["name"])


def test_turn_by_turn(exact_scorer, talks, readings):
    for talk in talks:
        turns = exact_scorer.score_turns(talk["messages"])
        assert len(turns) == sum(m["role"] == "assistant" for m in talk["messages"])
        same(z_of(turns[-1].to_record()), z_of(readings[talk["name"]]), talk["name"])


@pytest.fixture(scope="module")
def live(exact_scorer, talks):
    """The decision of a live session about each conversation's last reply, as plain data, by name."""
    found = {}
    with Monitor(exact_scorer, enforce=False, deadline=600) as monitor:
        for talk in talks:
            *history, said, reply = talk["messages"]
            session = monitor.session(talk["name"], history or None)
            session.user(said["content"])
            found[talk["name"]] = session.check(reply["content"]).to_record()
    return found


def test_in_a_live_session(live, talks, readings):
    for talk in talks:
        same(z_of(live[talk["name"]]["reading"]), z_of(readings[talk["name"]]), talk["name"])


@pytest.fixture
def policy(command):
    """The default policy, as a user gets it."""
    return yaml.safe_load(command("monitor", "--print-policy").stdout)


@pytest.fixture
def cuts(exact_scorer, tmp_path):
    """By trait and name of a threshold: z and the unsafe side, from the stored vector set."""
    folder = exact_scorer.vectors.save(tmp_path / "set")
    stored = json.loads((folder / "calibration.json").read_text())
    return {(trait, name): (cut["z"], cut["unsafe_side"]) for trait, c in stored.items() for name, cut in c["thresholds"].items()}


def beyond(z, cut):
    limit, side = cut
    return z >= limit if side == "above" else z <= limit


def calibrated(threshold, cuts, trait):
    """Of the thresholds that a rule names, the stricter one."""
    found = [cuts[trait, f"{kind.removesuffix('_rate')} {rate:g}"] for kind, rate in threshold["calibrated"].items()]
    return (max if found[0][1] == "above" else min)(found)


def easing(trait, talk, scorer, cuts, reply=None):
    """By how many z a reply is eased: from the z of every message that the user said in the last three turns, and from its own z."""
    messages = talk["messages"][:-1]
    turns = [[]]
    for i, message in enumerate(messages):
        turns = [*turns, []] if message["role"] == "assistant" else turns
        if message["role"] == "user" and message["content"].strip():
            turns[-1].append(scorer.score({"messages": [*messages[: i + 1], talk["messages"][-1]]}))
    said = [reading for turn in [turn for turn in turns if turn][-3:] for reading in turn]

    def lacking(name, called_for):
        return max(0.0, called_for - max((reading[name].z for reading in said), default=0.0))

    eased = SLOPE * lacking(f"{trait}-context", CALLED_FOR)
    eased += RISK_SLOPE * lacking("user_risk", cuts["user_risk", RISK][0]) if trait == "crisis_recognition" else 0.0
    if reply is None or f"{trait}-topic" not in reply:
        return eased
    return eased + TOPIC_SLOPE * max(0.0, CALLED_FOR - reply[f"{trait}-topic"])


def eased(z, by, side):
    return z - by if side == "above" else z + by


def sides(policy, cuts, record, talk, scorer):
    """Which rules of a policy fire on a reading."""
    z = z_of(record)

    def crossed(part):
        trait, cut = part["trait"], calibrated(part["threshold"], cuts, part["trait"])
        by = easing(trait, talk, scorer, cuts, z)
        return any(beyond(eased(z[name], by, cut[1]), cut) for name in (trait, f"worst {trait}") if name in z)

    return [r["name"] for r in policy["rules"] if crossed(r)]


def test_a_live_decision_is_on_the_side_of_each_cut_that_the_score_is_on(exact_scorer, live, talks, readings, policy, cuts):
    seen = set()
    for talk in talks:
        decision, record = live[talk["name"]], readings[talk["name"]]
        fired = [rule for rule in decision["rules"] if rule in {r["name"] for r in policy["rules"]}]
        assert fired == sides(policy, cuts, record, talk, exact_scorer), talk["name"]
        seen |= {*fired}
    assert len(seen) >= 5, "the conversations must lie on both sides of the cuts"


@pytest.fixture
def rows(talks, tmp_path):
    """The dozen for the commands, as rows of a file: messages, prompt and reply, or text."""
    chosen = [talk for talk in talks if talk["commands"]]
    path = tmp_path / "rows.jsonl"
    with path.open("w") as file:
        for i, talk in enumerate(chosen):
            file.write(json.dumps({"id": talk["name"]} | _form(i, talk["messages"])) + "\n")
    return path, chosen


def _form(i, messages):
    if i % 3 == 0 or len(messages) > 2:
        return {"messages": messages}
    return {"text": as_text(messages)} if i % 3 == 1 else {"prompt": messages[0]["content"], "response": messages[1]["content"]}


def test_in_a_transcript(command, rows, readings, live):
    path, chosen = rows
    done = command("monitor", "--input", path, "--output", "out.jsonl", "--dtype", "float32")
    assert done.returncode == 0, done.stderr
    for talk, line in zip(chosen, (path.parent / "out.jsonl").read_text().splitlines(), strict=True):
        decision = json.loads(line)["demeanor"]["decisions"][-1]
        same(z_of(decision["reading"]), z_of(readings[talk["name"]]), talk["name"])
        for what in ("action", "severity", "rules", "situation", "text", "instead"):
            assert decision[what] == live[talk["name"]][what], (talk["name"], what)


REPLY = ("empathetic_responsiveness", "crisis_recognition", "sycophancy_harmful_validation", "boundary_maintenance")


def test_in_a_screening(command, exact_scorer, rows, readings, cuts):
    path, chosen = rows
    with path.open("w") as file:  # all in one form, as a data set is
        file.writelines(json.dumps({"id": talk["name"], "messages": talk["messages"]}) + "\n" for talk in chosen)
    done = command("screen", "--input", path, "--output", "screened", "--dtype", "float32")
    assert done.returncode == 0, done.stderr
    folder = path.parent / "screened"
    flagged = {row["id"]: set(row["traits"]) for row in map(json.loads, (folder / "flagged.jsonl").read_text().splitlines())}
    for talk, row in zip(chosen, pq.read_table(folder / "scored").to_pylist(), strict=True):
        record = readings[talk["name"]]
        z = z_of(record)
        judged = z | {f"worst {trait}": z.get(f"worst {trait}", z[trait]) for trait in REPLY}
        found = {trait: row[f"demeanor_{trait}_z"] for trait in record["scores"]}
        same(found | {f"worst {trait}": row[f"demeanor_{trait}_worst_z"] for trait in REPLY}, judged, talk["name"])
        expected = {
            trait
            for trait in REPLY
            if beyond(
                eased(judged[f"worst {trait}"], easing(trait, talk, exact_scorer, cuts, z), cuts[trait, "false_alarm 0.05"][1]),
                cuts[trait, "false_alarm 0.05"],
            )
        }
        assert flagged.get(talk["name"], set()) == expected, talk["name"]
    assert flagged
    assert len(flagged) < len(chosen)


def test_in_a_comparison(command, exact_scorer, rows, readings, cuts):
    path, chosen = rows
    chosen = [talk for talk in chosen if talk["messages"][0]["role"] != "system"]  # which are not read there
    with path.open("w") as file:
        file.writelines(json.dumps({"id": t["name"]} | _form(i, t["messages"])) + "\n" for i, t in enumerate(chosen))
    (path.parent / "same.jsonl").write_text(path.read_text())
    done = command("compare", path, "same.jsonl", "--json", "--dtype", "float32")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    traits = {d["trait"]: d for d in found["differences"]}
    assert len(traits) == 4
    for trait, made in traits.items():
        expected = {
            talk["name"]: z_of(readings[talk["name"]])[trait] for talk in chosen if easing(trait, talk, exact_scorer, cuts) <= COUNTS
        }
        same({pair["key"]: pair["before"] for pair in made["pairs"]}, expected, trait)
        assert all(pair["before"] == pair["after"] for pair in made["pairs"])
        unsafe = sum(beyond(z, cuts[trait, "miss 0.2"]) for z in expected.values())
        assert (made["unsafe_before"]["unsafe"], made["unsafe_after"]["unsafe"]) == (unsafe, unsafe)
