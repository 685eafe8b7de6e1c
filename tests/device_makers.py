"""Files of devices, written by their formats, with a patient in them whom no output may know."""

import io
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

NAME, FIRST, BORN, NUMBER, SEEN = "MUELLER", "HANNELORE", "19500214", "PAT77012345", "20200817"
WHO = (NAME, FIRST, BORN, NUMBER, SEEN, "1950-02-14", "2020-08-17")
LARGEST = float(np.finfo(np.float32).max)


def ufloat16(values: np.ndarray) -> bytes:
    """Numbers with 6 bits of exponent and 10 of mantissa, as .E2E files hold them; exact for short fractions."""
    mantissa, exponent = np.frexp(np.maximum(values, 2.0**-62))
    return (((exponent - 1 + 63) << 10) | np.rint((2 * mantissa - 1) * 1024).astype(int)).astype("<u2").tobytes()


def e2e_part(series: int, number: int, kind: int, content: bytes) -> tuple:
    return (7, 8, series, number), kind, content


def e2e_b_scan(series: int, number: int, intensity: np.ndarray, lines: dict[int, np.ndarray], pattern: int = 2,
               place: int = 0, mm: float = 0.004, ends: tuple = (6, 0, 6, 0), centre: tuple = (0, 0),
               more: int = 5) -> list[tuple]:
    """The parts of a B-scan; before a line's values come 16 bytes and `more` numbers, as new files have and old not."""
    height, width = intensity.shape
    about = bytearray(428)
    struct.pack_into("<3I4f4xff", about, 0, 0, height, width, *ends, 1, mm)
    struct.pack_into("<4I2f", about, 60, width, 1, place, pattern, *centre)
    image = struct.pack("<5I", 2 * intensity.size, 35652097, intensity.size, height, width) + ufloat16(intensity)
    parts = [e2e_part(series, number, 10004, bytes(about)), e2e_part(series, number, 1073741824, image)]
    return parts + [e2e_part(series, number, 10019, struct.pack("<4I", 0, line, 0, width) + bytes(4 * more)
                             + rows.astype("<f4").tobytes()) for line, rows in lines.items()]


def e2e_bytes(parts: list[tuple], eye: str = "R", chunk: int = 512) -> bytes:
    """A whole .E2E file; `chunk` is how many parts a directory has."""
    patient = FIRST.encode().ljust(31, b"\0") + NAME.encode().ljust(66, b"\0") + struct.pack("<I", 1950)
    patient += b"F" + NUMBER.encode().ljust(25, b"\0") + SEEN.encode()
    every = [((7, -1, -1, -1), 9, patient), ((7, 8, 1, -1), 11, bytes(14) + eye.encode() + bytes(12)), *parts]
    head = b"CMDb".ljust(12, b"\0") + struct.pack("<I", 100) + b"\xff" * 20
    data, before = bytearray(head + bytes(52)), 0
    for first in range(0, len(every), chunk):
        some, here = every[first:first + chunk], len(data)
        directory, contents = bytearray(), bytearray()
        start = here + 52 + 44 * len(some)
        for number, (who, kind, content) in enumerate(some):
            place = start + len(contents)
            header = here + 52 + 44 * number
            directory += struct.pack("<4I4i2H2I", header, place, len(content), 0, *who, 1, 0, kind, 0)
            contents += b"MDbData".ljust(12, b"\0") + struct.pack("<5I4i2H2I", 0, header, place, len(content), 0, *who,
                                                                  1, 0, kind, 0) + content
        data += b"MDbDir".ljust(12, b"\0") + struct.pack("<I", 100) + b"\xff" * 20
        data += struct.pack("<4I", len(some), here, before, 0) + directory + contents
        before = here
    data[36:88] = b"MDbMDir".ljust(12, b"\0") + struct.pack("<I", 100) + b"\xff" * 20 + struct.pack("<4I", 512, before,
                                                                                                 0, 0)
    return bytes(data)


def topcon_bytes(chunks: dict[str, bytes] | Sequence[tuple[str, bytes]], kind: bytes = b"FDA") -> bytes:
    patient = NUMBER.encode().ljust(32, b"\0") + FIRST.encode().ljust(32, b"\0") + NAME.encode().ljust(40, b"\0")
    patient += struct.pack("<B3H", 1, 1950, 2, 14) + BORN.encode() + SEEN.encode()
    pairs = [("@PATIENT_INFO_02", patient), *(chunks.items() if isinstance(chunks, dict) else chunks)]
    return b"FOCT" + kind + bytes(8) + b"".join(bytes([len(name)]) + name.encode() + struct.pack("<I", len(content))
                                                + content for name, content in pairs) + b"\0"


