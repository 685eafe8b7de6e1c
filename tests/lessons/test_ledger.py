from octkit.lessons import ledger
from octkit.lessons.ledger import Line
from octkit.planning.run import Run


def test_a_torn_ledger_costs_its_last_line_alone(tmp_path):
    run = Run(tmp_path)
    lines = [Line(step="a", status="done"), Line(step="ü", status="failed"), Line(step="c", status="done")]
    for line in lines:
        ledger.append(run, line)
    whole = run.ledger_file.read_bytes()
    assert ledger.read(run) == lines
    for size in range(len(whole)):
        run.ledger_file.write_bytes(whole[:size])
        kept = ledger.read(run)
        assert kept == lines[:len(kept)] and len(kept) >= whole[:size].count(b"\n")
        ledger.append(run, new := Line(step="new", status="skipped"))
        assert ledger.read(run) == [*kept, new]


def test_an_edit_in_any_room_makes_another_version_and_compiled_files_do_not(tmp_path):
    module, compiled = tmp_path / "data" / "layouts" / "x.py", tmp_path / "data" / "__pycache__" / "x.cpython-311.pyc"
    for path in (module, compiled):
        path.parent.mkdir(parents=True)
        path.write_text("x = 1")
    before = ledger.code_version(tmp_path)
    compiled.write_text("x = 2")
    assert ledger.code_version(tmp_path) == before
    module.write_text("x = 2")
    assert ledger.code_version(tmp_path) != before


def test_the_files_that_a_step_has_left(tmp_path):
    run = Run(tmp_path)
    for name in ("a.json", "models/2d/log.csv", "models/.lock", "models/.2d.tmp/x", "other"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    found = ledger.outputs(run, ledger.files(run, ["a.json", "models", "figures/01_*"]))
    line = Line(step="a", status="done", outputs=found)
    ledger.append(run, line)
    assert ledger.read(run) == [line] and line.contents.keys() == {"a.json", "models/2d/log.csv"}
    assert found["a.json"][0] == 6 and ledger.not_as_left(run, line) is None
    (tmp_path / "models/2d/log.csv").write_text("models/2d/LOG.csv")
    assert ledger.not_as_left(run, line) == f"{tmp_path / 'models/2d/log.csv'} has changed"
    (tmp_path / "a.json").unlink()
    assert ledger.not_as_left(run, line) == f"{tmp_path / 'a.json'} is missing"
    assert ledger.not_as_left(run, Line(step="a", status="done")) is None
