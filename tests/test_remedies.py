"""Every remedy that a message of the project tells is done by a test: see `tests.remedies`."""

from __future__ import annotations

from tests import remedies

# Not done by a test yet. Shorter is better: a line that is done must go, and a new remedy has no place here.
OWED: tuple[str, ...] = (
    "give a smaller image",
    "give a manifest, or --test_share .2 to make a split",
    "python -m pipeline bring {} --retry_quarantined=true",
    "as the pictures tell, each flow picture {} (--alignment {})",
    "--frames and --flow are the same LMDB",
    "give that of the flow",
    "nothing was written; without --dry_run the run begins: {}",
    "next: make pretrain STORE={} RUN=runs/{}",
    "give --videos or --pairs, not both",
    "give two images, or one video",
    "give two images, or a video",
    "give a folder of whole videos",
    "in {} of {} videos; `extract --views {}` goes on",
    "run `make extract-flow` first",
    "give an LMDB file, or a folder of frames",
    "give the manifest of these videos, with ids like that",
    "it has {} frames and as many flow pictures, other videos one less:",
    "give an LMDB file as CoCLR and ViCC have them, such as",
    "copy or download it again",
    "pack it again",
    "give the folder above the classes, as <class>/<video>/img_00001.jpg",
    "make room for temporary files, or set TMPDIR",
    "python -m pipeline probe --file={}",
    "it may be deleted; it only tells how fast the run was",
    "`--views {}` adds that to its videos, `--views {}` goes on without;",
    "`--overwrite true` redoes exactly these; or extract into another",
    "give their files and a manifest that lists them, or another STORE=;",
    "mend that (where a disk is full, make room) and run the same command",
    "give a manifest with a row for each video",
    "give the manifest's root as VIDEOS=",
    "leave them out, or take another place for the store",
    "see what the workers printed, and what `nvidia-smi` says where flow",
    "has {} threads; start it with --nthreads 1",
    "a running scheduler has the workers it has, so --workers {} cannot be",
    "give both the same environment, as the README has it under More",
    "give its machine this environment, and run the same command again",
    "start it again, if it was yours, and run the same command again; what",
    "see what the workers printed, and what `dmesg` says of memory; no",
    "see what the error says of the installation, or take another FLOW=",
    "give the path of a file, or a name that ptlflow publishes, with its",
    'weights from elsewhere: torch.save({"state_dict": tensors named as in',
    "download {} to there",
    "use tvl1-cpu; Triton comes for Linux on x86-64",
    "a manifest says already what --split, --lists and --classes would",
    "correct it",
    "give the folder that holds it; folders without metadata are",
    "give the column {} a video's path",
    "a line of this list reads: {}",
    "give the frames that belong to these lists, or the lists that belong",
    "name the column that has the videos' names as `path` in the data",
    "give the table as the data set ships it",
    "give it a value in the column {}",
    "give the class list that belongs to these tables: CLASSES= (--classes)",
    "correct it; a dot is written \\.",
    "give a name that ends in .mp4 or .npy, or one without ending for a",
    "export its view {}",
    "export another video",
    "{} and run the same command again",
    "mend the disk or its permissions; where a file lies in a folder's",
    "no video has a split, though there are labels: of {} videos none is",
    "say which of them is meant: --annotations NAME",
    "leave test_share out, or give a manifest without splits",
    "take letters, digits, and the signs . _ - in a name",
    "delete this file and run the extraction again: it redoes this video",
    "restore it from a copy; or delete it and {}, and write what it says",
    "use what it was made with, or another STORE=; `--overwrite true`",
    "wait for it, or stop it; if it was killed, try again in {} s",
    "run the same command again when both have ended, then `make verify`",
    "give another STORE=",
    "run the same command again; to go on with the old videos put them back",
    "make one with `make extract-flow VIDEOS=folder STORE=path`",
    "it has {}; `python -m pipeline extract --views {}`, with the videos",
    "{} videos that were stored are gone, and nobody removed them by a",
    "{} and run the same command again; what is committed stays and is not",
    "give a folder that does not exist yet",
    "{}, or give another folder, then repeat the command: finished videos",
    "give an empty folder, or the settings that this one was made with, or",
    "give train_per_class or test_per_class above 0",
    "give an empty folder, or the number of videos that this one was made",
    "give at least {}",
    "see whether memory ran out; repeat the command, with fewer workers:",
    "take the frames as a folder of JPEGs or as .npy instead",
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
    "next: make pretrain STORE={} RUN=runs/{}",
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
