"""Lessons in JupyterLab, as a student opens them: they run, follow keys, answer back, and are opened again."""

import re
from urllib.parse import urlsplit

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import expect

from octkit.common.files import read_json
from octkit.data.image_files import read_mask, write_mask, write_png
from octkit.data.labels import GOALS_GREYS
from octkit.layers.boundaries import mask_from
from octkit.layers.scan_files import ScanFacts, read_boundaries, write_boundaries, write_facts
from octkit.lessons.editing import edit

LESSONS = ("notebooks/01_data.ipynb", "notebooks/02_fingerprint.ipynb", "notebooks/03_plan.ipynb")
CHINESE = "zh/notebooks/02_fingerprint.ipynb"

# A lesson, an argument that a slider moves, by how many steps another picture comes, and the slider that Tab reaches.
SLIDERS = {"Dice of two shapes": (LESSONS[0], "shift", 1, "thick"), "scans": (LESSONS[0], "scan", 1, "opacity"),
           "clipping": (LESSONS[1], "low", 1, "high"), "halvings": (LESSONS[2], "size", 1, "smallest"),
           "planner": (LESSONS[2], "memory gb", 2, "rows")}  # 9 GB take a batch of 4, 8.5 one of 3 as 8

STORED = ".jp-RenderedImage img"  # what a widget shows is none
ALL_RAN = r"""cells => {
    const prompts = [...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")].map(prompt => prompt.textContent);
    return prompts.filter(text => /^\[\d+\]:$/.test(text)).length === cells
        || document.querySelector('[data-mime-type="application/vnd.jupyter.error"]') !== null;
}"""


@pytest.fixture(scope="module")
def address(lab):
    """address(path, workspace): a notebook's, alone in a workspace, so that nothing of other tests is opened."""
    parts = urlsplit(lab.url)
    return lambda path, space: f"{parts.scheme}://{parts.netloc}/lab/workspaces/{space}/tree/{path}?{parts.query}"


@pytest.fixture(scope="module")
def ran(browser, lab, address):
    """ran(path): the page of a lesson after Run All. Each cell has its number, or one has failed. Run once for all."""
    pages = {}

    def run(path):
        if path not in pages:
            page = pages[path] = browser.new_page()
            page.goto(address(path, f"run{len(pages)}"))
            page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
            page.get_by_role("menuitem", name="Run", exact=True).click()
            page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
            page.wait_for_function(ALL_RAN, arg=sum(cell.cell_type == "code" for cell in cells(lab.folder / path)))
        return pages[path]

    return run


def cells(path):
    return nbformat.read(path, as_version=4).cells


def test_the_lab_starts_at_the_first_lesson_with_kernels_that_open_no_port(browser, lab):
    page = browser.new_page()
    page.goto(lab.url)
    page.get_by_role("heading", name="00 · Start").wait_for()
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    page.locator(".jp-BreadCrumbs-home").click()
    for name in ("reports", "data"):
        page.locator(".jp-DirListing-item", has_text=name).wait_for()
    connections = [read_json(path) for path in lab.runtime.glob("kernel-*.json")]
    assert connections and {connection["transport"] for connection in connections} == {"ipc"}
    page.close()


@pytest.mark.parametrize("path", [*LESSONS, CHINESE])
def test_a_lesson_runs_to_its_end(ran, path):
    page = ran(path)
    assert page.locator('[data-mime-type="application/vnd.jupyter.error"]').all_inner_texts() == []
    pictures = page.locator(".jp-OutputArea img")
    assert pictures.count() > 2
    assert pictures.evaluate_all("all => all.every(picture => picture.naturalWidth > 100)")


def test_a_chinese_lesson_speaks_chinese(ran):
    expect(ran(CHINESE).get_by_role("heading", level=1)).to_contain_text(re.compile("[一-鿿]{2}"))


def slider(page, name):
    """The handle of a slider and the value that is shown beside it; the box of controls and picture it stands in."""
    label = page.locator(".widget-label", has_text=re.compile(f"^{name}$"))
    control = page.locator(".widget-slider").filter(has=label)
    return control.get_by_role("slider"), control.locator(".widget-readout"), page.locator(".widget-vbox", has=label)


@pytest.mark.parametrize("lesson, name, steps, following", SLIDERS.values(), ids=SLIDERS)
def test_keys_move_a_slider_and_the_picture_follows(ran, lesson, name, steps, following):
    page = ran(lesson)
    handle, value, box = slider(page, name)
    picture, value_before = box.locator("img"), value.text_content()
    picture_before = picture.get_attribute("src")
    assert value_before
    handle.focus()
    for _ in range(steps):
        page.keyboard.press("ArrowRight")
    expect(value).not_to_have_text(value_before)
    expect(picture).not_to_have_attribute("src", picture_before)
    picture_before = picture.get_attribute("src")
    for _ in range(steps):
        page.keyboard.press("ArrowLeft")
    expect(value).to_have_text(value_before)
    expect(picture).not_to_have_attribute("src", picture_before)
    page.keyboard.press("Tab")  # to the value, which can be typed
    page.keyboard.press("Tab")
    expect(slider(page, following)[0]).to_be_focused()


