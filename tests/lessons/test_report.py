"""The report of a small run folder made by hand: its numbers, its gaps, its safety."""

import base64
import hashlib
import io
import json
import os
import re
import shutil
from html.parser import HTMLParser
from string import Formatter
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from octkit.common.errors import OctkitError
from octkit.common.files import write_json
from octkit.common.language import LANGUAGES, VARIABLE
from octkit.common.settings import from_profile, with_overrides
from octkit.data.image_files import read_mask, write_mask
from octkit.data.labels import BOUNDARIES, GOALS_GREYS, LAYERS
from octkit.data.layouts.detect import open_dataset
from octkit.data.measured import Calibration
from octkit.evaluation.diagnosis import diagnosis_scores
from octkit.evaluation.evaluate import grouped, score_folder
from octkit.evaluation.submission import write_submission
from octkit.figures import picture as picture_
from octkit.figures.charts import read_log
from octkit.layers.thickness import thickness_table, write_csv
from octkit.lessons import experiments, ledger, report, report_sections, report_texts
from octkit.lessons.layout import ORIGINALS
from octkit.phantoms.data_sets import make_data_set
from octkit.planning.run import Run

NASTY = "<script>alert(1)</script>"


def answers():
    """What `measure.answer` leaves: two answers in cross-validation, of which the simpler is chosen."""
    score = diagnosis_scores([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9], [0, 0, 0, 1], list("abcd")) | {"brier_raw": 0.3125}
    behind = {"mean": 0.0, "low": 0.0, "high": 0.0, "n": 4, "p": 1.0}
    return {"chosen": "thickness", "why": "the simplest of all", "lacking": None, "specificity": 0.95,
            "learned_from": {"scans": 4, "people": 3, "of": 11}, "behind": {"thickness": behind, "resnet50": behind},
            "scores": {"cross-validation": {"thickness": score, "resnet50": score}}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run folder as the notebooks leave it, in small: two folds of three epochs, three validation scans."""
    data = tmp_path_factory.mktemp("data") / "phantom"
    make_data_set(data, (4, 3, 0), (64, 80), seed=1)
    folder = tmp_path_factory.mktemp("runs") / "first"
    folder.mkdir()
    with_overrides(from_profile("smoke"), [f"data.dir={data}", "seed=4711"]).save(folder / "settings.json")
    write_json(folder / "fingerprint.json", {
        "spacings": [[1.0, 1.0]] * 4, "shapes": [[64, 80]] * 3 + [[60, 80]], "channels": ["OCT"],
        "classes": list(LAYERS), "units": "px",
        "intensity": [{"mean": 101.25, "median": 99.0, "min": 1.0, "max": 255.0, "std": 33.5,
                       "percentile_00_5": 12.0, "percentile_99_5": 240.0}]})
    write_json(folder / "plan.json", {
        "loss": {"value": "Dice + cross-entropy", "kind": "blueprint", "reason": "the same for all data"},
        "configurations": {"2d": {"patch_size": {"value": [64, 80], "kind": "inferred", "reason": "median size"}}}})
    log = "epoch,learning_rate,train_loss,validation_loss,dice_rnfl,dice_gcipl,dice_choroid,seconds\n"
    for fold in (0, 1):
        place = folder / f"models/2d/fold_{fold}"
        place.mkdir(parents=True)
        (place / "log.csv").write_text(log + "".join(
            f"{n},{0.01 / (n + 1)},{-0.1 * n},{-0.09 * n},0.{n + 5}1,0.{n + 4}1,0.{n + 5}3,60\n" for n in range(3)))
    write_json(folder / "selection.json", {
        "configuration": "2d", "why": "the only configuration of 2-D data", "folds": [0, 1], "cases": 4,
        "configurations": ["2d"], "circle": True, "surfaces": True,
        "candidates": [{"name": "2d", "configurations": ["2d"],
                        "dice": {"rnfl": 0.8123, "gcipl": 0.7, "choroid": 0.9}, "mean_dice": 0.8,
                        "over_cases": {"mean": 0.8, "sd": 0.05, "n": 4},
                        "behind_best": {"mean": 0.0, "sd": 0.0, "n": 4}}],
        "postprocessing": [{"step": "keep only the largest component of all foreground together", "labels": [1, 2, 3],
                            "kept": True, "why": "mean Dice rises by 1.23e-02, no layer falls",
                            "dice_before": {"rnfl": 0.8123, "gcipl": 0.7, "choroid": 0.9},
                            "dice_after": {"rnfl": 0.8456, "gcipl": 0.7, "choroid": 0.9},
                            "gain": {"mean": 0.0111, "sd": 0.002, "n": 4}}],
        "steps": [[1, 2, 3]]})
    truth = data / "Truth" / "Layer_Masks"
    dataset = open_dataset(data)
    for shift, case in enumerate(dataset.validation):
        mask = np.roll(read_mask(truth / f"{case.name}.png", GOALS_GREYS), shift, axis=0)
        write_mask(folder / f"predictions/validation/{case.name}.png", mask, GOALS_GREYS)
    people = {case.name: case.person for case in dataset.validation}
    write_json(folder / "scores.json", grouped(score_folder(folder / "predictions/validation", truth), people))
    write_csv(folder / "thickness.csv", thickness_table(folder / "predictions/validation"))
    write_json(folder / "mirroring.json", {
        "plain": {"seconds": 0.25, "dice": 0.9, "dice_by_scan": {"0001": 0.88, "0002": 0.92}},
        "mirrored": {"seconds": 1.0, "dice": 0.91, "dice_by_scan": {"0001": 0.9, "0002": 0.92}}})
    gains = {"mirror": {layer: {"mean": 0.01, "sd": 0.002, "n": 3} for layer in (*LAYERS, "broken")}}
    write_json(folder / "ablation.json", {"rows": [{"scan": "eye"}], "over_scans": gains, "gains": gains})
    probabilities = {case.image.name: 0.5 for case in dataset.validation}
    write_json(folder / "classifier/answers.json", answers())
    write_json(folder / "classifier/fold_0/weights_origin.json", {"origin": "random initialisation",
                                                                  "reason": "no file"})
    write_submission(folder / "predictions/validation", probabilities, data / "Validation/Image",
                     folder / "submission.zip")
    line = {"step": "01_data", "status": "done", "started": "2024-01-01T00:00:00+00:00", "seconds": 12.5,
            "peak_memory_mb": 321, "inputs": "x", "error": None, "exit": 0}
    (folder / "ledger.jsonl").write_text("".join(json.dumps(line | change) + "\n" for change in (
        {}, {"step": "02_fingerprint", "status": "skipped", "seconds": 0.0, "peak_memory_mb": 987})))
    return folder


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "first")


@pytest.fixture
def bare(finished, tmp_path):
    """The same without the files that the report draws figures from, which takes most of its time."""
    skipped = shutil.ignore_patterns("predictions", "models", "scores.json", "answers.json")
    return shutil.copytree(finished, tmp_path / "first", ignore=skipped)


class Page(HTMLParser):
    """What a reader sees: text by section, and every attribute that could fetch something."""

    def __init__(self, path):
        super().__init__()
        self.text, self.fetched, self.images, self.tags, self.section, self.tag = {}, [], [], [], "", ""
        self.said = {}  # tag -> its texts
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        if attrs.get("class") != "term":  # a link within a sentence
            self.tag = "row" if attrs.get("scope") == "row" else tag
        self.section = attrs["id"] if tag == "section" else self.section
        self.fetched += [attrs[name] for name in ("src", "href", "srcset", "data", "action") if name in attrs]
        if tag == "img":
            self.images.append((self.section, attrs))

    def handle_data(self, data):
        self.text[self.section] = self.text.get(self.section, "") + " " + " ".join(data.split())
        self.said.setdefault(self.tag, []).append(data)


def test_a_whole_run_shows_its_numbers_and_no_gap_in_them(run):
    page = Page(report.write_report(Run(run)))
    scores = json.loads((run / "scores.json").read_text())
    for layer in LAYERS:
        assert f"{scores['summary'][layer]['med_upper']['mean']:.4f}" in page.text["scores"]
        mean, low, high = (scores["by_group"][layer]["dice"][end] for end in ("mean", "low", "high"))
        assert f"{mean:.3f} [{low:.3f}, {high:.3f}]" in page.text["summary"]
        assert f"[{low:.4f}, {high:.4f}]" in page.text["scores"]
    assert "0.750 [" in page.text["summary"]  # AUC of 0.1 0.6 against 0.4 0.9: three of four pairs in order
    assert "the simplest of all" in page.text["glaucoma"] and "4 of 11 training scans" in page.text["glaucoma"]
    assert "thickness (chosen) 0.750 [" in " ".join(page.text["glaucoma"].split()) and "0.312" in page.text["glaucoma"]
    assert "largest component of all foreground together" in page.text["summary"]
    assert "64 × 80 px (3 scans)" in page.text["fingerprint"] and "101.2" in page.text["fingerprint"]
    assert "[64, 80]" in page.text["plan"] and "median size" in page.text["plan"]
    assert "inferred" in page.text["plan"]
    assert "0.8456" in page.text["scores"] and "mean Dice rises by 1.23e-02" in page.text["scores"]
    assert "+0.01110 ± 0.00200 (n = 4)" in page.text["scores"]
    # 0.88 -> 0.90 and 0.92 -> 0.92: changes of 0.02 and 0
    assert "mirrored 1.000 0.9100 ± 0.0141 (n = 2) +0.0100 ± 0.0141 (n = 2)" in " ".join(page.text["inference"].split())
    fold = "3 -0.200 -0.180 0.710 0.610 0.730 3.0"  # epochs, losses, pseudo-Dice, minutes
    assert f"minutes in all 0 {fold} 1 {fold}" in " ".join(page.text["training"].split())
    assert "+0.010 ± 0.002 (n = 3)" in page.text["patient"]
    assert "checked against the 3 validation images" in page.text["submission"]
    assert "seed 4711" in page.text["settings"] and "iterations_per_epoch" in page.text["settings"]
    assert "python" in page.text["environment"] and np.__version__ in page.text["environment"]
    assert "01_data" in page.text["ledger"] and "321" in page.text["ledger"]
    assert "987" not in page.text["ledger"]  # skipped steps are no cost
    assert not [text for text in page.text.values() if "cannot be shown" in text]
    assert {section for section, _ in page.images} == {"training"}


def test_a_classifier_of_other_data_is_not_shown_where_its_lesson_was_left_out(bare):
    lacking = "Train/Image: found 6 training scans (0 with glaucoma, 6 without)"
    write_json(bare / "classifier/answers.json", answers())
    assert "AUC 0.750" in " ".join(report.key_numbers(Run(bare)))
    with open(bare / "ledger.jsonl", "a") as ledger:
        for step in ("11_classify", "12_submission"):
            ledger.write(json.dumps({"step": step, "status": "left out", "error": lacking}) + "\n")
    page = Page(report.write_report(Run(bare)))
    for section in ("summary", "glaucoma", "submission"):
        assert f"left out: {lacking}" in page.text[section], section
        assert not any(old in page.text[section] for old in ("0.750", "RANDOM", "is valid")), section
    assert report.key_numbers(Run(bare)) == []


def test_what_needs_held_out_scans_is_no_gap_where_fold_all_holds_none_out(bare):
    (bare / "mirroring.json").unlink()
    assert "not run: mirroring.json" in Page(report.write_report(Run(bare))).text["inference"]
    with_overrides(Run(bare).settings, ['train.folds=["all"]']).save(bare / "settings.json")
    text = Page(report.write_report(Run(bare))).text["inference"]
    assert "not run: mirroring.json" not in text and "fold all holds no scan out" in text


def test_what_doubt_is_worth_is_said_and_that_nobody_has_measured_it(bare):
    assert "doubt of boundaries is uncalibrated" in Page(report.write_report(Run(bare))).text["scores"]
    known = Calibration(scans=4, origin="scans", knots={name: ((0.5, 1.0, 2.0),) for name in BOUNDARIES},
                        means={layer: {} for layer in LAYERS})
    write_json(bare / "calibration.json", known.model_dump(mode="json"))
    assert "takes two folds" in Page(report.write_report(Run(bare))).text["scores"]
    shares = {"raw": {"ILM": (0.41, 0.77)}, "calibrated": {"ILM": (0.69, 0.94)}, "means": {"rnfl global": (0.7, 0.96)}}
    write_json(bare / "calibration.json", known.model_copy(update={"coverage": shares}).model_dump(mode="json"))
    text = " ".join(Page(report.write_report(Run(bare))).text["scores"].split())
    assert "ILM 41 / 77 69 / 94" in text and "rnfl global 70 / 96" in text


def test_random_weights_are_said_out_loud_and_imagenet_ones_are_not_called_random(bare):
    text = report.write_report(Run(bare)).read_text()
    assert re.search(r'class="loud">[^<]*RANDOM INITIALISATION, not from ImageNet', text)
    write_json(bare / "classifier/fold_0/weights_origin.json", {"origin": "imagenet file",
                                                                "reason": "classify.weights"})
    text = report.write_report(Run(bare)).read_text()
    assert "RANDOM" not in text and "started from ImageNet weights" in text


def test_the_page_is_alone_in_the_world(run):
    path = report.write_report(Run(run))
    page, text = Page(path), path.read_text()
    inside = {link for link in page.fetched if link.startswith("#")}
    assert {link[1:] for link in inside} <= set(re.findall(r'id="([^"]+)"', text))
    files = [link for link in page.fetched if not link.startswith(("#", "data:image/webp;base64,"))]
    assert "thickness.csv" in files and all((run / unquote(link)).exists() for link in files)
    assert not {"link", "iframe", "object", "form"} & set(page.tags)
    assert not re.search(r"url\(|@import|https?://", text)
    assert all(image["alt"] for _, image in page.images)
    [script] = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)  # the browser runs no other, and fetches nothing
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'" in text


def test_an_empty_folder_names_every_missing_part_and_invents_no_number(tmp_path):
    page = Page(report.write_report(Run(tmp_path)))
    for section, file in (("summary", "settings.json"), ("summary", "selection.json"), ("data", "settings.json"),
                          ("summary", "classifier/answers.json"), ("fingerprint", "fingerprint.json"),
                          ("plan", "plan.json"), ("training", "log.csv"), ("inference", "mirroring.json"),
                          ("scores", "scores.json"), ("thickness", "thickness.csv"), ("submission", "submission.zip"),
                          ("glaucoma", "classifier/answers.json"), ("ledger", "ledger.jsonl"),
                          ("preparation", "figures/05_*.png"), ("data", "figures/01_*.png"),
                          ("examples", "settings.json")):
        assert re.search(rf"not run: \S*{re.escape(file)}", page.text[section]), section
    assert page.images == []
    assert "cannot be shown" not in " ".join(page.text.values())
    assert not re.search(r"\d\.\d{3}\b(?!\.)", page.text["summary"] + page.text["scores"])


def test_without_truth_cross_validation_stands_in_and_says_so(run):
    (run / "scores.json").unlink()
    page = Page(report.write_report(Run(run)))
    shown = [image["alt"] for section, image in page.images if section == "examples"]
    assert [re.search(r"scan (\S+),", alt)[1] for alt in shown] == [case.name for case in Run(run).dataset.validation]
    assert "0.812" in page.text["summary"] and "cross-validation" in page.text["summary"]
    assert "not run: scores.json" in page.text["scores"]


def test_names_from_outside_are_escaped(bare):
    odd = bare.with_name(NASTY.replace("/", "_"))
    bare.rename(odd)
    plan = json.loads((odd / "plan.json").read_text())
    plan[NASTY] = {"value": NASTY, "kind": f'"><img src=x>{NASTY}', "reason": NASTY}
    write_json(odd / "plan.json", plan)
    write_json(odd / "classifier/fold_0/weights_origin.json", {"origin": NASTY, "reason": NASTY})
    with open(odd / "ledger.jsonl", "a") as file:
        file.write(json.dumps({"step": NASTY, "status": "killed", "seconds": 1.0, "peak_memory_mb": 1,
                               "error": NASTY}) + "\n")
    data = odd.with_name(NASTY.replace("/", "_") + " $x_{$")  # what TeX would trip on, too
    make_data_set(data, (2, 1, 0), (64, 80), seed=1)
    for folder in ("Validation/Image", "Truth/Layer_Masks"):
        (data / folder / "0003.png").rename(data / folder / f"{data.name}.png")
    with_overrides(from_profile("smoke"), [f"data.dir={data}"]).save(odd / "settings.json")
    shutil.copytree(data / "Truth/Layer_Masks", odd / "predictions/validation", dirs_exist_ok=True)
    picture, ((ax,),) = picture_.new_picture("title")
    ax.plot([0, 1])
    picture_.save(Run(odd), picture.with_alt(f'"><script>{NASTY}'), "02_odd")
    page = Page(report.write_report(Run(odd)))
    assert page.tags.count("script") == 1
    assert NASTY in page.text["plan"] and NASTY in page.text["summary"] and NASTY in page.text["ledger"]
    assert data.name in page.text["data"] and "cannot be shown" not in page.text["examples"]
    assert any(data.name in image["alt"] for section, image in page.images if section == "examples")
    assert not [image for _, image in page.images if image["src"] == "x"]


def test_figures_of_the_notebooks_are_used_as_they_are(bare):
    picture, ((ax,),) = picture_.new_picture("Sizes")
    ax.plot([0, 1])
    picture_.save(Run(bare), picture.with_alt("All scans have one size."), "02_sizes")
    page = Page(report.write_report(Run(bare)))
    (image,) = [image for section, image in page.images if section == "fingerprint"]
    with Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))) as shown, \
            Image.open(bare / "figures/02_sizes.png") as kept:
        assert np.array_equal(shown.convert("RGB"), kept.convert("RGB"))
    assert image["alt"] == "All scans have one size."
    assert report_texts.how_to_read("02_sizes") in " ".join(page.said["figcaption"])
    found = json.loads((bare / "fingerprint.json").read_text())
    write_json(bare / "fingerprint.json", found | {"shapes": [[64, 80]] * 4})
    page = Page(report.write_report(Run(bare)))  # of one size, the text says all
    assert "64 × 80 px (4 scans)" in page.text["fingerprint"] and not page.images


@pytest.mark.parametrize("content", ["{}", "[1", '{"summary": 3, "postprocessing": [{}], "intensity": []}'])
def test_a_damaged_file_costs_its_own_section_only(run, content):
    for name in ("selection.json", "fingerprint.json", "scores.json", "classifier/answers.json", "mirroring.json"):
        (run / name).write_text(content)
    page = Page(report.write_report(Run(run)))
    for section in ("summary", "scores", "fingerprint", "glaucoma"):
        assert "cannot be shown" in page.text[section]
    assert "[64, 80]" in page.text["plan"] and "0.710" in page.text["training"]


def test_a_failed_step_and_an_invalid_submission_are_shouted(bare):
    with open(bare / "ledger.jsonl", "a") as file:
        file.write(json.dumps({"step": "08_infer", "status": "failed", "started": "", "seconds": 1.0, "exit": 1,
                               "peak_memory_mb": 1, "inputs": "", "error": "out of paper"}) + "\n")
    (bare / "submission.zip").write_bytes(b"no zip")
    text = report.write_report(Run(bare)).read_text()
    assert re.search(r'class="loud">Step 08_infer failed: out of paper', text)
    assert re.search(r'class="loud">submission.zip is NOT valid', text)


@pytest.mark.parametrize("lesson_started, shouted", [("2026-11-28T12", 1), ("2026-11-28T14", 0)])
def test_a_failed_training_is_shouted_until_its_lesson_is_executed(tmp_path, lesson_started, shouted):
    from_profile("volumes").save(tmp_path / "settings.json")
    for step, status, started in (("14_volumes", "done", lesson_started),
                                  ("14_volumes_2d_fold_0", "failed", "2026-11-28T13")):
        ledger.append(Run(tmp_path), ledger.Line(step=step, status=status, started=started, error="out of paper"))
    loud = [str(block) for block in report_sections.warnings(Run(tmp_path)) if block.kind == "loud"]
    assert len(loud) == shouted and all("14_volumes_2d_fold_0 failed" in text for text in loud)


@pytest.mark.parametrize("kind", ["link inside", "huge", "no PNG", "60 million pixels", "torn"])
def test_only_real_pictures_of_the_run_are_shown(bare, kind):
    path = bare / "figures" / "01_scans.png"
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    real = path.with_name("99_real.png") if kind == "link inside" else path
    size = (10_000, 6000) if kind == "60 million pixels" else (4, 4)
    Image.new("1", size).save(real, format="GIF" if kind == "no PNG" else "PNG")
    if kind == "torn":
        path.write_bytes(path.read_bytes()[:45])
    elif kind == "huge":
        os.truncate(path, 21_000_000)
    elif kind == "link inside":
        path.symlink_to("99_real.png")
    page = report.write_report(Run(bare)).read_text()
    assert f"cannot be shown: {path}" in page
    path.unlink()
    os.mkfifo(path)  # to open it would wait for ever
    with pytest.raises(OctkitError, match=re.escape(str(path))):
        report.write_report(Run(bare))
    path.unlink()


def test_a_figure_too_many_is_a_link_to_its_file(bare, monkeypatch):
    picture, ((ax,),) = picture_.new_picture("Sizes")
    ax.plot([0, 1])
    picture_.save(Run(bare), picture, "02_sizes")
    monkeypatch.setattr(report, "ROOM", 1000)
    page = Page(report.write_report(Run(bare)))
    assert not page.images and "figures/02_sizes.png" in page.text["fingerprint"]


def test_each_scan_has_a_row_with_its_scores_its_flag_and_a_picture(run):
    names = [case.name for case in Run(run).dataset.validation]
    (run / "predictions/validation/quality.csv").write_text(
        f"scan,trusted,reasons\n{names[0]},yes,\n{names[1]},NO,<b>too dark\n")
    path = report.write_report(Run(run))
    page, scores = Page(path), json.loads((run / "scores.json").read_text())["cases"]
    rows = re.findall(r"<tr>\s*(<th scope=\"row\".*?)</tr>", path.read_text().partition('id="scans"')[2].partition(
        "</table>")[0], re.DOTALL)
    values = [re.findall(r'data-value="(.*?)"', row) for row in rows]
    assert [row[0] for row in values] == names
    for name, row in zip(names, values, strict=True):
        dice = [scores[name][layer]["dice"] for layer in LAYERS]
        assert row[2:6] == [f"{value:.3f}" for value in (np.mean(dice), *dice)]
        link = f"predictions/validation/{name}.overlay.png"
        with Image.open(run / link) as picture:
            assert link in page.fetched and picture.width > 500
    assert [row[-2:] for row in values] == [["none", ""], ["look first", "&lt;b&gt;too dark"], ["none", ""]]
    assert "1 of 2 predicted scans are flagged" in page.text["summary"]


def test_a_damaged_prediction_costs_its_picture_only(run):
    (run / "predictions/validation/0005.png").write_bytes(b"no PNG")
    page = Page(report.write_report(Run(run)))
    links = [link for link in page.fetched if link.endswith("overlay.png")]
    assert "0005" in page.text["scans"] and len(links) == 2 and "cannot be shown" not in page.text["scans"]


def test_what_cross_validation_has_decided_stands_in_the_plan(bare):
    plan = json.loads((bare / "plan.json").read_text())
    undecided = {"value": None, "kind": "empirical", "reason": "see selection.json"}
    write_json(bare / "plan.json", plan | {"empirical": dict.fromkeys(("configuration", "postprocessing"), undecided)})
    text = " ".join(Page(report.write_report(Run(bare))).text["plan"].split())
    assert "None" not in text and "configuration 2d empirical the only configuration of 2-D data" in text
    (bare / "selection.json").unlink()
    text = " ".join(Page(report.write_report(Run(bare))).text["plan"].split())
    assert "configuration not decided yet" in text


def test_another_run_is_compared_scan_by_scan(run, tmp_path, monkeypatch):
    # Which logs are drawn is the plan's to say, and this run has only a small part of one.
    monkeypatch.setattr(experiments, "_logs", lambda run: {
        "fold 0": read_log(run.folder / "models/2d/fold_0/log.csv")})
    other = shutil.copytree(run, tmp_path / "other")
    with_overrides(Run(other).settings, ["seed=8"]).save(other / "settings.json")
    scores = json.loads((other / "scores.json").read_text())
    for case in scores["cases"].values():
        case["rnfl"]["dice"] -= 0.25
    write_json(other / "scores.json", scores)
    page = Page(report.write_report(Run(run), Run(other)))
    text = " ".join(page.text["compared"].split())
    assert "seed 8 4711" in text and "first minus other" in text and "+0.2500 [+0.2500, +0.2500]" in text
    assert "compared" not in Page(report.write_report(Run(run))).text
    shutil.rmtree(other)
    with pytest.raises(OctkitError, match="other"):
        report.write_report(Run(run), Run(other))


def test_both_languages_have_the_same_texts_and_every_marked_word_is_a_term(monkeypatch):
    texts = report_texts.texts()
    keys = {key.rpartition(".")[0] for key in texts}
    assert {f"{key}.{language}" for key in keys for language in LANGUAGES} == set(texts)
    for key in keys:
        english, chinese = ({name for _, name, _, _ in Formatter().parse(texts[f"{key}.{language}"]) if name}
                            for language in LANGUAGES)
        assert english == chinese, key
    for language in LANGUAGES:
        monkeypatch.setenv(VARIABLE, language)
        known = report_texts.Glossary().known
        unknown = {mark[1] for key, text in texts.items() if key.endswith(language)
                   for mark in report_texts.MARK.finditer(text)} - known.keys()
        assert not unknown


def test_each_figure_of_the_lessons_says_how_to_read_it():
    saved = {name for path in ORIGINALS.glob("*.ipynb") for name in
             re.findall(r'save\(run, .*?f?\\"(\d\d_\w+)', path.read_text(encoding="utf-8"))}
    assert len(saved) > 30
    others = {"03_plan", "03_patches", "07_fold_"}  # these are not in the report
    assert {name for name in saved - others if not report_texts.how_to_read(name.rstrip("_"))} == set()


def test_a_chinese_report_has_no_english_sentence_of_its_own(run, monkeypatch):
    monkeypatch.setenv(VARIABLE, "zh")
    path = report.write_report(Run(run))
    page = Page(path)
    assert '<html lang="zh-CN">' in path.read_text() and "摘要" in page.said["h2"]
    for tag in ("h1", "h2", "figcaption", "caption", "th", "summary", "dt", "dd", "button"):
        for said in page.said.get(tag, ()):
            assert not re.search(r"[A-Za-z]{2,}(,? [a-z]{2,}){2,}", said), (tag, said)
    assert "验证图像 3 张" in page.text["summary"] and "置信区间" in page.text["terms"]


def test_a_word_links_to_its_meaning_and_what_a_file_says_stays_text():
    glossary = report_texts.Glossary()
    assert re.fullmatch(r'<a class="term" href="#(term-\d+)" title="2 × common .*">Dice</a> &lt;b&gt; \[\[x\]\]',
                        glossary.linked("[[Dice]] <b> [[x]]"))
    assert [term.name for term in glossary.used.values()] == ["Dice"]
