"""Weights that an ONNX file keeps in other files: only files of the model's own folder are read.

A model is not trusted. Without these checks it could name any file of the machine as a weight, which would end up in
the engine cache and in reproducers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from harness.errors import UsageError
from harness.files import check_is_content
from harness.lazy import onnx_ir as ir


def check_external_data(model: ir.Model, path: Path) -> None:
    """Raise UsageError for a tensor of a model at ``path`` that lies outside its folder, or is not there as declared.

    A link may lead to a file beside the one that ``path`` itself leads to, as in the cache of a model hub.
    """
    for name, tensor, replace in _external_tensors(model):
        where = f"{path}: tensor {name!r} lies in {str(tensor.location)!r}"
        file = _inside(path, Path(tensor.location))
        if file is None:
            raise UsageError(
                f"{where}, which is outside the model's folder, so it is not read; copy the file there and save the "
                "model with its name"
            )
        if not file.exists():
            raise UsageError(f"{where}, which is missing; put it beside the model")
        if not file.is_file():
            raise UsageError(f"{where}, which is not a file; save the model again")
        check_is_content(file)
        _check_extent(tensor, where, file.stat().st_size)
        if file != Path(tensor.path).absolute():  # onnx_ir reads nothing through a link that leaves the folder
            tensor = ir.ExternalTensor(
                file.name, tensor.offset, tensor.length, tensor.dtype, shape=tensor.shape, name=name,
                base_dir=file.parent,
            )  # fmt: skip
            replace(tensor)
        try:
            tensor.numpy()
        except (OSError, ValueError, TypeError) as error:
            raise UsageError(f"{where}, which cannot be used: {error}") from error
        finally:
            tensor.release()


def _external_tensors(model: ir.Model) -> Iterator[tuple[str, ir.ExternalTensor, Callable[[ir.ExternalTensor], None]]]:
    """Yield every tensor in another file with its name and what puts another in its place."""
    for graph in (*model.graphs(), *(function.graph for function in model.functions.values())):
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                yield str(value.name), value.const_value, partial(setattr, value, "const_value")
        for node in graph:
            for key, attribute in list(node.attributes.items()):
                if isinstance(attribute.value, ir.ExternalTensor):
                    yield str(node.name), attribute.value, partial(_set_tensor, node, key)
                elif attribute.type == ir.AttributeType.TENSORS and any(
                    isinstance(one, ir.ExternalTensor) for one in attribute.value
                ):
                    raise UsageError(
                        f"node {node.name!r}: a list of tensors in other files is not read; store them in it"
                    )


def _set_tensor(node: ir.Node, key: str, tensor: ir.ExternalTensor) -> None:
    node.attributes[key] = ir.AttrTensor(key, tensor)


def _inside(model: Path, location: Path) -> Path | None:
    """Return the file that a location leads to, links followed; None where that is outside the model's folder."""
    if location.is_absolute() or ".." in location.parts or "\0" in str(location):
        return None
    file = (model.parent / location).resolve()
    folders = (model.parent.resolve(), model.resolve().parent)
    return file if any(file.is_relative_to(folder) for folder in folders) else None


def _check_extent(tensor: ir.ExternalTensor, where: str, size: int) -> None:
    """Raise UsageError where a tensor does not lie inside its file."""
    if any(not isinstance(dimension, int) or dimension < 0 for dimension in tensor.shape):
        raise UsageError(f"{where} with the shape {list(tensor.shape)}, which no tensor has; save the model again")
    offset, needed = tensor.offset or 0, tensor.nbytes
    length = needed if tensor.length is None else tensor.length
    if offset < 0 or length < needed:
        raise UsageError(
            f"{where} from byte {offset}, {length} bytes long, but needs {needed} bytes; save the model again"
        )
    if offset + needed > size:
        raise UsageError(
            f"{where} and ends there at byte {offset + needed}, but the file is truncated at byte {size}; copy it again"
        )
