"""Heidelberg's .vol files, written by their format."""

import struct
from pathlib import Path

import numpy as np

LARGEST = np.finfo(np.float32).max  # the device's "nothing here"
NAME, BORN, SEEN, NUMBER = b"MUELLER-1950", 18263.5, 132537600000000000, 77012345
WHO = {"exam_time": (88, "<Q", SEEN), "id": (104, "16s", NAME), "reference_id": (120, "16s", NAME),
       "pid": (136, "<I", NUMBER), "patient_id": (140, "24s", NAME), "dob": (164, "<d", BORN),
       "vid": (172, "<I", NUMBER), "visit_id": (176, "24s", NAME), "visit_date": (200, "<d", BORN),
       "prog_id": (224, "34s", NAME)}


def vol_bytes(intensity: np.ndarray, lines: list[np.ndarray], pattern: int = 2, eye: bytes = b"OD",
              scale: tuple[float, float, float] = (0.12, 0.004, 0.011)) -> bytes:
    """A .vol file by its format: intensity (B-scans, H, W), of each line (B-scans, W); a fundus photo of 2 x 3 px."""
    b_scans, height, width = intensity.shape
    b_scan_header = 256 + 4 * len(lines) * width + 20  # some spare bytes, as files have
    header = bytearray(2048)
    struct.pack_into("<12s3I", header, 0, b"HSF-OCT-103", width, b_scans, height)
    struct.pack_into("<3d", header, 24, scale[2], scale[0], scale[1])
    struct.pack_into("<2I2d", header, 48, 3, 2, 0.01, 0.01)
    struct.pack_into("<4s", header, 84, eye)
    struct.pack_into("<iI", header, 96, pattern, b_scan_header)
    for offset, kind, value in WHO.values():
        struct.pack_into(kind, header, offset, value)
    parts = [bytes(header), bytes(range(6))]
    for number in range(b_scans):
        part = bytearray(b_scan_header)
        struct.pack_into("<12sI", part, 0, b"HSF-BS-103", b_scan_header)
        struct.pack_into("<2I", part, 48, len(lines), 256)
        vectors = np.stack([line[number] for line in lines]).astype("<f4") if lines else np.zeros((0, width), "<f4")
        part[256:256 + vectors.nbytes] = vectors.tobytes()
        parts += [bytes(part), intensity[number].astype("<f4").tobytes()]
    return b"".join(parts)


# Fourth roots: 0, 0.2, 0.5, 1; then what was not measured.
INTENSITY = np.array([[0, 0.2**4, 0.5**4], [1, LARGEST, 0.5**4], [0, 0, 1], [1, 1, 0]])[None]
GREYS = [[0, 51, 128], [255, 0, 128], [0, 0, 255], [255, 255, 0]]
ILM, BM, RNFL = np.array([[0.25, 1, LARGEST]]), np.array([[3.5, 3.5, 3.5]]), np.array([[2, 2.5, 2.5]])


def write_vol(path: Path, *arguments, **more) -> Path:
    path.write_bytes(vol_bytes(*arguments, **more))
    return path
