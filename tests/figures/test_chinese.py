"""Figures' texts in Chinese: whole phrases or none, and nothing is left changed."""

import ast

import pytest

from octkit.figures import charts, chinese, picture
from octkit.figures.chinese import PHRASES, WORD, translated
from octkit.planning.run import Run


@pytest.fixture
def zh(monkeypatch):
    """Chinese is chosen; matplotlib's own font stands in for a Chinese one."""
    monkeypatch.setenv("OCTKIT_LANGUAGE", "zh")
    for module in (chinese, picture):
        monkeypatch.setattr(module, "font", lambda: "DejaVu Sans")


@pytest.mark.parametrize(("english", "shown"), [
    ("depth (px)", "深度（px）"), ("A-scan", "A 扫描"), ("RNFL, mean 34", "RNFL，平均 34"), ("RNFL", "RNFL"),
    (" clip 3 (0.5 %)", "截断 3（0.5 %）"), ("choroid, mean 200", "脉络膜，平均 200"), ("choroid", "脉络膜"),
    ("healthy (12 scans)", "健康（12 张图像）"), ("fold 1: 2 of 10", "第 1 折：2/10"), ("0.25", "0.25"),
    ("loss, 5 folds", "损失函数，5 折"),
    ("Scan 0007, glaucoma", "图像 0007，青光眼"), ("RNFL of volume eye_3", "体数据 eye_3 的 RNFL"),
    ("mean thickness (µm)", "平均厚度（µm）"), ("no validation:\nall cases train", "没有验证：\n全部病例用于训练"),
    ("Some words of mine", "Some words of mine"), ("depth of something (px)", "depth of something (px)"),
    ("what nobody knows of 12 scans", "what nobody knows of 12 scans")])
def test_whole_phrases_are_translated_or_nothing_is(english, shown):
    assert translated(english).strip() == shown


def test_the_axes_of_all_figures_have_chinese_words():
    """xlabel and ylabel as they stand in the code; what is put together there is looked up in parts."""
    lacking = []
    for path in sorted(PHRASES.parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for key in getattr(node, "keywords", ()):
                if key.arg in ("xlabel", "ylabel") and isinstance(key.value, ast.Constant) and WORD.search(
                        key.value.value) and translated(key.value.value) == key.value.value:
                    lacking.append(f"{path.name}: {key.value.value}")
    assert lacking == []


def texts(drawn):
    ax = drawn.axes[0]
    return drawn.get_suptitle(), ax.get_xlabel(), [label.get_text() for label in ax.get_yticklabels()]


@pytest.mark.usefixtures("zh")
def test_a_picture_is_chinese_while_it_is_drawn_and_then_as_before():
    drawn = charts.layer_scores({"rnfl": [0.9, 0.95], "choroid": [0.8, 0.9]}, "Dice on the validation scans")
    before = texts(drawn)
    assert before == ("Dice on the validation scans", "Dice (0 to 1)", ["RNFL", "choroid"])
    with chinese.in_chinese(drawn):
        assert texts(drawn) == ("验证图像上的 Dice", "Dice（0 到 1）", ["RNFL", "脉络膜"])
    assert texts(drawn) == before


@pytest.mark.filterwarnings("ignore:Glyph")
def test_the_english_figure_is_the_same_in_both_languages(tmp_path, monkeypatch):
    """A step done in one language is done in the other; a Chinese figure of other numbers does not stay."""
    run, file, twin = Run(tmp_path), tmp_path / "figures/one.png", tmp_path / "figures/zh/one.png"

    def save(value):
        picture.save(run, charts.layer_scores({"rnfl": [value, 0.5]}, "Dice on the validation scans"), "one")
        return file.read_bytes()

    english = save(0.9)
    assert picture.saved_figures(run, "*.png") == [file]
    monkeypatch.setenv("OCTKIT_LANGUAGE", "zh")
    for module in (chinese, picture):
        monkeypatch.setattr(module, "font", lambda: "DejaVu Sans")
    assert picture.saved_figures(run, "*.png") == [file]  # until it is drawn in Chinese
    assert save(0.9) == english != twin.read_bytes()
    assert picture.saved_figures(run, "*.png") == [twin]
    monkeypatch.setenv("OCTKIT_LANGUAGE", "en")
    assert picture.saved_figures(run, "*.png") == [file]
    assert save(0.9) == english and twin.exists()
    assert save(0.8) != english and not twin.exists()


def test_without_a_font_figures_stay_english_and_that_is_said_once(monkeypatch, capsys):
    monkeypatch.setenv("OCTKIT_LANGUAGE", "zh")
    monkeypatch.setattr(chinese.font_manager.fontManager, "ttflist", [])
    monkeypatch.setattr(chinese.font_manager, "findSystemFonts", list)
    chinese.font.cache_clear()
    chinese.warn.cache_clear()
    try:
        drawn = charts.layer_scores({"rnfl": [0.9]}, "Dice on the validation scans")
        for _ in range(2):
            with chinese.in_chinese(drawn):
                assert drawn.get_suptitle() == "Dice on the validation scans"
        assert capsys.readouterr().err.count("fonts-noto-cjk") == 1
    finally:
        chinese.font.cache_clear()
