"""Inputs of an ONNX file that another file holds: ``.npz``, or what Polygraphy wrote. Nothing is unpickled."""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from harness.errors import UsageError, first_line
from harness.files import check_is_content
from harness.graph.onnx_inputs import InputSpec, check_inputs
from harness.memory import available_bytes
from harness.settings import print_progress


def load_inputs(
    path: Path | str, specs: Sequence[InputSpec], *, say: Callable[[str], None] = print_progress
) -> dict[str, torch.Tensor]:
    """Read inputs from an .npz file or from what ``polygraphy run --save-inputs`` wrote, and check them.

    Polygraphy's file may be a list of iterations, or a folder of one file each; the first is used, and ``say`` is told
    so. Nothing is unpickled. Raises UsageError for a bad file and whatever :func:`check_inputs` raises.
    """
    inputs = load_tensors(path, say=say)
    check_inputs(inputs, specs)
    return inputs


def load_tensors(path: Path | str, *, say: Callable[[str], None] = print_progress) -> dict[str, torch.Tensor]:
    """Read what such a file holds, by name. Raises UsageError for a bad file."""
    path = Path(path)
    if not path.exists():
        raise UsageError(f"input file {path} does not exist; give an .npz file or Polygraphy's --save-inputs JSON")
    if path.is_dir():
        files = sorted(path.glob("*.json"))
        if not files:
            raise UsageError(f"input folder {path} holds no .json file; give what polygraphy --save-inputs wrote")
        if len(files) > 1:
            say(f"{path} holds {len(files)} iterations; the first is used")
        arrays = _read_json(files[0], say)
    else:
        check_is_content(path)
        arrays = _read_npz(path) if zipfile.is_zipfile(path) else _read_json(path, say)
    return {name: _tensor(array, f"{path}: {name!r}") for name, array in arrays.items()}


def _read_npz(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    try:
        _check_sizes(path)
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise UsageError(f"{path} cannot be read as .npz: {error}") from error
    return arrays


def _check_sizes(path: Path) -> None:
    """Raise ValueError for a member that is no array, or not one that can be read."""
    with zipfile.ZipFile(path) as archive:
        names = [member.filename.removesuffix(".npy") for member in archive.infolist()]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"{twice[0]!r} is in it twice; save it once")
        for member in archive.infolist():
            with archive.open(member) as file:
                _check_array(file, member.file_size, repr(member.filename.removesuffix(".npy")))


def _check_array(file: IO[bytes], size: int, name: str) -> None:
    """Raise ValueError for what is no .npy file of this size, holds objects, or is larger than the memory that is free.

    Nothing but the header is read.
    """
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    except (ValueError, tokenize.TokenError, RecursionError, MemoryError) as error:  # of a header that is no text
        raise ValueError(f"{name} in it is no array ({first_line(error)})") from error
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects, which are never unpickled; save it as numbers")
    claimed, held = math.prod(shape) * dtype.itemsize, size - file.tell()
    if claimed != held:
        raise ValueError(f"{name} claims {claimed} bytes and holds {held}")
    if claimed > (free := available_bytes()):
        raise ValueError(f"{name} has {claimed} bytes, and {free} are free")


def _read_json(path: Path, say: Callable[[str], None]) -> dict[str, np.ndarray[Any, Any]]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} is neither an .npz file nor JSON; give either as inputs") from error
    iterations = data if isinstance(data, list) else [data]
    if not iterations or not isinstance(iterations[0], dict):
        raise UsageError(f"{path} holds no inputs; give what polygraphy --save-inputs wrote")
    if len(iterations) > 1:
        say(f"{path} holds {len(iterations)} iterations; the first is used")
    return {name: _decode(item, f"{path}: input {name!r}") for name, item in iterations[0].items()}


def _decode(item: object, where: str) -> np.ndarray[Any, Any]:
    """Decode one array of Polygraphy's JSON: the base64 of a .npy file."""
    if isinstance(item, dict) and "tensor" in item:
        raise UsageError(f"{where} is a pickled torch tensor, which is never loaded; save the inputs as numpy arrays")
    if not isinstance(item, dict) or not isinstance(item.get("array"), str):
        raise UsageError(f"{where} is not an array as Polygraphy saves it")
    try:
        data = base64.b64decode(item["array"], validate=True)
        _check_array(io.BytesIO(data), len(data), "what is encoded")
        array: np.ndarray[Any, Any] = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError, binascii.Error) as error:
        raise UsageError(f"{where} cannot be decoded: {error}") from error
    return array


def _tensor(array: np.ndarray[Any, Any], where: str) -> torch.Tensor:
    try:
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))  # a copy, in this machine's byte order
    except TypeError as error:
        raise UsageError(f"{where} has dtype {array.dtype}, which PyTorch does not have; save it as numbers") from error
