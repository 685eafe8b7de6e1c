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
from octkit.lessons.check import TRIES, Exercises, Known, check, exercises, judged
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
    ((4, 7), (4, 8), "each of the values"),
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
                                           ((0.5, 0.0), np.array([0.5, 0])), ("+ looks", " Looks"), (-0.01, -0.01)])
def test_an_answer_may_be_rounded_and_of_any_fitting_kind(right, answer):
    assert judged(Known(right), answer) == (True, "")


def test_a_usual_wrong_answer_has_its_own_remark():
    assert judged(Known(3, {4: "2.5 px are none"}), 4) == (False, "2.5 px are none.")


@pytest.mark.parametrize("right", [None, float("nan")])
def test_a_run_without_an_answer_says_so(right):
    with pytest.raises(OctkitError):
        judged(Known(right), 3)


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
    assert not check("03-1", 4, Run(tmp_path))
    assert "5 px are not halved again" in (found := said(capsys)) and "hint" in found
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
    assert known.half_way_06_2().right == pytest.approx(poly_rate(run.settings.train.initial_rate, 50, 100))
    assert known.windows_08_1().right == len(window_starts(1100, 384, 0.5))
    chances = [chance for chance, _ in grey_changes.intensity_changes((40, 48))]
    chances += [rotate_scale.ROTATION_PROBABILITY, rotate_scale.SCALING_PROBABILITY]
    assert known.not_drawn_05_1().right == pytest.approx(np.prod(1 - np.array(chances)))
    # The receptive field: the rows of the input from which a value of the second stage has a gradient.
    first, second = build_network(run.plan, "2d", deep_supervision=False).train().encoder[:2]
    for block in (first, second):  # the norm would look at the whole map
        for place in (1, 4):
            block.layers[place] = torch.nn.Identity()
    image = torch.rand(1, 1, 40, 48, requires_grad=True)
    second(first(image))[0, :, 10, 12].sum().backward()
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


def test_a_sector_that_beats_the_network_is_found_by_the_run(rivals, capsys):
    run = rivals((0.2, 0.6), (80, 120))
    assert check("11-3", ("I", 100), run) and check("11-3", ("I", 80), run)
    assert "decides 2 scans rightly, the submitted answer, with the threshold that suits it best, 1." in said(capsys)
    assert not check("11-3", "none", run)
    assert check("11-3", ("I", 79), run)  # one right, as many as the network
    assert check("11-1", 0, run) and check("11-2", 0.1, run) and check("11-2", 0.9, run)
    assert not check("11-2", 0.5, run)


def test_a_network_that_no_sector_beats_wins_by_the_run(rivals, capsys):
    run = rivals((0.7, 0.6), (120, 80))
    assert check("11-3", "none", run)
    assert not check("11-3", ("I", 100), run) and not check("11-3", ("I", 130), run)
    assert "Your rule decides 0 scans rightly" in said(capsys)
    assert not check("11-3", ("T", 100), run) and not check("11-3", ("X", 100), run) and not check("11-3", 100, run)
    found = said(capsys)
    assert "The sectors are global, T, S," in found and "Expected (a text in quotes, a number)" in found
    assert check("11-2", 0.65, run) and not check("11-2", 0.5, run)
    assert "at 0.5 there are 1" in said(capsys)


def test_a_damaged_table_of_thickness_is_named(rivals):
    run = rivals((0.2, 0.6), (80, 120))
    run.thickness_file.write_text("case,layer\n0001,rnfl\n")
    with pytest.raises(OctkitError) as error:
        Exercises(run).thinness()
    assert error.value.file == run.thickness_file and error.value.mend


def test_without_the_diagnoses_nothing_is_decided(rivals, goals, capsys):
    run = rivals((0.2, 0.6), (80, 120))
    (goals / "Truth" / "GC_GT.xlsx").unlink()
    assert not check("11-1", 0.5, run)
    assert "to itself" in said(capsys)
