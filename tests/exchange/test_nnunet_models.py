"""nnU-Net's own answers: folders of random weights, a scan, and what v2.8.1 made of it.

Those of residual networks lie in tests/nnunet, whose make.py asked for them, those of plain ones in ../shared/oracle.
"""

import json
import os
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import SHARED, same_weights, tiny_model

from octkit.common.errors import OctkitError
from octkit.common.files import read_json, write_json
from octkit.data.volume_files import read_volume, write_nifti
from octkit.exchange.nnunet_models import (
    export_model,
    import_model,
    names_of_weights,
    open_folder,
    read_checkpoint,
    weights_from,
    weights_to,
    what_is_lost,
)
from octkit.inference.predict_folder import predict_folder
from octkit.inference.sliding_window import Predictor
from octkit.network.model_file import open_model

ORACLE, RESIDUAL = SHARED / "oracle", Path(__file__).parents[1] / "nnunet"
needs_oracle = pytest.mark.skipif(not ORACLE.is_dir(), reason="needs nnU-Net's answers in ../shared/oracle")
MODELS = [*(pytest.param(ORACLE / name, id=name, marks=needs_oracle) for name in ("tiny_2d", "tiny_3d")),
          *(pytest.param(RESIDUAL / name, id=name) for name in ("residual_2d", "residual_3d"))]


def answers(folder, kind):
    """The oracle's scan, probabilities (classes, *spatial) and mask, `kind` plain or mirrored."""
    expected = np.load(folder / "expected.npz")
    return expected["image"], expected[f"probabilities_{kind}"], expected[f"mask_{kind}"]


def check_against(found, mask, probabilities, expected_mask):
    """Equal to 1e-4, but for single values that half precision rounds the other way on another processor.

    nnU-Net sums windows in half precision, where a logit of 0.7 has neighbours 5e-4 apart; a last digit of float32 that
    differs can tip one over. nnU-Net run anew differs from the oracle by as much (2.1e-4 in 10 of 60,000 values).
    """
    difference = np.abs(found - probabilities)
    assert np.mean(difference > 1e-4) < 1e-3 and difference.max() < 5e-4
    likely = np.sort(probabilities, axis=0)
    clear = likely[-1] - likely[-2] > 1e-3
    assert (mask == expected_mask)[clear].all()


@pytest.mark.parametrize("kind", ["plain", "mirrored"])
@pytest.mark.parametrize("there", MODELS)
def test_nnunets_model_as_one_file_gives_nnunets_answers(tmp_path, there, kind):
    image, probabilities, mask = answers(there, kind)
    write_nifti(tmp_path / "scans" / "0001.nii.gz", image, (3.0, 1.0, 1.0)[-image.ndim:])
    model = import_model(there, tmp_path / "model.zip")
    assert model.labels == ("rnfl", "gcipl", "choroid") and model.blend == "logits"
    predictor = Predictor.load(tmp_path / "model.zip", mirror=kind == "mirrored")
    predict_folder(predictor, tmp_path / "scans", tmp_path / "out", True, progress=False)
    found = np.load(tmp_path / "out" / "0001.npz")["probabilities"]
    check_against(found, read_volume(tmp_path / "out" / "0001.nii.gz")[0], probabilities, mask)


@pytest.mark.parametrize("there", MODELS)
def test_nnunets_weights_go_round_bit_for_bit(tmp_path, there):
    [folder] = export_model(open_folder(there), tmp_path)
    theirs, ours = (read_checkpoint(root / "fold_0" / "checkpoint_final.pth") for root in (there, folder))
    assert ours.network_weights.keys() == theirs.network_weights.keys()
    assert all(torch.equal(ours.network_weights[name], tensor) for name, tensor in theirs.network_weights.items())
    assert ours.inference_allowed_mirroring_axes == theirs.inference_allowed_mirroring_axes
    plans, again = read_json(there / "plans.json"), read_json(folder / "plans.json")
    for config, entry in plans["configurations"].items():
        assert again["configurations"][config] == entry | {"data_identifier": f"nnUNetPlans_{config}"}
    assert again["foreground_intensity_properties_per_channel"] == plans["foreground_intensity_properties_per_channel"]


TRAITS = {"postprocessing": ((1, 2, 3),), "circle": True, "surfaces": True, "mirror": False, "mirror_axes": (-1,),
          "step": 0.25, "precision": "bfloat16", "blend": "probabilities"}


