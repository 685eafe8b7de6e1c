"""The remarks of checks in Chinese."""

import ast
import inspect

from octkit.figures.chinese import translated
from octkit.lessons import check


def remarks() -> list[str]:
    """The remarks on usual wrong answers: the values of dicts in `Exercises`, and of pairs in `_relations`."""
    dicts = [node for node in ast.walk(ast.parse(inspect.getsource(check.Exercises))) if isinstance(node, ast.Dict)]
    pairs = ast.walk(ast.parse(inspect.getsource(check._relations)))
    values = [value for node in dicts for value in node.values] + [
        node.elts[1] for node in pairs if isinstance(node, ast.Tuple) and len(node.elts) == 2]
    return [node.value for node in values if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def test_each_remark_has_its_chinese():
    found = remarks()
    assert len(found) > 40
    assert [text for text in found if translated(text) == text] == []


def test_a_check_answers_in_the_language_that_people_read(monkeypatch, capsys):
    monkeypatch.setattr(check, "exercises", lambda: {"00-1": lambda _: check.Known(4, {8: "this is one epoch"})})
    run = type("Run", (), {"folder": "somewhere"})()
    for language, verdict, remark in (("en", "Not yet.", "This is one epoch."), ("zh", "还不对。", "这只是一轮。")):
        monkeypatch.setenv("OCTKIT_LANGUAGE", language)
        assert not check.check("00-1", 8, run)
        told = capsys.readouterr().out
        assert verdict in told and remark in told
        assert check.check("00-1", 4, run)
        assert ("正确" in capsys.readouterr().out) == (language == "zh")
