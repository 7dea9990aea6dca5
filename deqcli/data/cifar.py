"""The binary version of CIFAR-10: batches of records, each a label and 32 x 32 red, then green, then blue bytes.

Source: Krizhevsky, Learning multiple layers of features from tiny images, 2009.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from deqcli.data.image_files import MOST_BYTES, reason, take, unpacking
from deqcli.data.pictures import Pictures, checked
from deqcli.errors import Refused

BATCHES = {"train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test": ("test_batch.bin",)}
SHAPE = (3, 32, 32)
RECORD = 3073


def members(path: Path, content: bytes, names: Sequence[str]) -> dict[str, bytes]:
    """Files of a tar.gz archive by the last part of their names, each beside where it stands; nothing is written.

    Raises: Refused where the archive is damaged, or one is not in it.
    """
    unpacked = take(path, unpacking(path, content), MOST_BYTES + 1)
    if len(unpacked) > MOST_BYTES:
        raise Refused(f"{path}: unpacks to more than {MOST_BYTES} bytes; no more are read")
    try:
        with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as archive:
            regular = [each for each in archive if each.isreg() and not each.issparse()]
            found = {PurePosixPath(each.name).name: each for each in regular}
            files = {name: archive.extractfile(found[name]) for name in names if name in found}
            read = {name: file.read() for name, file in files.items() if file is not None}
    except Exception as error:  # tarfile documents no set of what a damaged archive raises
        raise Refused(f"{path}: not a whole tar archive ({reason(error)})") from None
    if twice := [name for name in names if sum(PurePosixPath(each.name).name == name for each in regular) > 1]:
        raise Refused(f"{path}: has {twice[0]} twice")
    if absent := [name for name in names if name not in read]:
        raise Refused(f"{path}: has no {absent[0]}; CIFAR-10's binary version has {', '.join(names)}")
    return {f"{path}: {name}": read[name] for name in names}


def read_cifar(batches: dict[str, bytes]) -> Pictures:
    """The pictures of batches, by where these stand, one after the other.

    Raises: Refused where a batch is no whole number of records, or a label none of 0 to 9.
    """
    import numpy as np

    parts = [_records(where, content) for where, content in batches.items()]
    return Pictures(np.concatenate([part.pixels for part in parts]), np.concatenate([part.classes for part in parts]))


def _records(where: str, content: bytes) -> Pictures:
    import numpy as np

    if not content or len(content) % RECORD:
        raise Refused(
            f"{where}: has {len(content)} bytes, must be a multiple of {RECORD}, a label and 3 x 32 x 32 pixels"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    return checked(where, records[:, 1:].reshape(-1, *SHAPE), records[:, 0])
