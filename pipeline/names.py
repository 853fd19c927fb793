"""How names are compared: their bytes stay as they are, and those that look alike are one name."""

from __future__ import annotations

import re
import unicodedata

# What shows nothing: blanks of no width, marks of byte order and of the direction of writing, soft hyphens. Joiners are
# none of them, as they change what is seen of emoji and of Persian words.
_UNSEEN = re.compile("[\u00ad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
_BLANK = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")


def looks(name: str) -> str:
    """A name as it looks: letters with their accents (Unicode's NFC), every blank a plain one, and nothing unseen."""
    if name.isascii():
        return name
    return _BLANK.sub(" ", _UNSEEN.sub("", unicodedata.normalize("NFC", name)))


def is_text(name: str) -> bool:
    """Whether no byte of a file's name was smuggled in that stands for no letter, nor a NUL; no text file or path could
    hold it."""
    return name.isascii() and "\0" not in name or not any(sign == "\0" or "\ud800" <= sign <= "\udfff" for sign in name)
