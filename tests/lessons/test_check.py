import ast
import inspect
import math
import re
import subprocess
import sys

import nbformat
import numpy as np
import pandas as pd
import pytest
from helpers import make_run

from octkit.common.errors import OctkitError
from octkit.common.files import write_csv
from octkit.common.settings import PROJECT
from octkit.figures.chinese import translated
from octkit.layers import thickness
from octkit.lessons.check import TRIES, Exercises, Known, _relations, check, count_right, exercises, judged
from octkit.planning.run import Run

LESSONS = sorted(path for path in (PROJECT / "notebooks").glob("*.ipynb") if path.stem[:2] <= "16")
SOLUTIONS = PROJECT / "notebooks" / "solutions"
CALL = re.compile(r'check\("(.*?)", answer, run\);')


def cells_of(path):
    return nbformat.read(path, as_version=4).cells


def is_exercise(cell):
    return "exercise" in cell.metadata.get("tags", [])


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_asks_the_exercises_that_are_known_and_ends_with_them(lesson):
    cells = cells_of(lesson)
    starters = [cell.source.splitlines() for cell in cells if is_exercise(cell)]
    asked = [CALL.fullmatch(lines[-1])[1] for lines in starters]
    assert asked == [name for name in exercises() if name[:2] == lesson.stem[:2]] and 2 <= len(asked) <= 4
    assert {lines[-2] for lines in starters} == {"answer = None  # yours"}
    # They are left out of a step's hash: no other code may build on them.
    code = [is_exercise(cell) for cell in cells if cell.cell_type == "code"]
    assert code == sorted(code)
    for before, cell in zip(cells, cells[1:], strict=False):
        assert not is_exercise(cell) or "<details><summary>Hint</summary>" in before.source


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_has_a_worked_solution(lesson):
    nbformat.validate(nbformat.read(SOLUTIONS / lesson.name, as_version=4))
    code = [cell for cell in cells_of(SOLUTIONS / lesson.name) if cell.cell_type == "code"]
    assert all(cell.outputs == [] and len(cell.source.splitlines()) <= 15 for cell in code)
    assert [name for cell in code for name in CALL.findall(cell.source)] == [
        name for name in exercises() if name[:2] == lesson.stem[:2]]


def test_every_exercise_has_its_lesson():
    assert {name[:2] for name in exercises()} == {path.stem[:2] for path in LESSONS}


@pytest.mark.parametrize("right, answer, remark", [
    (5, 6, "off by one, too large"),
    (5, 4, "off by one, too small"),
    (5, 9, "too large"),
    (0.25, -0.25, "sign"),
    (0.25, 0.75, "1 minus"),
    (0.25, 4, "the other way round"),
    (0.25, 25, "in per cent"),
    (95.5, 0.0955, "1000 times too small"),
    (95.5, 95500.0, "1000 times too large"),
    (95.5, 80, "too small"),
    ((4, 7), (4, 8), "look at value 2 of the 2"),
    ((4, 7), (7, 4), "swapped"),
    ((0.73, 0.0), (0.1, 0.2), "value 1 and 2"),
    (4, 4.26, "whole number"),
    (0.0882, 0.09, "rounded too far"),
    ("gcipl", "choroid", "another one"),
    (5, "5", "expected a number, found '5' (str)"),
    (1, True, "expected a number"),
    (0.5, float("nan"), "expected a number"),
    ((4, 7), 4, "expected (a number, a number)"),
    ((4, 7), (4, 7, 1), "expected (a number, a number)"),
    ("0101", 101, "expected a text in quotes"),
])
def test_a_wrong_answer_is_told_what_is_off(right, answer, remark):
    found, words = judged(Known(right), answer)
    assert not found and remark in words


@pytest.mark.parametrize("right, answer", [(5, 5.0), (5, np.int64(5)), (0.0054, 0.00536), ((4, 7), [4, 7]),
                                           ((0.5, 0.0), np.array([0.5, 0])), ("+ looks", " Looks"), (-0.01, -0.01),
                                           ("0175", "0175.png"), ("11_classify", "11_classify.ipynb")])
def test_an_answer_may_be_rounded_and_of_any_fitting_kind(right, answer):
    assert judged(Known(right), answer) == (True, "")


def test_what_is_printed_with_few_digits_may_be_answered_with_them():
    assert judged(Known(5.7e-05, within=0.51e-4), 0.0001)[0] and not judged(Known(5.7e-05, within=0.51e-4), 0.0002)[0]


def test_a_usual_wrong_answer_has_its_own_remark():
    assert judged(Known(3, {4: "2.5 px are none"}), 4) == (False, "2.5 px are none.")


