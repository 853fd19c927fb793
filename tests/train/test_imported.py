"""Runs that are made of published files."""

from __future__ import annotations

from pathlib import Path

import train  # noqa: F401  (before torch and lightning)

# isort: split
import pytest
import torch

from pipeline.errors import Refusal, UsageError
from pipeline.store import VideoStore
from tests.train import layouts, runs
from tests.train.steps import CHANNELS
from tests.train.test_published import published_state
from tests.train.test_published_layouts import GOCA, R21D, S3D
from train import checkpoints, file_commands, imported, provenance, run_folder, stages
from train.checkpoints import METADATA
from train.clustering.prototypes import Prototypes
from train.imported import import_run
from train.methods.method import Start
from train.networks.settings import NetworkSettings

RGB = Start("rgb", NetworkSettings())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("published")
    for stream, kind in (("rgb", "coclr"), ("flow", "infonce")):
        torch.save({"state_dict": published_state(kind), "epoch": 1}, folder / f"{stream}.pth.tar")
    return {stream: folder / f"{stream}.pth.tar" for stream in ("rgb", "flow")}


def test_a_run_holds_the_published_networks(files: dict[str, Path], tmp_path: Path) -> None:
    file_commands.import_files(tmp_path / "run", **files, pretraining="ucf101")
    made_by = {"rgb": "coclr", "flow": "infonce"}
    for stream, path in files.items():
        state = torch.load(path, weights_only=True)["state_dict"]
        checkpoint = run_folder.checkpoint_path(tmp_path / "run", stream)
        method = checkpoints.load_method(checkpoint)
        network = method.networks[stream]
        assert network.in_channels == 3  # flow as an image, as the papers gave it to their networks
        found, wanted = network.backbone.state_dict(), "encoder_q.0.Mixed_5c.branch1.1.conv2.weight"
        assert torch.equal(found["Mixed_5c.branch1.1.conv2.weight"], state[wanted])
        assert torch.equal(method.pair.key.head[0].bias, state["encoder_k.2.bias"])
        assert torch.equal(method.pair.queue.features, state["queue"].T)
        facts = checkpoints.metadata(checkpoint)
        assert facts["streams"] == [stream] and facts["finished"] and facts["imported"] == checkpoints.digest(path)
        assert facts["published"] == {
            "method": made_by[stream],
            "pretraining": "ucf101",
            "finetuned": False,
        }
        assert facts["backbones"] == {stream: "s3d"}
        assert facts["clips"]["length"] == 32 and facts["clips"]["streams"]["flow"]["input"] == "image"
        weights = checkpoints.starting_weights(checkpoint, Start(stream, NetworkSettings()))
        assert runs.flatten(checkpoints.flat(weights)) == runs.flatten(network.state_dict())


def test_an_imported_infonce_file_is_exported_tensor_for_tensor(files: dict[str, Path], tmp_path: Path) -> None:
    file_commands.import_files(tmp_path / "run", flow=files["flow"])
    file_commands.export(run_folder.checkpoint_path(tmp_path / "run", "flow"), tmp_path / "out.pth.tar", layout="coclr")
    state, back = (
        torch.load(path, weights_only=True)["state_dict"] for path in (files["flow"], tmp_path / "out.pth.tar")
    )
    assert runs.flatten(back) == runs.flatten({name: state[name] for name in back}) and back.keys() == state.keys()


