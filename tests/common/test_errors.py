"""How an error that the user can mend, and a stopped training, show themselves in a notebook."""

import pytest
from IPython.core.interactiveshell import InteractiveShell

from octkit.common.errors import OctkitError, Stopped, saying_what_is_kept


@pytest.fixture
def shell(monkeypatch):
    """IPython as in a kernel: cells are run, errors are shown as they would be sent."""
    shell = InteractiveShell()
    shell.kernel = None  # as a kernel's shell has it
    shell.shown, shell.displayed = [], []

    def show(kind, value, lines):
        shell.shown.append((kind.__name__, str(value), "".join(lines)))
        getattr(value, "_render_traceback_", list)()  # a kernel asks twice

    shell._showtraceback = show
    shell.display_pub.publish = lambda data, *_, **__: shell.displayed.append(data["text/html"])
    monkeypatch.setattr("IPython.core.getipython.get_ipython", lambda: shell)
    monkeypatch.setattr(InteractiveShell, "initialized", lambda: True)
    monkeypatch.setattr(InteractiveShell, "instance", lambda: shell)
    return shell


def test_an_error_is_one_sentence_and_its_traceback_is_folded_below(shell):
    code = "from octkit.common.errors import bad_file\nraise bad_file('plan.json', 'not found', 'run <lesson> 03')"
    assert not shell.run_cell(code).success
    [(kind, text, lines)] = shell.shown
    assert (kind, text) == ("OctkitError", "plan.json: not found, run <lesson> 03")  # papermill reports these two
    assert text in lines and "Traceback" not in lines and len(lines.splitlines()) == 1
    [folded] = shell.displayed
    assert folded.startswith("<details>") and "Traceback" in folded and "run &lt;lesson&gt; 03" in folded
    assert shell.run_cell("1 + 1").success and len(shell.displayed) == 1


def test_other_errors_are_shown_as_ever(shell):
    shell.run_cell("1 / 0")
    assert "Traceback" in shell.shown[0][2] and not shell.displayed


@pytest.mark.parametrize("ended", [True, False])
def test_a_stopped_training_says_what_is_kept_and_how_to_go_on(tmp_path, capsys, ended):
    checkpoint = tmp_path / "checkpoint.pt"
    if ended:
        checkpoint.touch()
    with pytest.raises(KeyboardInterrupt) as caught, saying_what_is_kept(checkpoint):
        raise KeyboardInterrupt
    assert caught.type is Stopped
    said = capsys.readouterr().out
    assert (str(checkpoint) in said) == ended and "again" in said


def test_other_ends_of_a_training_are_left_alone(tmp_path, capsys):
    with pytest.raises(OctkitError, match="diverged"), saying_what_is_kept(tmp_path):
        raise OctkitError("diverged")
    assert capsys.readouterr().out == ""
