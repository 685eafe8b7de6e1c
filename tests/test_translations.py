"""The Chinese lessons: the English code, no text that has fallen behind, the words of the table, links that lead."""

import copy
import importlib.util
import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from octkit.common.language import terms
from octkit.common.settings import PROJECT

spec = importlib.util.spec_from_file_location("translations", PROJECT / "docs/translations.py")
translations = importlib.util.module_from_spec(spec)
spec.loader.exec_module(translations)

LESSONS = translations.english_lessons()
CHINESE = re.compile("[一-鿿]")
LINK = re.compile(r"\]\((?!https?://)([^)#]*)#?([^)]*)\)")
# The table's word -> others that people use for it: one word for one thing.
OTHER_WORDS = {"掩膜": "掩码|遮罩", "环形扫描": "圆环扫描|圆形扫描|环状扫描", "视盘": "视神经盘|视乳头",
               "数据增强": "数据扩增|数据扩充", "灵敏度": "敏感度|敏感性", "特异度": "特异性", "重采样": "重取样",
               "交叉验证": "交叉校验|交叉检验", "跳跃连接": "跳接|跳层连接|残差连接", "过拟合": "过度拟合",
               "学习率": "学习速率", "感受野": "接受域", "后处理": "后期处理", "集成": "模型融合"}


def read(path):
    return nbformat.read(path, as_version=4)


def anchors(path):
    """What a link can name in a lesson: its headings, with "-" for spaces, and ids."""
    text = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    return {heading.strip().replace(" ", "-") for heading in re.findall(r"(?m)^#+ (.*)", text)} | set(
        re.findall(r'<a id="([^"]+)"', text))


@pytest.fixture(params=LESSONS, ids=lambda path: path.relative_to(translations.LESSONS).as_posix())
def lesson(request):
    """The English lesson's file and the Chinese one's."""
    return request.param, translations.CHINESE / request.param.relative_to(translations.LESSONS)


def test_a_lesson_is_in_step_with_the_english_one(lesson):
    """Same cells, same code, and each text translates the English one as it reads now."""
    english, chinese = map(read, lesson)
    made, left = translations.in_step(english, chinese)
    assert left == [] and made == chinese
    assert [cell.source for cell in chinese.cells if cell.cell_type == "markdown" and not CHINESE.search(cell.source)
            ] == []


def test_a_lesson_uses_the_words_of_the_table(lesson):
    text = "\n".join(cell.source for cell in read(lesson[1]).cells if cell.cell_type == "markdown")
    assert {word: found for word, others in OTHER_WORDS.items() if (found := re.findall(others, text))} == {}


def test_a_lessons_links_lead_where_the_english_ones_do(lesson):
    for english, chinese in zip(*(read(path).cells for path in lesson), strict=True):
        if chinese.cell_type == "markdown":
            found = set(LINK.findall(chinese.source))
            assert {file for file, _ in found} == {file for file, _ in LINK.findall(english.source)}
            for file, anchor in found:
                target = lesson[1].parent / file
                assert target.is_file() and (not anchor or anchor in anchors(target))


def test_no_chinese_lesson_is_without_an_english_one():
    made = {path.relative_to(translations.CHINESE) for path in translations.CHINESE.rglob("*.ipynb")}
    assert made == {path.relative_to(translations.LESSONS) for path in LESSONS}
    assert set(OTHER_WORDS) <= set(terms().values())


@pytest.fixture
def pair():
    english = new_notebook(cells=[new_markdown_cell("# A scan", id="a"), new_code_cell("1 + 1", id="b"),
                                  new_markdown_cell("Look.", id="c")])
    chinese = copy.deepcopy(english)
    for cell, text in ((chinese.cells[0], "# 图像"), (chinese.cells[2], "看。")):
        cell.metadata["octkit"] = {"translates": translations.stamp(cell)}
        cell.source = text
    return english, chinese


def test_what_is_in_step_stays(pair):
    assert translations.in_step(*pair) == (pair[1], [])


def test_code_follows_and_texts_that_fell_behind_are_named(pair):
    english, chinese = pair
    english.cells[1].source = "2 + 2"
    english.cells[2].source = "Look again."
    english.cells.insert(1, new_markdown_cell("New.", id="d"))
    chinese.cells.append(new_markdown_cell("多余", id="e"))
    made, left = translations.in_step(english, chinese)
    assert [line.split(",")[0] for line in left] == ["d: missing", "c: stale", "e: surplus"]
    assert [cell.id for cell in made.cells] == ["a", "d", "b", "c"]
    assert [cell.source for cell in made.cells] == ["# 图像", translations.MARK + "New.", "2 + 2", "看。"]
    assert translations.in_step(english, made)[1] == ["d: missing", "c: stale"]  # until it is done