@pytest.mark.parametrize("configs", [("2d",), ("3d_fullres",), ("2d", "3d_fullres")])
def test_models_go_to_nnunet_and_back_bit_for_bit(tmp_path, configs):
    model = tiny_model(*configs, folds=("0", "4"), **TRAITS)
    folders = export_model(model, tmp_path / "Dataset001_Tiny")
    assert [folder.name for folder in folders] == [f"nnUNetTrainer__nnUNetPlans__{config}" for config in configs]
    for folder, member in zip(folders, model.members, strict=True):
        again = open_folder(folder)
        assert same_weights(again.members[0], member) and len(again.members) == 1
        assert {name: getattr(again, name) for name in TRAITS} == TRAITS
        assert again.plan.configurations[member.config] == model.plan.configurations[member.config]
        assert read_json(folder / "plans.json")["dataset_name"] == "Dataset001_Tiny"


def test_a_cascade_goes_round_with_its_first_stage_in_the_folder_beside(tmp_path):
    model = tiny_model("3d_cascade_fullres")
    second, first = export_model(model, tmp_path)
    assert first.name.endswith("__3d_lowres")
    assert same_weights(open_folder(second).members[0], model.members[0])
    assert same_weights(open_folder(first).members[0], model.members[0].previous)
    for change in ({"spacing": [3.0, 3.0, 3.0]}, {"normalization_schemes": ["ZScoreNormalization"]}):
        plans = read_json(second / "plans.json")
        plans["configurations"]["3d_lowres"] |= change
        write_json(first / "plans.json", plans)
        with pytest.raises(OctkitError, match="__3d_lowres: is no 3d_lowres of the same plan"):
            open_folder(second)
    first.rename(tmp_path / "elsewhere")
    with pytest.raises(OctkitError, match="cannot predict without its first, expected that one in .*__3d_lowres"):
        open_folder(second)


def test_a_pair_that_shares_a_first_stage_writes_it_once(tmp_path):
    assert len(export_model(tiny_model("3d_lowres", "3d_cascade_fullres"), tmp_path)) == 2


def test_predictions_survive_the_way_there_and_back(tmp_path):
    model = tiny_model("3d_fullres", mirror=False)
    [folder] = export_model(model, tmp_path / "there")
    import_model(folder, tmp_path / "back.zip")
    image = np.random.default_rng(0).uniform(1, 255, (1, 20, 12, 24)).astype(np.float32)
    assert np.array_equal(Predictor(open_model(tmp_path / "back.zip"), "cpu")(image, (1.0, 1.2, 1.0)),
                          Predictor(model, "cpu")(image, (1.0, 1.2, 1.0)))


def test_every_tensor_is_named_once_here_and_all_of_theirs_are_used():
    model = tiny_model("2d")
    state, network = model.members[0].weights["0"], model.plan.configurations["2d"]
    theirs = weights_to(state, network)
    assert {ours for ours, _ in names_of_weights(network)} == set(state)
    # Two stages down and one up with 2 x (convolution, norm) x (weight, bias) under two names, the encoder's again in
    # the decoder; one upsampling and one head.
    assert len(theirs) == (2 * 2 + 1) * 16 + 4
    again = weights_from(theirs, network, "here")
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())


def test_decoders_run_from_the_lowest_stage_up_there():
    network = replace(tiny_model("2d").plan.configurations["2d"], features=(4, 8, 8, 8))
    names = dict(names_of_weights(network))
    assert names["up.0.weight"] == ("decoder.transpconvs.2.weight",)
    assert names["scores.2.bias"] == ("decoder.seg_layers.0.bias",)
    assert names["decoder.1.layers.3.weight"] == ("decoder.stages.1.convs.1.conv.weight",
                                                  "decoder.stages.1.convs.1.all_modules.0.weight")
    assert names["encoder.3.layers.1.bias"][2] == "decoder.encoder.stages.3.0.convs.0.norm.bias"


@pytest.mark.parametrize(("change", "found"), [
    (lambda state: state.pop("decoder.seg_layers.0.bias"), "'decoder.seg_layers.0.bias' is missing"),
    (lambda state: state.update({"encoder.stages.0.0.convs.0.norm.running_mean": torch.zeros(4)}), "is foreign"),
    (lambda state: state.update({"encoder.stages.0.0.convs.0.all_modules.1.bias": torch.ones(4)}), "differ"),
])
def test_weights_of_another_network_are_refused(change, found):
    model = tiny_model("2d")
    network = model.plan.configurations["2d"]
    theirs = weights_to(model.members[0].weights["0"], network)
    change(theirs)
    with pytest.raises(OctkitError, match=found):
        weights_from(theirs, network, "here")