@pytest.mark.parametrize("right", [None, float("nan")])
def test_a_run_without_an_answer_says_so(right):
    with pytest.raises(OctkitError):
        judged(Known(right), 3)


def test_a_circle_has_as_many_steps_as_a_scans(tmp_path):
    known = Exercises(Run(tmp_path)).degrees_of_an_a_scan_00_1()
    assert judged(known, 360 / 768)[0] and judged(known, 0.469)[0]
    found, remark = judged(known, 360 / 767)
    assert not found and "neighbours" in remark


def said(capsys):
    return " ".join(re.sub(r"[─│╭╮╰╯]", " ", capsys.readouterr().out).split())


def test_what_cannot_be_checked_is_said_without_an_error(tmp_path, capsys):
    nothing = Run(tmp_path)
    assert check("06-2", None, nothing) is False
    assert "not answered" in said(capsys)
    assert check("06-9", 3, nothing) is False
    assert "There are 06-1, 06-2, 06-3." in said(capsys)
    assert check("07-1", 3, nothing) is False
    found = said(capsys)
    assert "settings.json" in found and "octkit run" in found


def test_the_second_wrong_answer_is_shown_the_hint(tmp_path, capsys):
    TRIES.clear()
    assert not check("03-1", 5, Run(tmp_path))
    assert "hint" not in said(capsys)
    assert not check("03-1", 2, Run(tmp_path))
    assert "Off by one" in (found := said(capsys)) and "hint" in found
    assert not check("03-1", 4, Run(tmp_path))  # this remark says it all
    assert "5 px are not halved again" in (found := said(capsys)) and "hint" not in found
    assert check("03-1", 3, Run(tmp_path))
    assert "Right." in said(capsys)


def test_neither_torch_nor_paddle_is_imported():
    code = "import sys; from octkit.lessons import check; assert not {'torch', 'paddle'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_worked_out_here_is_what_the_package_does(tmp_path, goals):
    import torch

    from octkit.inference.sliding_window import window_starts
    from octkit.network.model import build_network
    from octkit.training import grey_changes, rotate_scale
    from octkit.training.train import poly_rate

    known = Exercises(run := Run(make_run(tmp_path / "run", goals)))
    assert known.rate_06_2().right == pytest.approx(poly_rate(run.settings.train.initial_rate, 60, 100))
    assert known.windows_08_1().right == len(window_starts(1100, 384, 0.5))
    chances = [chance for chance, _ in grey_changes.intensity_changes((40, 48))]
    chances += [rotate_scale.ROTATION_PROBABILITY, rotate_scale.SCALING_PROBABILITY]
    assert known.not_drawn_05_1().right == pytest.approx(np.prod(1 - np.array(chances)))
    # The receptive field: the rows of the input from which a value of the third stage has a gradient.
    first, second, third = build_network(run.plan, "2d", deep_supervision=False).train().encoder[:3]
    for block in (first, second, third):  # the norm would look at the whole map
        for place in (1, 4):
            block.layers[place] = torch.nn.Identity()
    image = torch.rand(1, 1, 40, 48, requires_grad=True)
    third(second(first(image)))[0, :, 5, 6].sum().backward()
    assert known.receptive_field_06_3().right == int((image.grad != 0).any(dim=3).sum())


@pytest.fixture
def rivals(tmp_path, goals):
    """`rivals(probabilities, thickness of I)` -> a run with these of its two validation scans, 7 sick and 8 healthy."""
    def make(probabilities, inferior):
        run = Run(make_run(tmp_path / "run", goals))
        run.classifier.mkdir()
        names = [case.name for case in run.dataset.validation]
        write_csv(run.classifier / "predictions.csv", ["ImgName", "GC_Pred"],
                  [[f"{name}.png", value] for name, value in zip(names, probabilities, strict=True)])
        sectors = dict.fromkeys(("global", "T", "S", "N", "GH_T", "GH_TS", "GH_NS", "GH_N", "GH_NI", "GH_TI"))
        pd.DataFrame([{"case": name, "layer": "rnfl", "I": value, **sectors} for name, value
                      in zip(names, inferior, strict=True)]).to_csv(run.thickness_file, index=False)
        return run
    return make


def best_limit(run):
    """A limit of the sector I that decides the training scans as rightly as any."""
    sick, healthy = Exercises(run).thinness_in_training("I")
    return -max([*sick, *healthy, math.inf], key=lambda cut: count_right((sick, healthy), cut))


@pytest.mark.parametrize("probabilities, inferior, reached", [
    ((0.2, 0.6), (1, 120), "Yes: of 2 validation scans it decides 2 rightly, the submitted answer (from 0.5 on it is "
                           "glaucoma) 0."),
    ((0.7, 0.2), (120, 1), "No: of 2 validation scans it decides 0 rightly, the submitted answer (from 0.5 on it is "
                           "glaucoma) 2.")])
