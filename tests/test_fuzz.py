"""A short run of benchmarks/fuzz.py; benchmarks/README.md has the long one."""

import subprocess
import sys

from octkit.common.settings import PROJECT


def test_damaged_files_give_values_or_octkit_errors():
    """In a process of its own, as it limits the memory of the one that it runs in."""
    run = subprocess.run([sys.executable, "benchmarks/fuzz.py", "--runs", "280", "--seed", "5"], cwd=PROJECT,
                         capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    counted = run.stdout.partition("| all | ")[2].split(" |")
    assert counted[0] == "280" and int(counted[1]) > 20 and int(counted[2]) > 150
