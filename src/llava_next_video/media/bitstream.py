"""What a packet says of itself."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Family = Literal["h264", "hevc", "mpeg4"]

_SLICE, _IDR_SLICE, _SEI, _DELIMITER, _FILLER = 1, 5, 6, 9, 12
_RECOVERY_POINT = 6
_HEVC_BESIDE = {35, 38, 39, 40}
_B_VOP = 2
# Recovery points stand in the first bytes of a unit; the rest of it need not be copied.
_MOST_HEADER = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Bitstream:
    """How to read a stream's packets; `length_width` is None where start codes divide them."""

    family: Family
    length_width: int | None
    layers: int

    @classmethod
    def of(cls, codec: str, extradata: bytes | None) -> "Bitstream | None":
        """The reader for a codec, or None for one that we do not look into."""
        extradata = extradata or b""
        if codec == "h264":
            lengths = len(extradata) > 4 and extradata[0] == 1
            return cls(family="h264", length_width=(extradata[4] & 3) + 1 if lengths else None, layers=1)
        if codec == "hevc":
            lengths = len(extradata) > 21 and extradata[0] == 1
            # Without a count of temporal layers (0) no packet is known to be in the topmost.
            layers = (extradata[21] >> 3) & 7 if lengths else 0
            return cls(
                family="hevc", length_width=(extradata[21] & 3) + 1 if lengths else None, layers=layers
            )
        return cls(family="mpeg4", length_width=None, layers=1) if codec == "mpeg4" else None

    def starts_clean(self, packet: bytes) -> bool:
        """Whether all frames shown from this key packet on are whole if decoding starts here.

        In H.264 that is an IDR picture, or a recovery point that says "at once": streams with gradual
        intra refresh call a picture a key frame that is mended only many frames later.

        Source: ITU-T H.264, 7.4.1.2.4 and D.2.8 (recovery_frame_cnt).
        """
        if self.family != "h264":
            return True
        for unit in self._units(packet):
            kind = unit[0] & 31
            if kind == _IDR_SLICE or (kind == _SEI and _recovers_at_once(unit)):
                return True
            if kind == _SLICE:
                return False
        return False

    def is_leaf(self, packet: bytes) -> bool:
        """Whether the decoder can do without this packet: no frame leans on it, and it sets nothing up.

        Source: ITU-T H.264, 7.4.1 (nal_ref_idc); H.265, table 7-1 (sub-layer non-reference pictures, on
        which higher layers may still lean); MPEG-4 part 2, table 6-20 (vop_coding_type).
        """
        if self.family == "mpeg4":
            vop = packet.find(b"\0\0\1\xb6")
            return vop == 0 and len(packet) > 4 and packet[4] >> 6 == _B_VOP
        pictures = 0
        for unit in self._units(packet):
            if self.family == "h264":
                kind = unit[0] & 31
                leaf, beside = kind == _SLICE and not unit[0] & 0x60, kind in (_SEI, _DELIMITER, _FILLER)
            else:
                kind = (unit[0] >> 1) & 63
                top = len(unit) > 1 and (unit[1] & 7) == self.layers
                leaf, beside = kind < 16 and kind % 2 == 0 and top, kind in _HEVC_BESIDE
            if not (leaf or beside):
                return False
            pictures += leaf
        return pictures > 0

    def _units(self, packet: bytes) -> Iterator[bytes]:
        """The first bytes of each NAL unit, enough for its header and messages."""
        if self.length_width is None:
            yield from (unit for unit in packet.split(b"\0\0\1")[1:] if unit)
            return
        at = self.length_width
        while at < len(packet):
            size = int.from_bytes(packet[at - self.length_width : at], "big")
            if size:
                yield packet[at : at + min(size, _MOST_HEADER)]
            at += size + self.length_width


def _recovers_at_once(unit: bytes) -> bool:
    # Bytes that only keep start codes out of the data.
    data = unit[1:].replace(b"\0\0\3", b"\0\0")
    at = 0
    while at + 2 < len(data):
        kind, at = _sum_of_bytes(data, at)
        size, at = _sum_of_bytes(data, at)
        if kind == _RECOVERY_POINT and at < len(data):
            # recovery_frame_cnt in exponential Golomb code: a leading one is 0.
            return bool(data[at] & 0x80)
        at += size
    return False


def _sum_of_bytes(data: bytes, at: int) -> tuple[int, int]:
    """A number written as many 255s and a rest, and where it ends."""
    total = 0
    while at < len(data) and data[at] == 255:
        total, at = total + 255, at + 1
    return (total + data[at], at + 1) if at < len(data) else (total, at)