@pytest.mark.parametrize("method", ["ubernce", "coclr"])
def test_what_we_train_is_exported_as_the_papers_do(
    store: VideoStore, files: dict[str, Path], tmp_path: Path, method: str
) -> None:
    settings = {"stream": "rgb", "queue": 4, "dim": 8, "optimiser": {"name": "sgd", "lr": 0.001}}
    settings |= {"backbone_settings": {"width": 0.125}}
    first = {"name": "flow", "method": "infonce", "steps": 1, "settings": settings | {"stream": "flow"}}
    stage = {"name": "only", "method": method, "steps": 2, "settings": settings}
    if method == "coclr":
        stage |= {"start": {"sampler": "flow"}, "settings": settings | {"sampler": {"stream": "flow"}}}
    clips = {"length": 8, "stride": 1, "size": [24, 24]}
    loaded = runs.load(tmp_path / "recipe.yaml", first, stage, clips=clips)
    runs.run(loaded, store, tmp_path / "run")
    path = run_folder.checkpoint_path(tmp_path / "run", "only")
    file_commands.export(path, tmp_path / "out.pth.tar", layout="coclr")
    back = torch.load(tmp_path / "out.pth.tar", weights_only=True)["state_dict"]
    trained = checkpoints.load_method(path)
    assert torch.equal(
        back["encoder_q.0.block5.2.branch0.0.bn.bias"], trained.pair.query.backbone.Mixed_5c.branch0[0].bn.bias
    )
    assert torch.equal(back["queue"], trained.pair.queue.features.T)
    if method == "coclr":
        assert back.keys() == torch.load(files["rgb"], weights_only=True)["state_dict"].keys()
        assert torch.equal(back["queue_vname"], trained.pair.queue.sources) and (back["queue_label"] == 1).all()
    else:
        assert torch.equal(back["queue_label"], trained.pair.queue.labels)


@pytest.mark.parametrize("shared", [True, False])
def test_goca_is_exported_with_its_heads_and_prototypes(store: VideoStore, tmp_path: Path, shared: bool) -> None:
    settings = {"streams": ["rgb", "flow"], "clips": 2, "shared_head": shared, "dim": 8, "prototypes": 6}
    settings |= {"backbone_settings": {"width": 0.125}, "head_settings": {"hidden": 8}}
    stage = {"name": "both", "method": "goca", "steps": 1, "settings": settings}
    image = {"flow": {"input": "image"}}
    loaded = runs.load(
        tmp_path / "recipe.yaml", stage, clips={"length": 4, "stride": 1, "size": [16, 16], "streams": image}
    )
    runs.run(loaded, store, tmp_path / "run")
    path = run_folder.checkpoint_path(tmp_path / "run", "both")
    file_commands.export(path, tmp_path / "out.pth.tar", layout="goca")
    back = torch.load(tmp_path / "out.pth.tar", weights_only=True)["state_dict"]
    own = set() if shared else {name for name in back if name.startswith("module.projection_head_flow.")}
    assert back.keys() - own == layouts.of_list(GOCA).keys() and bool(own) is not shared
    trained = checkpoints.load_method(path)
    assert torch.equal(back["module.prototypes.weight"], trained.prototypes.weight)
    assert torch.equal(back["module.projection_head.6.bias"], trained.networks["rgb"].head[6].bias)
    flow = trained.networks["flow"].backbone.layer4[1].conv2[0][3].weight
    assert torch.equal(back["module.video_network_flow.layer4.1.conv2.0.3.weight"], flow)
    with pytest.raises(Refusal, match="(?s)coclr is of InfoNCE.*: goca"):
        file_commands.export(path, tmp_path / "other.pth", layout="coclr")


def test_slic_is_exported_with_its_head(store: VideoStore, tmp_path: Path) -> None:
    settings = {"stream": "rgb", "backbone_settings": {"width": 0.125}, "head_settings": {"hidden": 8}, "dim": 6}
    stage = {"name": "slic", "method": "slic", "steps": 1, "settings": settings | {"clusters": "none"}}
    clips, sampling = {"length": 4, "stride": 1, "size": [16, 16]}, {"name": "cluster"}
    runs.run(runs.load(tmp_path / "recipe.yaml", stage, clips=clips, sampling=sampling), store, tmp_path / "run")
    path = run_folder.checkpoint_path(tmp_path / "run", "slic")
    file_commands.export(path, tmp_path / "out.pth.tar", layout="slic")
    back = torch.load(tmp_path / "out.pth.tar", weights_only=True)["state_dict"]
    assert back.keys() == layouts.slic().keys()
    network = checkpoints.load_method(path).networks["rgb"]
    assert torch.equal(back["layer4.1.conv2.weight"], network.backbone.layer4[1].conv2.weight)
    pairs = {"fc1.weight": 0, "bn_proj.running_mean": 1, "bn_proj.num_batches_tracked": 1, "fc2.bias": 3}
    for name, place in pairs.items():
        assert torch.equal(back[name], network.head[place].state_dict()[name.split(".")[1]]), name


