import hashlib
import json
import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import same_weights, scope_of, smoke, tiny_model

from octkit.common.errors import OctkitError
from octkit.common.files import write_json
from octkit.data.labels import BOUNDARIES, LAYERS
from octkit.data.measured import Calibration
from octkit.inference.sliding_window import Predictor
from octkit.network import model as models
from octkit.network.checkpoints import save_checkpoint
from octkit.network.model_file import card_text, export_run, open_model, run_card, save_model, starting_weights
from octkit.planning.run import Run

CARD = {"name": "tiny", "data": "stripes", "seed": 0}
CALIBRATION = Calibration(scans=9, origin="nine", knots={name: ((0.5, 1.0, 2.0),) for name in BOUNDARIES},
                          means={layer: {"global": (0.5, 1.0)} for layer in LAYERS})


def rewritten(path, change, compression=zipfile.ZIP_STORED):
    """A model's file with other parts: `change` maps {name: bytes} to {name: bytes}."""
    with zipfile.ZipFile(path) as archive:
        parts = change({name: archive.read(name) for name in archive.namelist()})
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


def described(path, change):
    """A model's file with another model.json: `change` changes its content in place."""
    def with_description(parts):
        content = json.loads(parts["model.json"])
        change(content)
        return parts | {"model.json": json.dumps(content).encode()}

    rewritten(path, with_description)


@pytest.fixture
def file(tmp_path):
    save_model(tiny_model("2d"), tmp_path / "model.zip", CARD)
    return tmp_path / "model.zip"


def run_folder(path, model):
    """A run's folder that holds this model, as training and selection leave it."""
    smoke(f"train.folds=[{','.join(model.members[0].weights)}]").save(path / "settings.json")
    model.plan.save(path / "plan.json")
    for member in model.members:
        for fold, state in member.weights.items():
            save_checkpoint(Run(path).checkpoint(member.config, fold), {"epoch": 2, "epochs": 2, "network": state})
    configs = [member.config for member in model.members]
    write_json(path / "selection.json", {
        "configuration": configs[0], "configurations": configs, "why": "it is best", "steps": [[1, 2, 3]],
        "circle": True, "surfaces": False,
        "candidates": [{"name": "2d", "configurations": ["2d"], "mean_dice": 0.9, "dice": {"rnfl": 0.9}}]})
    write_json(path / "scores.json", {"units": {"dice": ""}, "cases": {"Mustermann": {"rnfl": {"dice": 0.9}}},
                                      "summary": {"rnfl": {"dice": {"mean": 0.9, "std": None}}}})
    return path


@pytest.mark.parametrize("configs", [("2d",), ("2d", "3d_fullres"), ("3d_lowres", "3d_cascade_fullres")])
def test_models_go_round_bit_for_bit(tmp_path, configs):
    model = tiny_model(*configs, postprocessing=((1, 2, 3), (2,)), circle=True, blend="logits", mirror=False, step=0.4,
                       scope=scope_of(0.5))
    save_model(model, tmp_path / "model.zip", CARD)
    again = open_model(tmp_path / "model.zip")
    assert replace(again, members=()) == replace(model, members=())
    assert len(again.members) == len(configs) and all(map(same_weights, again.members, model.members))


def test_what_doubt_is_worth_goes_with_the_model_and_is_said_on_its_card(tmp_path):
    model = tiny_model("2d", "3d_fullres", calibration=CALIBRATION)
    save_model(model, tmp_path / "model.zip", CARD)
    assert open_model(tmp_path / "model.zip").calibration == CALIBRATION
    # It was fitted on the average of both configurations.
    assert open_model(tmp_path / "model.zip", ["2d"]).calibration is None
    assert "calibrated on 9 scans: nine" in card_text(model, CARD)
    assert "uncalibrated" in card_text(tiny_model("2d"), CARD)
    described(tmp_path / "model.zip", lambda content: content["calibration"].update(scans=0))
    with pytest.raises(OctkitError, match=r"model.zip: .*calibration.scans"):
        open_model(tmp_path / "model.zip")


def test_a_run_has_its_calibration_beside_the_selection_that_it_belongs_to(tmp_path):
    run = run_folder(tmp_path / "run", tiny_model("2d"))
    assert export_run(Run(run), tmp_path / "model.zip").calibration is None
    write_json(run / "calibration.json", CALIBRATION.model_dump(mode="json"))
    export_run(Run(run), tmp_path / "model.zip")
    assert open_model(tmp_path / "model.zip").calibration == open_model(run).calibration == CALIBRATION
    (run / "selection.json").unlink()
    assert open_model(run).calibration is None


def test_an_older_file_that_calls_logits_scores_opens(file):
    described(file, lambda content: content.update(blend="scores"))
    assert open_model(file).blend == "logits"


def test_an_older_file_has_no_scope_and_the_card_says_what_is_in_scope(tmp_path, file):
    described(file, lambda content: content.pop("scope"))
    assert open_model(file).scope is None
    save_model(tiny_model("2d", scope=scope_of(0.5)), tmp_path / "fitted.zip", CARD)
    for path, said in ((file, "does not recognise others"), (tmp_path / "fitted.zip", "1 of 90 circle scans")):
        with zipfile.ZipFile(path) as archive:
            assert said in archive.read("README.md").decode()


