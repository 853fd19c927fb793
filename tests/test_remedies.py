"""Every remedy that a message of the project tells is done by a test: see `tests.remedies`."""

from __future__ import annotations

from tests import remedies


def test_every_remedy_is_done_by_a_test() -> None:
    named = {text for part in remedies.done() for text in remedies.named_by(part)}
    left = {text: place for text, place in remedies.found().items() if text not in named}
    assert not left, "mark a test that does it: @pytest.mark.remedy(...)"


def test_each_mark_names_one_remedy() -> None:
    named = {part: remedies.named_by(part) for part in remedies.done()}
    wrong = {part: (texts, remedies.done()[part]) for part, texts in named.items() if len(texts) != 1}
    assert not wrong, "name one that is there, by a part that no other has"


def test_a_remedy_in_any_place_is_found() -> None:
    code = """
REMEDY = "give another file"
def command(path, remedy="run it again"):
    remedy = f"move {path} away"
    raise Refusal("no", remedy="put it back" if path else REMEDY) from cannot_be("what", "take two")
    raise Refusal("no", remedy="at most 7")
    print("nothing to say", "run `make verify` then", "nice words --only here")
"""
    tree = remedies.ast.parse(code)
    assert sorted(map(remedies.written, remedies.texts(tree))) == [
        *("give another file", "move {} away", "nice words --only here", "put it back", "run `make verify` then"),
        *("run it again", "take two"),
    ]
