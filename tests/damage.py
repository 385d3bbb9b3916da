"""Files as accidents and attackers leave them: bytes changed, lost, added, lengths that lie, brackets without end."""

import random
import struct

LENGTHS = (0, 1, 255, 2**31 - 1, 2**31, 2**32 - 1)
PIECES = (b"[", b"{", b"]", b"}", b'"', b"null", b"-1", b"1e999", b"NaN", b"\\", b"18446744073709551616", b"[" * 2000)


def damaged(content, rng):
    """``content`` after one to three accidents; ``rng``: a random.Random."""
    content = bytearray(content)
    for _ in range(rng.randrange(1, 4)):
        reach = min(len(content), rng.choice((16, 64, 400, len(content))))
        place = rng.randrange(reach) if reach else 0
        match rng.randrange(7):
            case 0 if content:
                content[place] ^= 1 << rng.randrange(8)
            case 1:
                del content[place:]
            case 2:
                del content[place : place + rng.randrange(1, 50)]
            case 3:
                content[place:place] = rng.randbytes(rng.randrange(1, 9))
            case 4:
                content[place:place] = rng.choice(PIECES)
            case 5 if len(content) > 8:
                content[place : place + 4] = struct.pack(">I", rng.choice(LENGTHS))
            case 6 if len(content) > 8:
                content[:8] = struct.pack("<Q", rng.choice(LENGTHS))
    return bytes(content)


def refusals(load, content, path, *, times=400):
    """The messages of the ValueErrors of ``load(path)`` for so many damaged files; other exceptions pass."""
    rng, messages = random.Random(0), []
    for _ in range(times):
        path.write_bytes(damaged(content, rng))
        try:
            load(path)
        except ValueError as error:
            messages.append(str(error))
    return messages
