"""The chosen language, and the table of terms."""

import pytest

from octkit.common import language
from octkit.common.errors import OctkitError


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    monkeypatch.setenv(language.VARIABLE, "")  # so that what `choose` sets is taken back
    monkeypatch.delenv(language.VARIABLE)


def test_english_is_spoken_until_chinese_is_chosen():
    assert (language.language(), language.in_words("scan", "图像")) == ("en", "scan")
    language.choose("zh")
    assert (language.language(), language.in_words("scan", "图像")) == ("zh", "图像")
    language.choose(None)
    assert language.language() == "zh"
    language.choose("en")
    assert language.in_words("scan", "图像") == "scan"


def test_another_language_is_refused_by_the_name_of_what_chose_it(monkeypatch):
    with pytest.raises(OctkitError, match="--language.*'fr'.*en or zh"):
        language.choose("fr")
    monkeypatch.setenv(language.VARIABLE, "zh_CN")
    for ask in (language.language, lambda: language.choose(None), lambda: language.in_words("a", "b")):
        with pytest.raises(OctkitError, match="OCTKIT_LANGUAGE.*'zh_CN'.*en or zh"):
            ask()


def test_the_terms_are_pairs():
    found = language.terms()
    assert found["circle scan"] == "环形扫描" and found["RNFL"] == "视网膜神经纤维层"
    assert (found["layer"], found["boundary"]) == ("层", "边界")  # of one row
    assert "English" not in found and all(found.values())
