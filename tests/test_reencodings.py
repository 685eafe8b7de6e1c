"""A short run of benchmarks/reencodings.py under two locales; benchmarks/README.md has the long one."""

import os
import subprocess
import sys

import pytest

from octkit.common.settings import PROJECT


@pytest.mark.parametrize(("locale", "seed"), [({"LC_ALL": "C.UTF-8"}, "1"),
                                              ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "2")])
def test_a_scan_written_in_other_ways_gives_the_same_numbers_or_a_refusal(locale, seed):
    run = subprocess.run([sys.executable, "benchmarks/reencodings.py", "--runs", "40", "--seed", seed], cwd=PROJECT,
                         capture_output=True, encoding="utf-8", env=os.environ | locale)
    assert run.returncode == 0, run.stdout + run.stderr
    counted = {row[0]: dict(cell.split()[::-1] for cell in row[1:])
               for row in (line.split(" | ") for line in run.stdout.splitlines() if " | " in line)}
    assert counted.keys() == {"circle", "volume"}
    for ways in counted.values():
        assert sum(map(int, ways.values())) == 20 and int(ways["same"]) > 4 and ways["WRONG"] == "0"