def jpeg2000(b_scan: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(b_scan.astype(np.uint8)).save(file, "JPEG2000", irreversible=False)
    return file.getvalue()


def topcon_jpeg(image: np.ndarray, pattern: int = 2) -> bytes:
    slices = [jpeg2000(b_scan) for b_scan in image]
    return struct.pack("<B2I4I", pattern, 0, 0, image.shape[2], image.shape[1], len(image), 0xa02) + b"".join(
        struct.pack("<I", len(one)) + one for one in slices)


def topcon_raw(image: np.ndarray, pattern: int = 2, bits: int = 16) -> bytes:
    count, height, width = image.shape
    return struct.pack("<B4IBI", pattern, width, height, bits, count, 0, 2 * image.size) + image.astype("<u2").tobytes()


def topcon_scale(long: float = 6.0, broad: float = 4.0, um: float = 3.5) -> bytes:
    return struct.pack("<3I5d", 0, 0, 0, long, broad, um, 0, 0)


def topcon_line(name: str, stored: np.ndarray) -> bytes:
    """Rows from the bottom, (B-scans, W)."""
    return struct.pack("<20sH3I", name.encode(), 0, *stored.shape[::-1], 2 * stored.size) + stored.astype(
        "<u2").tobytes()


TOPCON_RIGHT, TOPCON_LEFT = (bytes([side, 2]) + bytes(104) + struct.pack("<6H", 2020, 8, 17, 9, 0, 0)
                             for side in (0, 1))


def write_xml(folder: Path, image: np.ndarray, ends: Sequence[Sequence[float]], lines: dict[str, np.ndarray],
              eye: str = "R", scale: tuple[float, float] = (0.004, 0.011)) -> Path:
    """HEYEX's XML export: (B-scans, H, W) greys as PNG beside it, start and end of each in mm, lines (B-scans, W)."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for number, (b_scan, (*start, x, y)) in enumerate(zip(image, ends, strict=True)):
        Image.fromarray(b_scan.astype(np.uint8)).save(folder / f"{number}.png")
        drawn = "".join(f"<SegLine><Name>{name}</Name><Array>{' '.join(map(str, line[number]))}</Array></SegLine>"
                        for name, line in lines.items())
        parts.append(f"<Image><ID>{number}</ID><ImageType><Type>OCT</Type></ImageType><OphthalmicAcquisitionContext>"
                     f"<Width>{image.shape[2]}</Width><Height>{image.shape[1]}</Height><ScaleX>{scale[1]}</ScaleX>"
                     f"<ScaleY>{scale[0]}</ScaleY><Start><Coord><X>{start[0]}</X><Y>{start[1]}</Y></Coord></Start>"
                     f"<End><Coord><X>{x}</X><Y>{y}</Y></Coord></End></OphthalmicAcquisitionContext><ImageData><ExamURL>"
                     f"C:\\export\\{number}.png</ExamURL></ImageData><Segmentation>{drawn}</Segmentation></Image>")
    path = folder / "export.xml"
    path.write_text(f"<HEDX><BODY><Patient><LastName>{NAME}</LastName><FirstNames>{FIRST}</FirstNames><Birthdate><Date>"
                    f"{BORN}</Date></Birthdate><PatientID>{NUMBER}</PatientID><Study><StudyDate><Date>{SEEN}</Date>"
                    f"</StudyDate><Series><Laterality>{eye}</Laterality>{''.join(parts)}</Series></Study></Patient>"
                    "</BODY></HEDX>", encoding="utf-8")
    return path


def write_dicom(path: Path, image: np.ndarray, bits: int = 8, spacing: Sequence[float] = (0.004, 0.011),
                step: float | None = 0.12, eye: str = "L", points: Sequence[float] = (), **changed: object) -> Path:
    """An Ophthalmic Tomography Image of (frames, H, W); `points` are where its first frame lies on the fundus."""
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, OphthalmicTomographyImageStorage

    def one(**elements: object) -> Dataset:
        made = Dataset()
        for name, value in elements.items():
            setattr(made, name, value)
        return made

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = OphthalmicTomographyImageStorage, "1.2.3"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    frames = []
    for number in range(len(image)):
        frame = one(FrameContentSequence=[one(FrameAcquisitionDateTime=SEEN + "090000", FrameComments=NAME)],
                    FrameAnatomySequence=[one(FrameLaterality=eye)])
        if step:
            frame.PlanePositionSequence = [one(ImagePositionPatient=[0, 0, step * number])]
        if len(points):
            frame.OphthalmicFrameLocationSequence = [one(
                ReferenceCoordinates=list(points), OphthalmicImageOrientation="LINEAR" if len(points) == 4 else
                "NONLINEAR")]
        frames.append(frame)
    values = {
        "SOPClassUID": OphthalmicTomographyImageStorage, "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "PatientName": f"{NAME}^{FIRST}", "PatientID": NUMBER, "PatientBirthDate": BORN, "StudyDate": SEEN,
        "ImageComments": NAME, "Modality": "OPT", "Manufacturer": "Maker", "Rows": image.shape[1],
        "Columns": image.shape[2], "NumberOfFrames": len(image), "SamplesPerPixel": 1, "PixelRepresentation": 0,
        "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 8 if bits == 8 else 16, "BitsStored": bits,
        "HighBit": bits - 1, "SharedFunctionalGroupsSequence": [one(PixelMeasuresSequence=[one(
            PixelSpacing=list(spacing))])], "PerFrameFunctionalGroupsSequence": frames,
        "PixelData": image.astype(np.uint8 if bits == 8 else "<u2").tobytes()}
    for name, value in (values | changed).items():
        setattr(made, name, value)
    made.save_as(path, enforce_file_format=True)
    return path
