"""Every remedy that a message of the project tells is done by a test: see `tests.remedies`."""

from __future__ import annotations

from tests import remedies

# Not done by a test yet. Shorter is better: a line that is done must go, and a new remedy has no place here.
OWED: tuple[str, ...] = (
    "next: make evaluate RUN={} STORE={}",
    "give one",
    "extract videos of two frames or more: flow has one frame less than",
    "delete it and evaluate again: make evaluate RUN= STORE=",
    "evaluate again: make evaluate",
    "make evaluate RUN={} STORE={}",
    "it has {} classes without a name, and the store {} (import the file",
    "the store, or its annotation set, that they were made for",
    "give the class list of their own",
    "test all that are fused on the same videos and classes: make evaluate",
    "next: make search QUERY=clip.mp4 RUN={} STORE={}",
    "RUN= STORE=, or RUNS= STORE=",
    "give a video file as QUERY=",
    "make evaluate RUN={} STORE=..., or another --protocol",
    "--data and --annotations: ",
    "compare what was evaluated on one store: make evaluate RUN= STORE=",
    "give one of them: they would count twice",
    "give a store that was extracted as they were, STORE=: its settings",
    "see {}",
    "`python -m pipeline remove` takes it out of the store; flow has one",
    "make evaluate again",
    "give one number >= 0 per stream, not all of them 0",
    "use the videos that every stream has, in one order",
    "turn all of them into one kind",
    "another of the protocols",
    "a data set and a metric, such as `ucf101 R@1`",
    "name where it was read: [53.3, mvcgc]",
    "list it: {}",
    "STORE=stores/{} ARGS='--protocols [{}]'",
    "make pretrain METHOD={} RECIPE={} STORE=stores/{} RUN={}",
    ".venv/bin/python -m train import --{} FILE --pretraining {} --run {}",
    "make {} RECIPE={} RUN={} STORE=stores/{} OUT={}",
    "make evaluate RUN={} {}",
    "make finetune RECIPE={} STORE=stores/{} OUT={}",
    "give the store that it was evaluated on, or evaluate it on this one:",
    "put the checkpoints back, or evaluate what is there: make evaluate",
    "make evaluate RUN= STORE=",
    "give the store that it was evaluated on, or evaluate again: make",
    "take both from one network",
    "the network diverged or the features are damaged: train again with a",
    "give (Q, G) similarities with Q and G labels, none of them empty",
    "give at least two videos on each side, or pass centre=False",
    "keep them as float32: leave out --half",
    "wait for it, or end it",
    "extract more videos into it: make extract-flow VIDEOS= STORE=",
    "ask for a higher similarity: --least .999",
    "{} videos are damaged, and are left out (make verify STORE= tells",
    "no video has a label (make annotate STORE= MANIFEST= gives some)",
    "extract videos",
    "more videos, or a manifest that tells their recordings (source): make",
    "end the name with {}",
    "next: make search QUERY=clip.mp4 RUN={} STORE={}",
)


def test_every_remedy_is_done_by_a_test() -> None:
    named = {text for part in (*remedies.done(), *OWED) for text in remedies.named_by(part)}
    left = {text: place for text, place in remedies.found().items() if text not in named}
    assert not left, "mark a test that does it: @pytest.mark.remedy(...)"


def test_each_mark_names_one_remedy_and_none_of_them_is_owed() -> None:
    named = {part: remedies.named_by(part) for part in remedies.done()}
    wrong = {part: (texts, remedies.done()[part]) for part, texts in named.items() if len(texts) != 1}
    assert not wrong, "name one that is there, by a part that no other has"
    done = {text for texts in named.values() for text in texts}
    assert not [part for part in OWED if not set(remedies.named_by(part)) - done]


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
