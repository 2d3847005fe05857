"""How much of a clip or picture we are willing to touch."""

from dataclasses import dataclass, fields

from llava_next_video.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Ceilings that stop decompression bombs; the defaults let every honest clip through.

    `bytes` bounds the source, `pixels` one picture or frame, `frames` the packets or frames walked,
    `duration_s` the clip, and `kept_bytes` the RGB frames that are handed back.
    """

    bytes: int = 4 << 30
    pixels: int = 64_000_000
    frames: int = 2_000_000
    duration_s: float | int = 24 * 3600.0
    kept_bytes: int = 8 << 30

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ConfigError(f"limit {field.name}={value} was given; expected a positive number")