def test_a_rule_chosen_by_the_training_scans_is_right_whoever_wins(rivals, capsys, monkeypatch, probabilities, inferior,
                                                                   reached):
    run = rivals(probabilities, inferior)
    monkeypatch.setattr(Exercises, "thinness_in_training", lambda *_: ([-90.0, -80.0], [-110.0, math.nan]))
    assert check("11-3", ("I", best_limit(run)), run) and check("11-3", ("I", 100), run)
    assert reached in said(capsys)
    assert not check("11-3", ("I", 85), run)  # one of four is wrong
    assert "your rule decides 3 rightly, the best limit of this sector 4." in said(capsys)
    assert not check("11-3", ("X", 100), run) and not check("11-3", 100, run)
    found = said(capsys)
    assert "The sectors are global, T, S," in found and "Expected (a text in quotes, a number)" in found


def test_the_thickness_of_the_training_scans_is_that_of_their_masks(rivals):
    run = rivals((0.2, 0.6), (80, 120))
    sick, healthy = Exercises(run).thinness_in_training("I")
    cases = run.dataset.train
    assert (len(sick), len(healthy)) == tuple(sum(case.glaucoma == side for case in cases) for side in (1, 0))
    profile = thickness.of_case(cases[0], run.dataset.read_mask(cases[0]))["rnfl"]
    assert -thickness.means(profile)["I"] in (sick if cases[0].glaucoma else healthy)


def test_the_auc_of_a_thickness_and_the_lowest_price_of_missing_nobody(rivals, capsys, monkeypatch):
    run = rivals((0.2, 0.6), (80, 120))
    # Sick 80 and 100 um, healthy 120 and 100: of four pairs three are thinner, one is as thick.
    monkeypatch.setattr(Exercises, "thinness_in_training", lambda *_: ([-80.0, -100.0], [-120.0, -100.0]))
    assert check("11-1", 0.875, run) and not check("11-1", 0.125, run)
    assert check("11-2", 0.2, run) and check("11-2", 0.1, run) and not check("11-2", 0.3, run)
    assert "1 with glaucoma are missed, 1 healthy ones alarmed" in said(capsys)
    assert check("12-1", 1, run) and not check("12-1", 2, run)


def test_nobody_is_missed_and_nobody_alarmed_where_a_threshold_can(rivals, capsys):
    run = rivals((0.6, 0.4), (80, 120))
    assert check("11-2", 0.5, run) and not check("11-2", 0.3, run)
    assert "1 healthy ones alarmed; it can be as few as 0" in said(capsys)


def test_a_damaged_table_of_thickness_is_named(rivals):
    run = rivals((0.2, 0.6), (80, 120))
    run.thickness_file.write_text("case,layer\n0001,rnfl\n")
    with pytest.raises(OctkitError) as error:
        Exercises(run).thinness()
    assert error.value.file == run.thickness_file and error.value.mend


def test_without_the_diagnoses_nothing_is_decided(rivals, goals, capsys):
    run = rivals((0.2, 0.6), (80, 120))
    (goals / "Truth" / "GC_GT.xlsx").unlink()
    assert not check("11-2", 0.5, run)
    assert "to itself" in said(capsys)


def remarks() -> list[str]:
    """The remarks on usual wrong answers: the values of dicts in `Exercises`, and of pairs in `_relations`."""
    dicts = [node for node in ast.walk(ast.parse(inspect.getsource(Exercises))) if isinstance(node, ast.Dict)]
    pairs = ast.walk(ast.parse(inspect.getsource(_relations)))
    values = [value for node in dicts for value in node.values] + [
        node.elts[1] for node in pairs if isinstance(node, ast.Tuple) and len(node.elts) == 2]
    return [node.value for node in values if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def test_each_remark_has_its_chinese():
    found = remarks()
    assert len(found) > 40
    assert [text for text in found if translated(text) == text] == []


def test_a_check_answers_in_the_language_that_people_read(monkeypatch, capsys):
    known = Known(4, {8: "this is one epoch"})
    monkeypatch.setattr("octkit.lessons.check.exercises", lambda: {"00-1": lambda _: known})
    run = type("Run", (), {"folder": "somewhere"})()
    for language, verdict, remark in (("en", "Not yet.", "This is one epoch."), ("zh", "还不对。", "这只是一轮。")):
        monkeypatch.setenv("OCTKIT_LANGUAGE", language)
        assert not check("00-1", 8, run)
        told = capsys.readouterr().out
        assert verdict in told and remark in told
        assert check("00-1", 4, run)
        assert ("正确" in capsys.readouterr().out) == (language == "zh")