@pytest.fixture
def folder(tmp_path):
    return export_model(tiny_model("2d"), tmp_path)[0]


def changed_checkpoint(folder, fold=0, **changes):
    path = folder / f"fold_{fold}" / "checkpoint_final.pth"
    torch.save(torch.load(path, weights_only=True) | changes, path)


def change_both(folder, **changes):
    for fold in (0, 1):
        changed_checkpoint(folder, fold, **changes)


def test_a_checkpoint_with_all_that_nnunets_trainer_saves_is_read(folder):
    losses = [np.float32(0.5), np.float64(0.25)]
    changed_checkpoint(folder, optimizer_state={"state": {}, "param_groups": [{"lr": 0.01}]}, grad_scaler_state=None,
                       logging={"train_losses": losses, "dice_per_class_or_region": [losses]}, current_epoch=1000,
                       _best_ema=np.float64(0.9),
                       init_args={"configuration": "2d", "fold": 0, "device": torch.device("cpu")})
    assert open_folder(folder).members[0].config == "2d"


def test_a_checkpoint_that_asks_for_code_is_refused_and_runs_none(folder, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harmed"),)

    changed_checkpoint(folder, trainer_name=Evil())
    with pytest.raises(OctkitError, match=r"it asks for posix\.mkdir"):
        open_folder(folder)
    assert not (tmp_path / "harmed").exists()


def test_damaged_and_foreign_checkpoints_are_refused(folder):
    path = folder / "fold_0" / "checkpoint_final.pth"
    whole = path.read_bytes()
    path.write_bytes(whole[:len(whole) // 2])
    with pytest.raises(OctkitError, match=r"checkpoint_final\.pth: cannot be read as a checkpoint"):
        open_folder(folder)
    for content, found in [([1], "is no checkpoint"), ({"network_weights": {"a": 1}}, "network_weights"),
                           ({"network_weights": {}}, "trainer_name"),
                           ({"network_weights": {}, "trainer_name": 1}, "trainer_name"),
                           ({"network_weights": {}, "trainer_name": "x", "init_args": [1]}, "init_args")]:
        torch.save(content, path)
        with pytest.raises(OctkitError, match=found):
            open_folder(folder)


def test_folds_that_are_not_trained_to_their_end_are_left_out(folder, capsys):
    (folder / "fold_1" / "checkpoint_final.pth").rename(folder / "fold_1" / "checkpoint_latest.pth")
    assert list(open_folder(folder).members[0].weights) == ["0"]
    assert "fold_1: has no checkpoint_final.pth and is left out" in capsys.readouterr().out
    (folder / "fold_0" / "checkpoint_final.pth").unlink()
    with pytest.raises(OctkitError, match=r"found no fold_\*/checkpoint_final\.pth.*--checkpoint latest"):
        open_folder(folder)
    (folder / "fold_1" / "checkpoint_latest.pth").unlink()
    with pytest.raises(OctkitError, match=r"found no fold_\*/checkpoint_final\.pth") as error:
        open_folder(folder)
    assert "--checkpoint" not in str(error.value)  # nothing that helps


def test_fold_all_counts_where_it_is_alone(tmp_path, capsys):
    [folder] = export_model(tiny_model("2d", folds=("0", "all")), tmp_path / "both")
    assert list(open_folder(folder).members[0].weights) == ["0"]
    assert "fold_all is left out" in capsys.readouterr().out
    [folder] = export_model(tiny_model("2d", folds=("all",)), tmp_path / "all")
    assert list(open_folder(folder).members[0].weights) == ["all"]


def test_the_folders_name_says_the_configuration_where_the_checkpoints_do_not_and_they_must_agree(folder):
    change_both(folder, init_args={})
    assert open_folder(folder).members[0].config == "2d"
    changed_checkpoint(folder, inference_allowed_mirroring_axes=(1,))
    with pytest.raises(OctkitError, match="its folds are of different trainings"):
        open_folder(folder)


def test_axes_to_mirror_are_counted_from_the_last(folder):
    (folder / "octkit.json").unlink()
    assert open_folder(folder).mirror_axes == (-2, -1) and open_folder(folder).mirror
    change_both(folder, inference_allowed_mirroring_axes=None)
    assert open_folder(folder).mirror_axes == () and not open_folder(folder).mirror
    change_both(folder, inference_allowed_mirroring_axes=(7,))
    with pytest.raises(OctkitError, match="mirror axis 7"):
        open_folder(folder)


def test_an_octkit_json_of_another_kind_and_weights_of_another_plan_are_refused(folder):
    kept = read_json(folder / "octkit.json")
    write_json(folder / "octkit.json", {"mirror": True})
    with pytest.raises(OctkitError, match=r"octkit\.json: is not valid"):
        open_folder(folder)
    write_json(folder / "octkit.json", kept)
    plans = read_json(folder / "plans.json")
    plans["configurations"]["2d"]["architecture"]["arch_kwargs"]["features_per_stage"] = [4, 16]
    write_json(folder / "plans.json", plans)
    with pytest.raises(OctkitError, match="2d fold 0: found .* expected .* as its plan has it"):
        open_folder(folder)


def test_folders_that_are_there_are_not_written_into(folder):
    with pytest.raises(OctkitError, match="is there already, expected a new folder"):
        export_model(tiny_model("2d"), folder.parent)


def packed(folder, path, *extra):
    """A zip of a model's folder as nnUNetv2_export_model_to_zip writes it, and of `extra` parts (name, bytes)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, f"Dataset001_Tiny/{file.relative_to(folder.parent)}")
        for name, data in (("Dataset001_Tiny/inference_instructions.txt", b"x"), *extra):
            archive.writestr(name, data)
    return path


def test_a_zipped_model_is_imported_and_predict_says_how(folder, tmp_path, octkit):
    whole = packed(folder, tmp_path / "model.zip", ("../out/fold_0/checkpoint_final.pth", b"x"),
                   ("/out/plans.json.txt", b"x"))
    code, _, error = octkit("predict", whole, tmp_path, "-o", tmp_path / "masks")
    assert code == 2 and "model.zip: belongs to a model of nnU-Net's" in error
    [advice] = re.findall(r"octkit (import-nnunet \S+ -o) MODEL.zip", error)
    before = sorted(tmp_path.rglob("*"))
    assert octkit(*advice.split(), tmp_path / "ours.zip")[0] == 0
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "ours.zip"])  # nothing else, anywhere
    assert same_weights(open_model(tmp_path / "ours.zip").members[0], tiny_model("2d").members[0])
    with zipfile.ZipFile(tmp_path / "ours.zip") as archive:
        card = json.loads(archive.read("card.json"))
    assert (card["name"], card["checkpoint"]) == ("nnUNetTrainer__nnUNetPlans__2d", "checkpoint_final.pth")
    assert "is a model of octkit's" in octkit("import-nnunet", tmp_path / "ours.zip", "-o", tmp_path / "x.zip")[2]


def test_a_zip_that_would_grow_and_one_of_two_models_are_refused(folder, tmp_path):
    bomb = packed(folder, tmp_path / "bomb.zip", ("a/dataset.json", bytes(20_000_000)))
    with pytest.raises(OctkitError, match=r"bomb\.zip: would unpack to 200\d{5} bytes"):
        import_model(bomb, tmp_path / "ours.zip")
    plans = (folder / "plans.json").read_bytes()
    two = packed(folder, tmp_path / "two.zip", (f"Dataset001_Tiny/{folder.name[:-2]}3d_lowres/plans.json", plans))
    with pytest.raises(OctkitError, match=r"two\.zip: holds 2 models \(.*__2d, .*__3d_lowres\), unpack it and give"):
        import_model(two, tmp_path / "ours.zip")
    with zipfile.ZipFile(two) as archive:
        archive.extractall(tmp_path / "unpacked")
    import_model(tmp_path / "unpacked/Dataset001_Tiny" / folder.name, tmp_path / "ours.zip")
    (folder / "dataset.json").unlink()
    with pytest.raises(OctkitError, match=r"part\.zip/Dataset001_Tiny/.*dataset\.json: not found"):
        import_model(packed(folder, tmp_path / "part.zip"), tmp_path / "ours.zip")
    (tmp_path / "text.zip").write_text("x")
    with pytest.raises(OctkitError, match=r"text\.zip: cannot be read as a zip"):
        import_model(tmp_path / "text.zip", tmp_path / "ours.zip")


def test_a_data_sets_results_stand_for_the_one_model_in_them(folder, tmp_path):
    import_model(folder.parent, tmp_path / "ours.zip")
    assert same_weights(open_model(tmp_path / "ours.zip").members[0], tiny_model("2d").members[0])


def test_the_best_checkpoint_is_taken_where_no_fold_has_a_last_one(folder, tmp_path, capsys):
    for fold in ("fold_0", "fold_1"):
        (folder / fold / "checkpoint_final.pth").rename(folder / fold / "checkpoint_best.pth")
    import_model(packed(folder, tmp_path / "model.zip"), tmp_path / "ours.zip")
    assert "checkpoint_best.pth is taken" in capsys.readouterr().out
    assert same_weights(open_model(tmp_path / "ours.zip").members[0], tiny_model("2d").members[0])
    with zipfile.ZipFile(tmp_path / "ours.zip") as archive:
        assert json.loads(archive.read("card.json"))["checkpoint"] == "checkpoint_best.pth"


def test_the_checkpoint_that_was_asked_for_is_taken(folder, tmp_path, octkit):
    [other] = export_model(tiny_model("2d", seed=1), tmp_path / "other")
    for fold in ("fold_0", "fold_1"):
        (other / fold / "checkpoint_final.pth").rename(folder / fold / "checkpoint_latest.pth")
    whole = packed(folder, tmp_path / "model.zip")
    for source, kind, seed in ((whole, "latest", 1), (folder, "latest", 1), (whole, "final", 0)):
        out = tmp_path / f"{source.stem}_{kind}.zip"
        assert octkit("import-nnunet", source, "-o", out, "--checkpoint", kind)[0] == 0
        assert same_weights(open_model(out).members[0], tiny_model("2d", seed=seed).members[0])
    for kind, found in (("best", "--checkpoint final|latest"), ("newest", "found 'newest', expected one of")):
        code, _, error = octkit("import-nnunet", whole, "-o", tmp_path / "none.zip", "--checkpoint", kind)
        assert code == 2 and found in error


def test_the_model_in_the_box_goes_to_nnunet(tmp_path, octkit):
    assert octkit("export-nnunet", "default", "-o", tmp_path / "there")[0] == 0
    [folder] = (tmp_path / "there").iterdir()
    assert same_weights(open_folder(folder).members[0], open_model("default").members[0])


def test_parts_of_a_model_of_nnunets_lead_predict_to_the_whole(folder, tmp_path, octkit):
    for part in (folder, folder / "fold_0", folder / "fold_0/checkpoint_final.pth", folder.parent):
        code, _, error = octkit("predict", part, tmp_path, "-o", tmp_path / "masks")
        assert code == 2 and "belongs to a model of nnU-Net's" in error, part
        [there] = re.findall(r"octkit import-nnunet (\S+) -o MODEL.zip", error)
        import_model(there, tmp_path / "ours.zip")


def test_what_nnunet_cannot_carry_is_said_and_written_down(tmp_path, capsys):
    model = tiny_model("2d", "3d_cascade_fullres", folds=("all",), **TRAITS)
    sentences = what_is_lost(model)
    for part in ("averages 2d and 3d_cascade_fullres", "refines 3d_lowres", "before softmax", "--disable_tta",
                 "rnfl+gcipl+choroid", "-step_size 0.25", "across the seam", "ordered boundaries", "-f all"):
        assert sum(part in sentence for sentence in sentences) == 1, part
    folders = export_model(model, tmp_path)
    assert capsys.readouterr().out.splitlines() == sentences
    assert all(sentence in (folders[0] / "README.txt").read_text() for sentence in sentences)
    assert what_is_lost(tiny_model("2d", blend="logits")) == []
    flat = tiny_model("2d", blend="logits")
    assert "as NIfTI files" in what_is_lost(replace(flat, plan=replace(flat.plan, units="mm")))[0]
    deep = tiny_model("3d_fullres", blend="logits")
    assert "1 x 1 x 1 mm" in what_is_lost(replace(deep, plan=replace(deep.plan, units="px")))[0]


def test_a_pickle_of_post_processing_is_left_out_and_that_is_said(folder, capsys):
    (folder / "crossval").mkdir()
    (folder / "crossval/postprocessing.pkl").write_bytes(b"code")
    open_folder(folder)
    assert "postprocessing.pkl: is left out" in capsys.readouterr().out
