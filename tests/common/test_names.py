import pytest
from pydantic import TypeAdapter, ValidationError

from octkit.common.names import CaseName, Inside, Name


def taken(kind, name):
    try:
        return TypeAdapter(kind).validate_python(name) == name
    except ValidationError:
        return False


@pytest.mark.parametrize(("name", "kinds"), [
    ("2d", {"Inside", "CaseName", "Name"}), ("3d_fullres_bs-8", {"Inside", "CaseName", "Name"}),
    ("病例 1.a", {"Inside", "CaseName"}), ("...", {"Inside", "CaseName"}), ("=1", {"Inside", "CaseName"}),
    ("figures/01.png", {"Inside"}), ("a\\b", {"CaseName"}),
    *((name, set()) for name in ("", ".", "..", "/", "/etc/passwd", "../a", "a/../../b", "a/..", "a\0b"))])
def test_which_names_lead_nowhere(name, kinds):
    assert {kind for kind, what in (("Inside", Inside), ("CaseName", CaseName), ("Name", Name))
            if taken(what, name)} == kinds
