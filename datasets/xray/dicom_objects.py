"""What a DICOM file holds, by its first bytes: an image of the body, or one of the other objects. No pydicom, no torch.

Beside images, the format has masks (SEG), outlines (RTSTRUCT), doses, reports (SR), presentation states (PR), PDFs, and
tables of contents (DICOMDIR). Exports have them in the same folders, under names that do not tell.
"""

from __future__ import annotations

import re
import struct

HEAD = 4096  # bytes of a file that are enough to find its kind
LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")  # PS3.5, 7.1.2
SOP_CLASSES = ((0x0002, 0x0002), (0x0008, 0x0016))  # in the meta header, in the data set
STORAGE = r"1\.2\.840\.10008\.5\.1\.4\.1\.1"
NO_IMAGE = re.compile(
    rf"{STORAGE}\.(?:8|9|10|11|30|66|67|68|78|79|80|82|88|90|104|200)(?:\.\d+)*"  # overlays, states, SEG, SR, PDF, ...
    rf"|{STORAGE}\.481\.(?!1$)\d+"  # all of radiotherapy but RT Image
    r"|1\.2\.840\.10008\.1\.3\.10"  # DICOMDIR
    r"|1\.2\.840\.10008\.5\.1\.4\.[34]\d(?:\.\d+)*"  # protocols, palettes, delivery instructions
    r"|1\.3\.12\.2\.1107\.5\.9\.1"  # Siemens' CSA Non-Image
)


SLICE = re.compile(rf"{STORAGE}\.(?:2|4|128|130)(?:\.\d+)*")  # CT, MR, PET


def is_dicom(head: bytes) -> bool:
    """Whether a file that begins with these bytes is DICOM: by its mark, or without one by the kind that it names."""
    return head[128:132] == b"DICM" or (sop_class(head) or "").startswith("1.2.840.10008.")


def has_no_image(uid: str | None) -> bool:
    """Whether objects of this SOP class hold no image of the body."""
    return uid is not None and NO_IMAGE.fullmatch(uid) is not None


def is_slice(uid: str | None) -> bool:
    """Whether objects of this SOP class are slices of a CT, MR or PET."""
    return uid is not None and SLICE.fullmatch(uid) is not None


def sop_class(head: bytes) -> str | None:
    """The SOP Class UID that a file begins with, with or without preamble and meta header; None if there is none.

    Little endian, with explicit or implicit VR, as PS3.10 has files and as those without a header are written.
    """
    position = 132 if head[128:132] == b"DICM" else 0
    while position + 12 <= len(head):
        tag = struct.unpack_from("<HH", head, position)
        if tag[0] not in (0x0002, 0x0008) or tag > SOP_CLASSES[1]:
            return None
        vr = head[position + 4 : position + 6]
        if vr in LONG:
            (length,) = struct.unpack_from("<I", head, position + 8)
            position += 12
        elif vr.isalpha() and vr.isupper():
            (length,) = struct.unpack_from("<H", head, position + 6)
            position += 8
        else:
            (length,) = struct.unpack_from("<I", head, position + 4)
            position += 8
        if tag in SOP_CLASSES:
            return head[position : position + length].decode("ascii", "replace").strip("\0 ")
        position += length
    return None