def test_an_exercise_is_answered_wrong_and_right(ran):
    page = ran(LESSONS[1])
    cell = page.locator(".jp-CodeCell", has_text='check("02-1"')
    for answer, said in (("(8, 10)", "Not yet."), ("(4, 7)", "Right.")):
        cell.locator(".cm-content").click()
        page.keyboard.press("Control+A")
        page.keyboard.insert_text(f'answer = {answer}\ncheck("02-1", answer, run);')
        page.keyboard.press("Shift+Enter")
        expect(cell.locator(".jp-OutputArea")).to_contain_text(said)


# Flat boundaries in a scan of 100 rows of 4 um and 240 A-scans, of which every tenth, from 5 on, has points.
FLAT = np.repeat(np.array([10.0, 20, 40, 60, 80])[:, None], 240, axis=1)
CORRECTION = 'from octkit.lessons.editing import edit\nedit("../proposal", "a", "../corrected", images="../scans")'


def test_a_boundary_is_dragged_with_the_mouse_thickness_follows_and_it_is_saved(lab, ran):
    proposal, scans, saved = lab.folder / "proposal", lab.folder / "scans", lab.folder / "corrected/Train/Layer_Masks"
    write_png(scans / "a.png", np.full((100, 240), 90))
    write_mask(proposal / "a.png", mask_from(FLAT, 100), GOALS_GREYS)
    write_boundaries(proposal / "a.boundaries.csv", FLAT, np.ones_like(FLAT))
    write_facts(proposal / "a.scale.json", ScanFacts((4.0, 11.0), "R", True))
    nbformat.write(new_notebook(cells=[new_code_cell(CORRECTION)], metadata={"kernelspec": {
        "name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}}),
        lab.folder / "notebooks/correction.ipynb")
    drawn = edit(proposal, "a", lab.folder / "nowhere", scans).picture  # as in the browser, to know where things are
    drawn.canvas.draw()
    page = ran("notebooks/correction.ipynb")
    shown, said = page.locator(".jupyter-matplotlib-canvas-div"), page.locator("[role=status]", has_text="RNFL")
    expect(shown.locator("canvas").first).to_have_attribute("width", str(int(drawn.bbox.width)))
    shown.scroll_into_view_if_needed()
    corner = shown.bounding_box()

    def mouse_to(a_scan, row):
        x, y = drawn.axes[0].transData.transform((a_scan, row - 0.5))
        page.mouse.move(corner["x"] + x, corner["y"] + drawn.bbox.height - y)

    expect(said).to_contain_text("RNFL 40.00 µm (+0.00), GCIPL 80.00 µm (+0.00)")
    mouse_to(105, 20)
    page.mouse.down()
    mouse_to(105, 30)  # (10 + 2 * (9 + 8 + … + 1)) / 240 rows of 4 um
    expect(said).to_contain_text("RNFL 41.67 µm (+1.67), GCIPL 78.33 µm (-1.67)")
    mouse_to(105, 60)  # beyond the GCIPL's lower boundary in row 40
    page.mouse.up()
    expect(said).to_contain_text("RNFL 45.00 µm (+5.00), GCIPL 75.00 µm (-5.00)")  # 11 * 20 + 2 * (16 + 12 + 8 + 4)
    page.get_by_role("button", name="undo", exact=True).click()
    expect(said).to_contain_text("RNFL 40.00 µm (+0.00)")
    mouse_to(105, 20)
    page.mouse.down()
    mouse_to(105, 30)
    page.mouse.up()
    expect(said).to_contain_text("RNFL 41.67 µm (+1.67)")
    page.get_by_role("button", name="save", exact=True).click()
    expect(said).to_contain_text("100 px changed")
    expected = FLAT.copy()
    expected[1, 95:116] += [0, *range(1, 11), *range(9, -1, -1)]
    np.testing.assert_allclose(read_boundaries(saved / "a.boundaries.csv")[0], expected)
    np.testing.assert_array_equal(read_mask(saved / "a.png", GOALS_GREYS), mask_from(expected, 100))


def test_a_saved_notebook_without_a_kernel_shows_the_pictures_beside_its_widgets(browser, lab, ran, address):
    ran(LESSONS[2]).keyboard.press("Control+S")
    expect(ran(LESSONS[2]).locator(".jp-mod-dirty")).to_have_count(0)
    saved = sum("image/png" in output.get("data", {}) for cell in cells(lab.folder / LESSONS[2])
                for output in cell.get("outputs", ()))
    assert saved == ran(LESSONS[2]).locator(STORED).count() > 2
    page = browser.new_page()
    page.goto(address("notebooks", "reopened"))
    page.wait_for_function("window.jupyterapp?.commands.hasCommand('docmanager:open')")
    page.evaluate("""async path => { await jupyterapp.restored; await jupyterapp.commands.execute("docmanager:open", {
        path, factory: "Notebook", kernelPreference: {shouldStart: false, canStart: false, autoStartDefault: false}}) }
    """, LESSONS[2])
    page.get_by_role("heading", name="03 · Plan").wait_for()
    pictures = page.locator(STORED)
    expect(pictures).to_have_count(saved)
    assert pictures.evaluate_all("all => all.every(picture => picture.naturalWidth > 100)")
