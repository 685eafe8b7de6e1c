from dataclasses import replace
from functools import reduce
from operator import getitem
from pathlib import Path

import pytest
from helpers import tiny_model

from octkit.common.errors import OctkitError
from octkit.data.labels import LAYERS
from octkit.exchange.nnunet_plans import dataset_to, plan_from, plans_to

HERE = Path("here")


def folder_of(*configs, **values):
    """The contents of plans.json and dataset.json for a tiny plan."""
    plan = replace(tiny_model(*configs).plan, **values)
    return plan, plans_to(plan, "Dataset001_Tiny"), dataset_to(plan.channels, plan.classes, ".png")


def without_others(plan, config):
    previous = plan.configurations[config].previous_stage
    return replace(plan, configurations={name: entry for name, entry in plan.configurations.items()
                                         if name in (config, previous)})


def bare(plan):
    return replace(plan, reasons={}, normalisation=plan.normalisation or ("ct",) * len(plan.channels))


def test_a_plan_of_2_d_scans_goes_round():
    plan, plans, dataset = folder_of("2d")
    assert plans["image_reader_writer"] == "NaturalImage2DIO"
    assert plans["original_median_shape_after_transp"] == [1, 40, 48]
    assert bare(plan_from(plans, dataset, "2d", HERE)) == plan


@pytest.mark.parametrize("config", ["2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres"])
def test_plans_of_volumes_go_round(config):
    plan, plans, dataset = folder_of("3d_fullres")
    assert (plans["transpose_forward"], plans["transpose_backward"]) == ([2, 0, 1], [1, 2, 0])
    again = bare(plan_from(plans, dataset, config, HERE))
    assert again == without_others(plan, config)  # a cascade with its first step before it
    assert list(again.configurations)[-1] == config


def test_volumes_planned_in_2_d_alone_stay_volumes():
    plan = without_others(tiny_model("3d_fullres").plan, "2d")
    plans = plans_to(plan, "Dataset001_Tiny")
    assert plans["original_median_shape_after_transp"] == [None, 40, 48]
    assert bare(plan_from(plans, dataset_to(plan.channels, plan.classes, ".nii.gz"), "2d", HERE)) == plan


def test_scans_in_mm_become_nifti_files():
    plan, plans, dataset = folder_of("2d", units="mm")
    assert plans["image_reader_writer"] == "SimpleITKIO"
    assert bare(plan_from(plans, dataset, "2d", HERE)) == plan  # still of 2-D scans


def test_what_a_configuration_inherits_counts():
    _, plans, dataset = folder_of("3d_fullres")
    entry = plans["configurations"]["3d_cascade_fullres"]
    expected = plan_from(plans, dataset, "3d_cascade_fullres", HERE)
    plans["configurations"]["base"] = {**entry, "batch_dice": False, "previous_stage": None}
    plans["configurations"]["3d_cascade_fullres"] = {"inherits_from": "base", "previous_stage": "3d_lowres",
                                                     "batch_dice": True}
    assert plan_from(plans, dataset, "3d_cascade_fullres", HERE) == expected


@pytest.mark.parametrize(("scheme", "in_mask", "ours"), [
    ("CTNormalization", False, "ct"), ("CTNormalization", True, "ct"), ("ZScoreNormalization", False, "zscore"),
    ("ZScoreNormalization", True, "zscore_in_mask"), ("NoNormalization", False, "none"),
    ("RescaleTo01Normalization", False, "rescale_0_1"), ("RGBTo01Normalization", False, "rgb_0_1")])
def test_normalisations(scheme, in_mask, ours):
    _, plans, dataset = folder_of("2d")
    plans["configurations"]["2d"] |= {"normalization_schemes": [scheme], "use_mask_for_norm": [in_mask]}
    assert plan_from(plans, dataset, "2d", HERE).normalisation == (ours,)
    _, plans, _ = folder_of("2d", normalisation=(ours,))
    back = plans["configurations"]["2d"]
    assert back["normalization_schemes"] == [scheme]
    assert back["use_mask_for_norm"] == [in_mask and scheme == "ZScoreNormalization"]


def test_labels():
    plan, plans, dataset = folder_of("2d")
    assert plan_from(plans, dataset | {"labels": {"RNFL": 1, "GCIPL": 2, "Choroid": 3, "background": 0}}, "2d",
                     HERE).classes == LAYERS
    # A label to ignore is for training alone.
    labels = {"background": 0, "disc": 1, "ignore": 2}
    assert plan_from(plans, dataset | {"labels": labels}, "2d", HERE).classes == ("disc",)
    with pytest.raises(OctkitError, match="here/dataset.json.*'whole' is a region"):
        plan_from(plans, dataset | {"labels": {"background": 0, "whole": [1, 2], "core": 2}}, "2d", HERE)


CONFIG, SIZES = "configurations/2d", "configurations/2d/architecture/arch_kwargs"


