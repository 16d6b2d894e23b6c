"""Sounds that are a row of frames, each with a head of its own: MP3 and AAC in ADTS."""

from __future__ import annotations

from ai_proxy_mw.schema.sniffing.source import Source

# ISO/IEC 11172-3, section 2.4.2.3, and 13818-3: kbit/s by index for layer III of MPEG-1, and of
# MPEG-2 and 2.5. Index 0 (of any rate) and 15 are not taken: nothing could be checked.
_MPEG1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0)
_MPEG2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0)
_RATES = (44_100, 48_000, 32_000)

# By version, as it stands in the head: the part of those rates, and samples / 8 in a frame.
_VERSIONS = {3: (1, 144, _MPEG1), 2: (2, 72, _MPEG2), 0: (4, 72, _MPEG2)}

# ISO/IEC 13818-7, section 6.2.1: 13 rates are known.
_ADTS_RATES = 13


def is_mp3(source: Source, start: int) -> bool:
    """Whether a frame of layer III begins there, and another where it ends, if that is there."""
    length = _mp3_length(source.slice(start, start + 4))
    if not length:
        return False
    following = source.slice(start + length, start + length + 4)
    return len(following) < 4 or _mp3_length(following) > 0 or _is_tag(following)


def is_adts(source: Source, start: int) -> bool:
    """Whether a frame of ADTS begins there, and another where it ends, if that is there."""
    length = _adts_length(source.slice(start, start + 7))
    if not length:
        return False
    following = source.slice(start + length, start + length + 7)
    return len(following) < 7 or _adts_length(following) > 0 or _is_tag(following)


def _mp3_length(head: bytes) -> int:
    """Bytes of the frame with that head; 0 where it is none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return 0
    version = _VERSIONS.get(head[1] >> 3 & 3)
    rate = head[2] >> 2 & 3
    if version is None or rate == 3:
        return 0
    part, samples, bit_rates = version
    padding = head[2] >> 1 & 1
    kbit = bit_rates[head[2] >> 4]
    return samples * kbit * 1000 * part // _RATES[rate] + padding if kbit else 0


def _adts_length(head: bytes) -> int:
    """Bytes of the frame with that head; 0 where it is none."""
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0:
        return 0
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return length if length >= 7 and (head[2] >> 2 & 15) < _ADTS_RATES else 0


def _is_tag(following: bytes) -> bool:
    """Behind the last frame there may be a tag (ID3v1, APEv2)."""
    return following[:3] in (b"TAG", b"APE")