def test_the_same_model_makes_the_same_bytes_however_its_weights_lie_in_memory(tmp_path, file):
    save_model(tiny_model("2d", seed=1), tmp_path / "other.zip", CARD)
    assert (tmp_path / "other.zip").read_bytes() != file.read_bytes()
    model = open_model(file)
    for state in model.members[0].weights.values():
        for name, tensor in state.items():
            if tensor.ndim == 4:
                state[name] = tensor.contiguous(memory_format=torch.channels_last)
    save_model(model, tmp_path / "again.zip", CARD)
    assert (tmp_path / "again.zip").read_bytes() == file.read_bytes()


def test_folds_and_configurations_by_name(tmp_path):
    save_model(tiny_model("2d", "3d_cascade_fullres"), tmp_path / "m.zip", CARD)
    [member] = open_model(tmp_path / "m.zip", ["3d_cascade_fullres"], [1]).members
    assert member.config == "3d_cascade_fullres" and list(member.weights) == list(member.previous.weights) == ["1"]
    with pytest.raises(OctkitError, match="has no configuration '3d_fullres', expected one of 2d, 3d_cascade"):
        open_model(tmp_path / "m.zip", ["3d_fullres"])
    with pytest.raises(OctkitError, match="has no fold 7 of 2d, expected one of 0, 1"):
        open_model(tmp_path / "m.zip", folds=[7])


def test_a_run_exported_predicts_what_the_run_predicts(tmp_path):
    run = run_folder(tmp_path / "run", tiny_model("2d"))
    model = export_run(Run(run), tmp_path / "model.zip")
    assert model.postprocessing == ((1, 2, 3),) and model.circle
    image = np.random.default_rng(0).uniform(0, 255, (1, 20, 30)).astype(np.float32)
    assert np.array_equal(Predictor.load(tmp_path / "model.zip", "cpu")(image), Predictor.load(run, "cpu")(image))
    [ours], [theirs] = (open_model(path, folds=[1]).members for path in (run, tmp_path / "model.zip"))
    assert same_weights(ours, theirs)


def test_the_card_says_what_the_run_knows_and_names_no_case(tmp_path):
    run = run_folder(tmp_path / "run", tiny_model("2d"))
    card = run_card(Run(run))
    assert card["scores"] == {"rnfl": {"dice": {"mean": 0.9, "std": None}}} and card["data"].endswith("phantoms)")
    assert card["cross_validation"] == [{"name": "2d", "mean_dice": 0.9, "dice": {"rnfl": 0.9}}]
    export_run(Run(run), tmp_path / "model.zip")
    assert b"Mustermann" not in (tmp_path / "model.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        assert json.loads(archive.read("card.json")) == card
        text = archive.read("README.md").decode()
        assert "- rnfl dice: 0.9000\n" in text and "Planned in px" in text


def flipped(data):
    place = data.index(b"weights/2d/fold_1") + 5000
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1:]


@pytest.mark.parametrize("change", [lambda _: b"no zip", flipped,
                                    *(lambda data, share=share: data[:int(len(data) * share)]
                                      for share in (0.1, 0.5, 0.9, 0.999))])
def test_a_damaged_file_is_refused(file, change):
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(OctkitError, match="cannot be read as a model's file"):
        open_model(file)


@pytest.mark.parametrize(("change", "found"), [
    (lambda _: {"../../evil": b""}, r"is no model"),
    (lambda parts: parts | {"weights/2d/fold_0.safetensors": parts["weights/2d/fold_1.safetensors"]},
     "fold_0.safetensors does not have the checksum"),
    *((lambda parts, lost=lost: {name: data for name, data in parts.items() if lost not in name}, "is missing or not")
      for lost in ("fold_1", "card.json")),
    *((lambda parts, more=more: parts | {more: b""}, "is missing or not") for more in ("../../evil", "/etc/evil")),
    *((lambda parts, data=data: parts | {"model.json": data}, r"model\.json is not valid")
      for data in (b"{", b"[]", b"\xff", b"[" * 10**5)),
])
def test_other_parts_are_refused(file, change, found):
    rewritten(file, change)
    with pytest.raises(OctkitError, match=found):
        open_model(file)


def test_parts_that_claim_more_than_the_file_holds_are_refused(file):
    data = file.read_bytes()
    central = data.rindex(b"PK\x01\x02", 0, data.index(b"README.md", data.index(b"PK\x01\x02")))
    size = (10**9).to_bytes(4, "little")
    file.write_bytes(data[:central + 20] + size * 2 + data[central + 28:])
    with pytest.raises(OctkitError, match="claim to be larger than the file"):
        open_model(file)


@pytest.mark.parametrize(("key", "value", "found"), [
    ("format", "other model", "format"), ("version", 2, "a newer octkit can read it"), ("step", 0, "step"),
    ("blend", "magic", "blend"), ("labels", ["a"], "found the labels a"), ("more", 1, "more"),
    ("mirror_axes", [0], "mirror_axes"), ("members", [], "is missing or not named"),
    ("postprocessing", [[9]], "post-processing"), ("scope", {"least": 0.5}, "scope"),
    ("scope", scope_of(0.5).model_dump() | {"least": 2}, "scope")])
