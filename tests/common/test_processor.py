import os

import pytest

from octkit.common.processes import let_mkl_use_avx2, usable_cores

AMD = "vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx avx2 bmi1\n"


@pytest.mark.parametrize(("text", "before", "expected"), [
    (AMD, None, "5"), (AMD, "4", "4"), (AMD.replace(" avx2", ""), None, None),
    (AMD.replace("AuthenticAMD", "GenuineIntel"), None, None), (None, None, None)])
def test_mkl_is_told_on_amds_processors_with_avx2_alone(tmp_path, monkeypatch, text, before, expected):
    monkeypatch.setenv("MKL_DEBUG_CPU_TYPE", "whatever was there comes back after the test")
    monkeypatch.delenv("MKL_DEBUG_CPU_TYPE")
    if before:
        monkeypatch.setenv("MKL_DEBUG_CPU_TYPE", before)
    if text:
        (tmp_path / "cpuinfo").write_text(text)
    assert let_mkl_use_avx2(tmp_path / "cpuinfo") == (expected is not None)
    assert os.environ.get("MKL_DEBUG_CPU_TYPE") == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not confine processes to cores")
def test_cores_are_those_that_the_process_may_use():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