def test_what_has_no_place_in_the_layout_is_refused(store: VideoStore, tmp_path: Path) -> None:
    loaded = runs.load(tmp_path / "recipe.yaml", runs.IN_BATCH | {"steps": 1})
    runs.run(loaded, store, tmp_path / "run")
    path = runs.last(tmp_path / "run")
    with pytest.raises(Refusal, match="(?s)InfoNCE, UberNCE and CoCLR.*: infonce"):
        file_commands.export(path, tmp_path / "out.pth", layout="coclr")
    with pytest.raises(Refusal, match="(?s)slic is of one network on r3d-18 with SLIC's head.*: infonce"):
        file_commands.export(path, tmp_path / "out.pth", layout="slic")
    with pytest.raises(UsageError, match='(?s)unknown layout "vico"'):
        file_commands.export(path, tmp_path / "out.pth", layout="vico")
    with pytest.raises(Refusal, match="(?s)goca is of GOCA on rgb, flow.*: infonce.*leave out --layout"):
        file_commands.export(path, tmp_path / "out.pth", layout="goca")
    with pytest.raises(UsageError, match="either a stream's backbone or a whole layout"):
        file_commands.export(path, tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()


@pytest.mark.remedy("export the bare backbone: leave out --layout")
def test_a_network_whose_centring_the_layouts_do_not_know_is_refused(store: VideoStore, tmp_path: Path) -> None:
    centred = runs.IN_BATCH | {"steps": 1, "settings": runs.IN_BATCH["settings"] | {"temporal_centring": True}}
    runs.run(runs.load(tmp_path / "recipe.yaml", centred), store, tmp_path / "run")
    for layout in imported.WRITTEN:
        with pytest.raises(Refusal, match="(?s)the layout knows no temporal centring.*leave out --layout"):
            file_commands.export(runs.last(tmp_path / "run"), tmp_path / "out.pth", layout=layout)
    file_commands.export(runs.last(tmp_path / "run"), tmp_path / "bare.pt", stream=centred["settings"]["stream"])


def test_what_cannot_be_a_run_is_refused_and_nothing_is_written(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file is given"):
        import_run({}, tmp_path / "run", "auto")
    (tmp_path / "there").mkdir()
    with pytest.raises(Refusal, match="something already"):
        import_run(files, tmp_path / "there", "auto")
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def fine_tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: dict[str, torch.Tensor] = {
        name.replace("encoder_q.0.", "backbone."): tensor
        for name, tensor in published_state("infonce").items()
        if name.startswith("encoder_q.0.")
    }
    made |= {"final_fc.1.weight": torch.zeros(101, 1024), "final_fc.1.bias": torch.zeros(101)}
    path = tmp_path_factory.mktemp("fine-tuned") / "rgb.pth.tar"
    torch.save({"state_dict": made}, path)
    return path


def test_a_fine_tuned_network_is_imported_whole(
    fine_tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file_commands.import_files(tmp_path / "run", rgb=fine_tuned)
    assert "left out" not in capsys.readouterr().err
    path = run_folder.checkpoint_path(tmp_path / "run", "rgb")
    network, fresh = checkpoints.load_method(path).networks["rgb"], checkpoints.untrained(path).networks["rgb"]
    state = torch.load(fine_tuned, weights_only=True)["state_dict"]
    assert torch.equal(network.backbone.Mixed_5c.branch0[0].bn.bias, state["backbone.Mixed_5c.branch0.0.bn.bias"])
    assert torch.equal(network.head.linear.weight, state["final_fc.1.weight"]) and fresh.head.linear.weight.any()
    assert network.size("head") == 101 and checkpoints.metadata(path)["layer"] == "backbone"
    direct, imported = (checkpoints.starting_weights(file, RGB) for file in (fine_tuned, path))
    assert runs.flatten(direct) == runs.flatten(imported) and list(direct) == ["backbone"]


def test_a_stage_starts_from_a_backbone_with_a_head_of_its_own(fine_tuned: Path) -> None:
    weights = checkpoints.starting_weights(fine_tuned, RGB)
    method = checkpoints.create("infonce", {"stream": "rgb", "dim": 16, "queue": 4}, CHANNELS, seed=3)
    head = {name: tensor.clone() for name, tensor in method.pair.query.head.state_dict().items()}
    for parts in method.starting["query"]:
        checkpoints.start_from(parts, weights, "here")
        assert runs.flatten(parts["head"].state_dict()) == runs.flatten(head)
        assert runs.flatten(weights["backbone"]) == runs.flatten(dict(parts["backbone"].state_dict()))
    with pytest.raises(Refusal, match=r"missing head\.2\.weight"):  # half a head is none
        checkpoints.start_from(method.pair.query.parts, weights | {"head": {"0.weight": head["0.weight"]}}, "here")


def test_a_frozen_network_without_a_head_is_refused(fine_tuned: Path, tmp_path: Path) -> None:
    stage = {"name": "only", "method": "coclr", "steps": 2, "start": {"sampler": str(fine_tuned)}}
    stage |= {"settings": {"stream": "flow", "sampler": {"stream": "rgb"}, "queue": 4}}
    loaded = runs.load(tmp_path / "recipe.yaml", stage, clips={"length": 8, "stride": 1, "size": [24, 24]})
    with pytest.raises(Refusal, match="no projection head.*would stay random"):
        stages.starting_weights(loaded, loaded.stages[0], tmp_path / "run")


def saved(folder: Path, name: str, state: dict[str, torch.Tensor]) -> Path:
    torch.save({"state_dict": state, "epoch": 1}, folder / f"{name}.pth.tar")
    return folder / f"{name}.pth.tar"


def filled_with(network: torch.nn.Module, prefix: str) -> bool:
    """Whether every tensor of the backbone is the published one of that name."""
    return all(
        (tensor == layouts.number(prefix + name)).all() for name, tensor in network.backbone.state_dict().items()
    )


def test_a_network_of_dpc_is_evaluated_on_its_blocks(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rgb = saved(tmp_path, "rgb", layouts.predictive("18"))
    file_commands.import_files(tmp_path / "run", rgb=rgb)
    told = " ".join(capsys.readouterr().err.split())
    assert "left out" not in told and "no running statistics" in told
    path = run_folder.checkpoint_path(tmp_path / "run", "rgb")
    network, clip = checkpoints.load_method(path).networks["rgb"], checkpoints.metadata(path)["clips"]
    assert filled_with(network, "backbone.")
    assert network.settings["backbone_settings"] == {"running_statistics": False}
    assert (clip["length"], clip["stride"]) == (5, 3)
    assert network.layers == ("backbone", "context") and checkpoints.metadata(path)["layer"] == "backbone"
    assert (network.aggregation.predictor[2].bias == layouts.number("network_pred.2.bias")).all()


@pytest.mark.slow
def test_both_streams_of_cocon_are_imported(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    files = {
        stream: saved(tmp_path, stream, layouts.predictive("18", channels=channels, statistics=True))
        for stream, channels in (("rgb", 3), ("flow", 2))
    }
    file_commands.import_files(tmp_path / "run", **files)
    assert "statistics" not in capsys.readouterr().err
    for stream, given in files.items():
        path = run_folder.checkpoint_path(tmp_path / "run", stream)
        network, clips = checkpoints.load_method(path).networks[stream], checkpoints.metadata(path)["clips"]
        assert filled_with(network, "backbone.") and network.in_channels == (3 if stream == "rgb" else 2)
        assert clips["streams"]["flow"]["input"] == "signed" and network.settings["backbone_settings"] == {}
        start = Start(stream, NetworkSettings(), takes=("backbone", "aggregation", "head"))
        direct, imported = (checkpoints.starting_weights(file, start) for file in (given, path))
        assert runs.flatten(direct) == runs.flatten(imported) and list(direct) == ["backbone", "aggregation"]


@pytest.mark.remedy("import each into a run of its own")
@pytest.mark.remedy("--pretraining kinetics400 for a network that was trained there, and another --run", told=True)
@pytest.mark.slow
def test_networks_of_vicc_goca_and_slic_are_imported(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    goca, vicc, slic = (
        saved(tmp_path, name, state)
        for name, state in (("goca", layouts.of_list(GOCA)), ("vicc", layouts.of_list(R21D)), ("slic", layouts.slic()))
    )
    file_commands.import_files(tmp_path / "rgb", rgb=goca)
    assert "1000 prototypes are left out" in " ".join(capsys.readouterr().err.split())
    file_commands.import_files(tmp_path / "both", rgb=goca, flow=goca)
    assert "left out" not in capsys.readouterr().err
    path = run_folder.checkpoint_path(tmp_path / "both", "goca")
    method = checkpoints.load_method(path)
    for stream, prefix in (("rgb", "module.video_network."), ("flow", "module.video_network_flow.")):
        network = method.networks[stream]
        assert filled_with(network, prefix) and network.size(checkpoints.metadata(path)["layer"]) == 2048
        assert (network.head[6].weight == layouts.number("module.projection_head.6.weight")).all()
    assert (method.prototypes.weight == layouts.number("module.prototypes.weight")).all()
    file_commands.export(path, tmp_path / "back.pth.tar", layout="goca")
    given, back = (torch.load(file, weights_only=True)["state_dict"] for file in (goca, tmp_path / "back.pth.tar"))
    assert given.keys() == back.keys() and all(torch.equal(given[name], back[name]) for name in given)
    with pytest.raises(Refusal, match="clips of other kinds"):
        file_commands.import_files(tmp_path / "none", flow=vicc, rgb=slic)
    file_commands.import_files(tmp_path / "one", flow=vicc)
    assert "left out" not in capsys.readouterr().err
    method = checkpoints.load_method(run_folder.checkpoint_path(tmp_path / "one", "flow"))
    network = method.networks["flow"]
    assert filled_with(network, "encoder_q.0.") and network.in_channels == 3
    assert (method.parts["prototypes"].weight == layouts.number("prototypes.weight")).all()
    assert (network.head[2].weight == layouts.number("encoder_q.4.weight")).all()
    file_commands.import_files(tmp_path / "other", rgb=slic)
    told = " ".join(capsys.readouterr().err.split())
    assert "normalised by ImageNet's statistics, as SLIC does it on all data sets but Kinetics" in told
    path = run_folder.checkpoint_path(tmp_path / "other", "rgb")
    network, facts = checkpoints.load_method(path).networks["rgb"], checkpoints.metadata(path)
    assert filled_with(network, "") and (network.head[1].running_var == layouts.number("bn_proj.running_var")).all()
    assert (facts["clips"]["length"], facts["layer"], network.size("head")) == (16, "head", 128)
    assert list(checkpoints.starting_weights(path, RGB)) == ["backbone"]  # the head is of another form
    file_commands.export(path, tmp_path / "again.pth.tar", layout="slic")
    given, back = (torch.load(file, weights_only=True)["state_dict"] for file in (slic, tmp_path / "again.pth.tar"))
    assert given.keys() == back.keys() and all(torch.equal(given[name], back[name]) for name in given)
    file_commands.import_files(tmp_path / "kinetics", rgb=slic, pretraining="kinetics400")
    assert not capsys.readouterr().err
    found = checkpoints.metadata(run_folder.checkpoint_path(tmp_path / "kinetics", "rgb"))["clips"]["statistics"]
    assert (facts["clips"]["statistics"], found) == ("imagenet", "kinetics")


@pytest.mark.parametrize("backbone", ["r2plus1d-10", "s3d"])
def test_vicc_goes_on_from_its_published_files_and_writes_such(tmp_path: Path, backbone: str) -> None:
    """A cross stage starts from two of them, with the query's prototypes; what it comes to has their layout."""
    state = layouts.of_list({"r2plus1d-10": R21D, "s3d": S3D}[backbone])
    start = {"query": str(saved(tmp_path, "flow", state)), "other": str(saved(tmp_path, "rgb", state))}
    settings = {"stream": "flow", "other": {"stream": "rgb"}, "backbone": backbone}
    stage = {"name": "flow", "method": "vicc", "steps": 1, "start": start, "settings": settings}
    seen = {"length": 32, "stride": 1, "size": [32, 32], "streams": {"flow": {"input": "image", "mirror": "plain"}}}
    loaded = runs.load(tmp_path / "recipe.yaml", stage, clips=seen)
    method = checkpoints.create("vicc", loaded.stages[0].settings, loaded.channels, seed=0)
    for role, found in stages.starting_weights(loaded, loaded.stages[0], tmp_path).items():
        for parts in method.starting[role]:
            checkpoints.start_from(parts, found, role)
    facts = provenance.described(loaded, loaded.stages[0]) | {"step": 7, "finished": True}
    content = {"state_dict": method.state_dict(), "hyper_parameters": dict(method.hparams), METADATA: facts}
    checkpoints.write(content, tmp_path / "last.ckpt")
    file_commands.export(tmp_path / "last.ckpt", tmp_path / "out.pth.tar", layout="vicc")
    back = torch.load(tmp_path / "out.pth.tar", weights_only=True)["state_dict"]
    wanted = {name: tensor for name, tensor in state.items() if not name.startswith("second.")}
    wanted |= {name.replace("encoder_q.", "second."): tensor for name, tensor in wanted.items() if "encoder_q" in name}
    assert back.keys() == wanted.keys()
    assert not [name for name, tensor in back.items() if not torch.equal(tensor, wanted[name])]


def test_what_vicc_s_layout_does_not_hold_is_refused(store: VideoStore, tmp_path: Path) -> None:
    """Another method, and another backbone."""
    vicc = {"name": "prototypes", "method": "vicc", "steps": 1}
    vicc["settings"] = {"stream": "rgb", "backbone": "small", "prototypes": 4, "queue": 0}
    runs.run(runs.load(tmp_path / "recipe.yaml", runs.IN_BATCH | {"steps": 1}, vicc), store, tmp_path / "run")
    for stage, method in (("pixels", "infonce"), ("prototypes", "vicc")):
        with pytest.raises(Refusal, match=f"(?s)of ViCC, both streams on the same of s3d, r2plus1d-10.*: {method}"):
            file_commands.export(
                run_folder.checkpoint_path(tmp_path / "run", stage), tmp_path / "out.pth.tar", layout="vicc"
            )
    assert not (tmp_path / "out.pth.tar").exists()


def test_networks_that_saw_other_clips_do_not_make_one_run(tmp_path: Path) -> None:
    given = {"rgb": saved(tmp_path, "vicc", layouts.of_list(R21D)), "flow": saved(tmp_path, "slic", layouts.slic())}
    with pytest.raises(Refusal, match=r"(?s)clips of other kinds.*vicc\.pth\.tar \(vicc\), .*slic\.pth\.tar \(slic\)"):
        file_commands.import_files(tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


def test_a_stage_starts_from_the_network_of_its_stream(tmp_path: Path) -> None:
    path = saved(tmp_path, "goca", layouts.of_list(GOCA))
    for stream, prefix in (("rgb", "module.video_network."), ("flow", "module.video_network_flow.")):
        found = checkpoints.starting_weights(path, Start(stream, NetworkSettings()))
        assert list(found) == ["backbone"]
        assert (found["backbone"]["stem.0.weight"] == layouts.number(f"{prefix}stem.0.weight")).all()


def test_a_stage_starts_from_published_prototypes(tmp_path: Path) -> None:
    path = saved(tmp_path, "vicc", layouts.of_list(R21D))
    start = Start("rgb", NetworkSettings(), takes=("backbone", "head", "prototypes"))
    found = checkpoints.starting_weights(path, start)
    assert list(found) == ["backbone", "head", "prototypes"]
    checkpoints.start_from({"prototypes": Prototypes(300, 128)}, {"prototypes": found["prototypes"]}, "here")
    assert (found["prototypes"]["weight"] == layouts.number("prototypes.weight")).all()


@pytest.mark.slow
def test_a_trunk_without_a_head_is_imported_as_it_is_and_what_it_has_beside_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    trunk = {name: t for name, t in layouts.slic().items() if not name.startswith(("fc", "bn_proj"))}
    path = saved(tmp_path, "trunk", trunk | {"fc.weight": torch.zeros(400, 512), "fc.bias": torch.zeros(400)})
    file_commands.import_files(tmp_path / "run", rgb=path)
    told = " ".join(capsys.readouterr().err.split())
    assert "fc.weight, fc.bias are left out: no part of the layout slic" in told
    method = checkpoints.load_method(run_folder.checkpoint_path(tmp_path / "run", "rgb"))
    assert method.networks["rgb"].layers == ("backbone",)


def test_layouts_that_none_of_our_checkpoints_fits_into_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match='(?s)unknown layout "tclr".*known: coclr, vicc, goca, slic, dpc'):
        file_commands.export(tmp_path / "last.ckpt", tmp_path / "out.pth", layout="tclr")
