"""The command that fits the scope of a model, benchmarks/scope.py, on numbers instead of predictions."""

import json
import sys
import zipfile

import numpy as np
import pytest
from helpers import same_weights, tiny_model

from octkit.common.settings import PROJECT
from octkit.data.measured import KINDS
from octkit.layers.scope import ENDS, outside
from octkit.network.model_file import open_model, save_model


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(PROJECT / "benchmarks"))
    import scope
    import scope_examples

    yield scope, scope_examples
    for name in ("scope", "scope_examples"):
        sys.modules.pop(name)


def test_it_fits_measures_and_leaves_the_weights_as_they_are(benchmarks, monkeypatch, tmp_path, capsys):
    scope, _ = benchmarks
    random = np.random.default_rng(0)

    def predicted(_model, _seed, rounds, _work):
        places = {"circle": (0, 0), "macula": (4, 0), "disc": (0, 4), "other": (4, 4)}
        return [scope.Found(kind, f"a {kind}", {"a": a + random.normal(0, 0.5), "b": b + random.normal(0, 0.5),
                                                ENDS[0]: random.normal()}, False)
                for kind, (a, b) in places.items() for _ in range(rounds)]

    monkeypatch.setattr(scope, "predicted", predicted)
    monkeypatch.setattr(sys, "argv", f"scope.py {tmp_path}/m.zip --work {tmp_path} --rounds 40 30".split())
    save_model(model := tiny_model("2d"), tmp_path / "m.zip", {"name": "tiny", "scores": {}})
    scope.main()
    again = open_model(tmp_path / "m.zip")
    assert all(map(same_weights, model.members, again.members)) and tuple(again.scope.weights) == KINDS
    assert "macula" in outside({"a": 4, "b": 0, ENDS[0]: np.nan}, again.scope)
    assert outside({"a": 0, "b": 0, ENDS[0]: 0}, again.scope) is None
    flagged = again.scope.flagged
    assert flagged["circle scans"][0] <= 1 and flagged["other pictures"] == (90, 90)
    assert f"| **circle scans** | {flagged['circle scans'][0]} of 30 |" in capsys.readouterr().out
    with zipfile.ZipFile(tmp_path / "m.zip") as archive:
        assert json.loads(archive.read("card.json"))["name"] == "tiny"


def test_examples_are_pictures_that_are_the_same_again(benchmarks):
    _, scope_examples = benchmarks
    names = [(kind, name) for kind, name, _ in scope_examples.examples(1)]
    assert len(names) == len(set(names)) and {kind for kind, _ in names} == set(KINDS)
    for kind, name in (("circle", "circle, cut"), ("disc", "short, disc"), ("other", "text")):
        image = scope_examples.drawn(1, kind, name, 0)
        assert image.dtype == np.uint8 and image.std() > 3
        np.testing.assert_array_equal(scope_examples.drawn(1, kind, name, 0), image)
        assert scope_examples.drawn(2, kind, name, 0).tobytes() != image.tobytes()