def test_a_description_that_makes_no_sense_is_refused(file, key, value, found):
    described(file, lambda content: content.update({key: value}))
    with pytest.raises(OctkitError, match=found):
        open_model(file)


def test_one_file_of_weights_is_not_read_again_for_each_of_a_thousand_folds(file):
    def many_folds(content):
        [member] = content["members"]
        member["weights"] = {str(fold): member["weights"]["0"] for fold in range(1000)}

    described(file, many_folds)
    rewritten(file, lambda parts: {name: data for name, data in parts.items() if "fold_1" not in name})
    with pytest.raises(OctkitError, match=r"model.zip: names 1000 sets of weights for 1 files"):
        open_model(file)


def test_weights_that_share_their_numbers_are_refused(tmp_path):
    """A file of 1 MB could ask for a network of 200."""
    model = tiny_model("2d", folds=("0",))
    numbers = torch.zeros(max(tensor.numel() for tensor in model.members[0].weights["0"].values()))
    state = {name: numbers[:tensor.numel()].view(tensor.shape)
             for name, tensor in model.members[0].weights["0"].items()}
    run_folder(tmp_path, replace(model, members=(replace(model.members[0], weights={"0": state}),)))
    with pytest.raises(OctkitError, match="2d fold 0: found weights that share their numbers"):
        open_model(tmp_path)


def test_weights_that_are_none_are_refused(file):
    data = b"no tensors here"
    rewritten(file, lambda parts: parts | {"weights/2d/fold_0.safetensors": data})
    described(file, lambda content: content["members"][0]["weights"]["0"].update(
        sha256=hashlib.sha256(data).hexdigest()))
    with pytest.raises(OctkitError, match="cannot be read as weights"):
        open_model(file)


def test_nothing_is_written_where_the_model_contradicts_itself(tmp_path):
    with pytest.raises(OctkitError, match="found the labels"):
        save_model(replace(tiny_model("2d"), labels=("x",)), tmp_path / "m.zip", CARD)
    assert not list(tmp_path.iterdir())


def network_of(model, **changes):
    plan = replace(model.plan, classes=changes.pop("classes", model.plan.classes))
    plan = replace(plan, configurations={"2d": replace(plan.configurations["2d"], **changes)})
    return models.build_network(plan, "2d", False).state_dict()


def test_training_starts_with_the_weights_of_its_own_fold_or_else_of_the_first(file):
    model = open_model(file)
    for fold, expected in ((1, "1"), (4, "0"), ("all", "0")):
        start = starting_weights(str(file), "2d", fold, network_of(model))
        assert all(torch.equal(start[name], tensor) for name, tensor in model.members[0].weights[expected].items())


def test_layers_of_logits_for_other_classes_start_anew_and_all_else_is_taken(file):
    model = open_model(file)
    network = network_of(model, classes=("rnfl",))
    start = starting_weights(str(file), "2d", 0, network)
    for name, tensor in network.items():
        assert torch.equal(start[name], tensor if name.startswith("scores.") else model.members[0].weights["0"][name])


@pytest.mark.parametrize(("change", "said"), [
    ({"features": (6, 8)}, r"encoder.0.layers.0.weight is \(4, 1, 3, 3\), expected \(6, 1, 3, 3\)"),
    ({"features": (4, 8, 8), "strides": ((1, 1), (2, 2), (2, 2)), "kernels": ((3, 3),) * 3}, "is missing, expected")])
def test_training_does_not_start_from_another_network(file, change, said):
    with pytest.raises(OctkitError, match=f"train.start_from=.*model.zip: its network is another: .*{said}"):
        starting_weights(str(file), "2d", 0, network_of(open_model(file), **change))
    with pytest.raises(OctkitError, match="train.start_from=.*no configuration '3d_fullres', found 2d"):
        starting_weights(str(file), "3d_fullres", 0, {})


def test_parts_of_a_run_lead_predict_to_the_run(tmp_path, octkit):
    run = tmp_path / "run"
    run_folder(run, tiny_model("2d"))
    (run / "submission").mkdir()
    parts = ("models", "models/2d", "models/2d/fold_0", "models/2d/fold_0/checkpoint.pt", "submission")
    for part in parts:
        code, _, error = octkit("predict", run / part, tmp_path, "-o", tmp_path / "masks")
        assert code == 2 and "is a part of a run" in error, part
        assert error.split("give the run's folder: ")[1].strip() == str(run.resolve())
        open_model(error.split("give the run's folder: ")[1].strip())
    alone = shutil.copy(run / parts[3], tmp_path / "checkpoint.pt")
    assert "checkpoint.pt: is a checkpoint" in octkit("predict", alone, tmp_path, "-o", tmp_path / "masks")[2]
    (tmp_path / "images").mkdir()
    assert "is no model" in octkit("predict", tmp_path / "images", tmp_path, "-o", tmp_path / "masks")[2]