@pytest.mark.parametrize(("path", "value", "found"), [
    (f"{CONFIG}/architecture/network_class_name", "unet.ResidualEncoderUNet", "class_name is .*ResidualEncoder"),
    (f"{SIZES}/nonlin_first", True, "nonlin_first is True"),
    (f"{SIZES}/n_blocks_per_stage", [1, 1], "n_conv_per_stage_decoder is"),
    (f"{CONFIG}/preprocessor_name", "Mine", "preprocessor_name is Mine"),
    (f"{CONFIG}/resampling_fn_data_kwargs", {"order": 1}, "resampling_fn_data_kwargs is"),
    (f"{SIZES}/n_conv_per_stage", [2, 3], "n_conv_per_stage is .*2, 3"), (f"{SIZES}/conv_bias", False, "conv_bias is"),
    (f"{SIZES}/norm_op", "torch.nn.modules.batchnorm.BatchNorm2d", "norm_op is"),
    (f"{SIZES}/norm_op_kwargs", {"eps": 1e-3, "affine": True}, "norm_op_kwargs is"),
    (f"{SIZES}/dropout_op", "torch.nn.Dropout2d", "dropout_op is"), (f"{SIZES}/nonlin", "torch.nn.GELU", "nonlin is"),
    (f"{SIZES}/nonlin_kwargs", {"negative_slope": 0.2}, "negative_slope is 0.2"),
    (f"{SIZES}/kernel_sizes", [[3, 3], [4, 4]], "describes no network"), (f"{SIZES}/n_stages", True, "n_stages"),
    (f"{SIZES}/n_stages", 10**12, "n_stages"), (f"{SIZES}/n_stages", 10**400, "n_stages"),
    (f"{CONFIG}/resampling_fn_data", "resample_torch_fornnunet", "resampling_fn_data is resample_torch"),
    (f"{CONFIG}/normalization_schemes", ["MyNormalization"], "MyNormalization"),
    (f"{CONFIG}/use_mask_for_norm", [], "found 0 normalization_schemes"),
    (f"{CONFIG}/inherits_from", "2d", "inherits from itself"), (f"{CONFIG}/inherits_from", [], "inherits_from"),
    (f"{CONFIG}/previous_stage", "2d", "in a circle"), (f"{CONFIG}/previous_stage", "3d_lowres", "no configuration"),
    (f"{CONFIG}/batch_size", "many", "batch_size"), (f"{CONFIG}/spacing", [10**400, 1], "spacing"),
    ("image_reader_writer", "NibabelIOWithReorient", "image_reader_writer.*NibabelIOWithReorient"),
    ("transpose_forward", [1, 0, 2], "the axes of 2-D scans"), ("configurations", None, "is no plans.json"),
    ("foreground_intensity_properties_per_channel", {}, "found the channels"),
    ("original_median_shape_after_transp", [1], "original_median_shape"),
])
def test_what_has_no_counterpart_is_refused(path, value, found):
    _, plans, dataset = folder_of("2d")
    *parents, leaf = path.split("/")
    reduce(getitem, parents, plans)[leaf] = value
    with pytest.raises(OctkitError, match=f"^here.*{found}"):
        plan_from(plans, dataset, "2d", HERE)


def of_v2_0(plans, config="2d"):
    """The same plans as v2.0 to v2.3 wrote them: the network's sizes stand in the configuration."""
    entry = plans["configurations"][config]
    network = entry.pop("architecture")
    sizes, kind = network["arch_kwargs"], network["network_class_name"].rpartition(".")[2]
    entry |= {"UNet_class_name": kind, "UNet_base_num_features": sizes["features_per_stage"][0],
              "unet_max_num_features": 8, "num_pool_per_axis": [1, 1], "conv_kernel_sizes": sizes["kernel_sizes"],
              "pool_op_kernel_sizes": sizes["strides"], "n_conv_per_stage_decoder": sizes["n_conv_per_stage_decoder"],
              "n_conv_per_stage_encoder": sizes.get("n_blocks_per_stage", sizes.get("n_conv_per_stage"))}
    plans["foreground_intensity_properties_by_modality"] = plans.pop("foreground_intensity_properties_per_channel")


@pytest.mark.parametrize("blocks", [(), (1, 2)])
def test_plans_of_older_versions(blocks):
    plan = tiny_model("2d").plan
    plan = replace(plan, configurations={"2d": replace(plan.configurations["2d"], blocks=blocks)})
    plans, dataset = plans_to(plan, "Dataset001_Tiny"), dataset_to(plan.channels, plan.classes, ".png")
    assert bare(plan_from(plans, dataset, "2d", HERE)) == plan
    of_v2_0(plans)
    assert bare(plan_from(plans, dataset, "2d", HERE)) == plan
    entry = plans["configurations"]["2d"]
    for change, found in (({"UNet_class_name": "MyNet"}, "network_class_name is MyNet"), (
            {"n_conv_per_stage_decoder": [3]}, "n_conv_per_stage_decoder is .3"), (
            {"conv_kernel_sizes": []}, "conv_kernel_sizes"), ({"n_conv_per_stage_encoder": [2] * 99}, "at most 16")):
        plans["configurations"]["2d"] = entry | change
        with pytest.raises(OctkitError, match=f"^here.*{found}"):
            plan_from(plans, dataset, "2d", HERE)


def test_a_plan_without_a_network_is_none():
    _, plans, dataset = folder_of("2d")
    del plans["configurations"]["2d"]["architecture"]
    with pytest.raises(OctkitError, match=r"no plans\.json of nnU-Net v2 .*architecture"):
        plan_from(plans, dataset, "2d", HERE)


@pytest.mark.parametrize("name", ["../../elsewhere", "2d/x", ".."])
def test_a_configuration_whose_name_is_a_path_is_refused(name):
    _, plans, dataset = folder_of("2d")
    plans["configurations"][name] = plans["configurations"].pop("2d")
    with pytest.raises(OctkitError, match="^here: its plan is not valid"):
        plan_from(plans, dataset, name, HERE)
