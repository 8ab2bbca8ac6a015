import json
from random import Random

import pytest

from nbs_lib.compare.playground.votes import Pair, Tally, add_vote, plan_pairs, tally_votes
from nbs_lib.files import read_jsonl

PAIR = Pair("a cat", 3, "tuned", "guided")


def test_votes_are_appended_and_tallied(tmp_path):
    path = tmp_path / "run" / "votes.jsonl"
    other = Pair("a dog", 4, "guided", "tuned")
    for pair, choice in ((PAIR, 1), (other, 2), (other, 1), (PAIR, 0)):
        add_vote(path, pair, choice, {"steps": 2, "scheduler": ""})
    rows = read_jsonl(path)
    assert [list(row) for row in rows] == [
        ["prompt", "seed", "left", "right", "choice", "steps", "scheduler", "time"]
    ] * 4
    assert [json.loads(line)["choice"] for line in path.read_text().splitlines()] == [1, 2, 1, 0]
    [tally] = tally_votes(rows)
    assert (tally.a, tally.b, tally.for_a, tally.for_b, tally.neither) == (
        "guided",
        "tuned",
        1,
        2,
        1,
    )
    assert tally.rate == pytest.approx(1 / 3) and str(tally).startswith(
        "guided: 1, tuned: 2, neither: 1; guided is better in 33 % ["
    )


def test_a_line_that_a_killed_process_left_does_not_spoil_the_next(tmp_path):
    path = tmp_path / "votes.jsonl"
    add_vote(path, PAIR, 1, {})
    path.write_text(path.read_text() + '{"prompt": "a c')
    add_vote(path, PAIR, 2, {})
    assert [row["choice"] for row in read_jsonl(path)] == [1, 2]


def test_an_invalid_choice_is_refused_and_not_saved(tmp_path):
    with pytest.raises(
        ValueError, match=r"choice: given 3; allowed is 1 \(left\), 2 \(right\) or 0"
    ):
        add_vote(tmp_path / "votes.jsonl", PAIR, 3, {})
    assert not list(tmp_path.iterdir())


def test_ties_alone_are_no_rate():
    [tally] = tally_votes([{"left": "a", "right": "b", "choice": 0}])
    assert (
        tally == Tally("a", "b", 0, 0, 1, None, 0.0, 1.0)
        and str(tally) == "a and b: no vote for either, 1 for neither"
    )


def test_a_plan_takes_all_pairs_and_prompts_with_sides_by_chance():
    pairs = plan_pairs(["unguided", "guided", "tuned"], ["a cat", "a dog"], 60, Random(0))
    twos = [frozenset((pair.left, pair.right)) for pair in pairs]
    assert (
        len(pairs) == 60 and all(twos.count(two) == 20 for two in set(twos)) and len(set(twos)) == 3
    )
    assert (
        sum(pair.prompt == "a cat" for pair in pairs) == 30
        and len({pair.seed for pair in pairs}) == 60
    )
    sides = [
        pair.left == "guided" for pair in pairs if {pair.left, pair.right} == {"guided", "tuned"}
    ]
    assert 3 < sum(sides) < 17


def test_every_pair_is_judged_on_every_prompt():
    """Also where there are as many prompts as pairs."""
    prompts = ["a cat", "a dog", "a boat"]
    pairs = plan_pairs(["unguided", "guided", "tuned"], prompts, 9, Random(0))
    assert len({(pair.prompt, frozenset((pair.left, pair.right))) for pair in pairs}) == 9


def test_one_contender_is_no_comparison():
    with pytest.raises(ValueError, match="given tuned; a blind comparison needs two or more"):
        plan_pairs(["tuned"], ["a cat"], 10, Random(0))
