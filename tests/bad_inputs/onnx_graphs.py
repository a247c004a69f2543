"""Graphs of ONNX files: cyclic, dangling, of a foreign domain, of sizes that no tensor has."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from bad_inputs.row import VERIFY, Make, Row, model

WEIGHT = "g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { y = Add(x, w) }"


def opsets(versions: dict[str, int]) -> Make:
    """Return what writes a model that imports these opsets."""

    def change(proto: onnx.ModelProto) -> None:
        del proto.opset_import[:]
        for domain, version in versions.items():
            proto.opset_import.add(domain=domain, version=version)

    return model(change=change)


def sizes(size: int) -> Make:
    """Return what writes a model whose input declares this size."""

    def change(proto: onnx.ModelProto) -> None:
        for value in (*proto.graph.input, *proto.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = size

    return model(change=change)


def weight(**fields: int | list[int]) -> Make:
    """Return what writes a model whose weight has these fields."""

    def change(proto: onnx.ModelProto) -> None:
        (tensor,) = proto.graph.initializer
        for name, value in fields.items():
            if isinstance(value, list):
                del getattr(tensor, name)[:]
                getattr(tensor, name).extend(value)
            else:
                setattr(tensor, name, value)

    return model(WEIGHT, change)


def put_nan(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].float_data[0] = float("nan")


def functions(*texts: str) -> Make:
    """Return what writes a model that calls ``f``, one of these functions."""
    opsets = '<domain: "own", opset_import: ["" : 18, "own" : 1]>'
    return model(
        "g (float[2] x) => (float[2] y) { y = own.f(x) } " + " ".join(f"{opsets} {text}" for text in texts),
        head='<ir_version: 9, opset_import: ["" : 18, "own" : 1]>',
    )


def renamed(name: str) -> Callable[[onnx.ModelProto], None]:
    """Return what gives the output another name."""

    def change(proto: onnx.ModelProto) -> None:
        proto.graph.output[0].name = proto.graph.node[-1].output[0] = name

    return change


ROWS = (
    Row("cycle", model("g (float[2] x) => (float[2] y) { a = Add(x, b) b = Exp(a) y = Add(a, b) }"), VERIFY, 2, ("m.onnx", "cycle", "Add")),
    Row("cycle of one node", model("g (float[2] x) => (float[2] y) { y = Add(x, y) }"), VERIFY, 2, ("cycle", "Add")),
    Row("dangling input of a node", model("g (float[2] x) => (float[2] y) { y = Add(x, z) }"), VERIFY, 2, ("'z'", "nothing computes")),
    Row("dangling output", model("g (float[2] x) => (float[2] y) { z = Exp(x) }"), VERIFY, 2, ("'y'", "nothing")),
    Row("one value computed twice", model("g (float[2] x) => (float[2] y) { y = Exp(x) y = Neg(x) }"), VERIFY, 2, ("m.onnx", "'y'", "redeclared")),
    Row("domain without an opset", model("g (float[2] x) => (float[2] y) { y = com.foo.Bar(x) }"), VERIFY, 2, ("'com.foo'", "Bar", "opset")),
    Row("input of strings", model("g (string[2] x) => (string[2] y) { y = Identity(x) }"), VERIFY, 2, ("'x'", "numbers")),
    Row("cycle through a body", model("g (bool c, float[2] x) => (float[2] y) { y = If (c) <then_branch = t () => (float[2] z) { z = Neg(y) }, else_branch = e () => (float[2] w) { w = Neg(x) }> }"), VERIFY, 2, ("If", "cycle")),
    Row("dangling input in a body", model("g (bool c, float[2] x) => (float[2] y) { y = If (c) <then_branch = t () => (float[2] z) { z = Neg(q) }, else_branch = e () => (float[2] w) { w = Neg(x) }> }"), VERIFY, 2, ("'q'", "nothing computes")),
    Row("opset 0", opsets({"": 0}), VERIFY, 2, ("opset 0", "'ai.onnx'")),
    Row("opset below 0", opsets({"": -1}), VERIFY, 2, ("opset -1", "'ai.onnx'")),
    Row("opset that is not known", opsets({"": 999}), VERIFY, 3, ("999",)),
    Row("no opset", opsets({}), VERIFY, 2, ("m.onnx", "opset")),
    Row("opset of a function that is another", model("g (float[2] x) => (float[2] y) { y = own.f(x) } <domain: \"own\", opset_import: [\"\" : 17]> f (a) => (b) { b = Exp(a) }", head='<ir_version: 9, opset_import: ["" : 18, "own" : 1]>'), VERIFY, 2, ("function 'f'", "opset 17", "opset 18")),
    Row("function that is not there", model("g (float[2] x) => (float[2] y) { y = own.f(x) }", head='<ir_version: 9, opset_import: ["" : 18, "own" : 1]>'), VERIFY, 3, ("own",)),
    Row("operator that is none", model("g (float[2] x) => (float[2] y) { y = Rellu(x) }"), VERIFY, 3, ("Rellu",)),
    Row("attribute of another kind", model("g (float[2] x) => (float[2] y) { y = Softmax <axis: float = 1.0> (x) }"), VERIFY, 2, ("'axis'", "FLOAT", "INT")),
    Row("attribute that is missing", model("g (float[2] x) => (float[2] y) { y = Cast(x) }"), VERIFY, 2, ("Cast", "'to'")),
    Row("input that is missing", model("g (float[2] x) => (float[2] y) { y = Add(x) }"), VERIFY, 2, ("Add", "1 inputs", "2")),
    Row("input that is left out", model("g (float[2] x) => (float[2] y) { y = Add(, x) }"), VERIFY, 2, ("Add", "'A'")),
    Row("inputs too many", model("g (float[2] x) => (float[2] y) { y = Exp(x, x) }"), VERIFY, 2, ("Exp", "2 inputs")),
    Row("outputs too many", model("g (float[2] x) => (float[2] y) { y, z = Exp(x) }"), VERIFY, 2, ("Exp", "2 outputs")),
    Row("cast to a type that is none", model("g (float[2] x) => (float[2] y) { y = Cast <to: int = 99> (x) }"), VERIFY, 2, ("'to'", "Cast", "99", "no type")),
    Row("shapes that do not fit", model("g (float[2] x, float[3] z) => (float[2] y) { y = Add(x, z) }"), VERIFY, 3, ("2", "3")),
    Row("types that do not fit", model("g (float[2] x, int64[2] z) => (float[2] y) { y = Add(x, z) }"), VERIFY, 3, ("y",)),
    Row("negative size of an input", sizes(-2), VERIFY, 2, ("'x'", "--shape")),
    Row("size 0 of an input", sizes(0), VERIFY, 3, ("y", "every output is empty", "nothing was compared")),
    Row("10^12 elements", sizes(10**12), VERIFY, 2, ("'x'", "[1000000000000]", "too large", "bytes")),
    Row("2^63 elements", sizes(2**63 - 1), VERIFY, 2, ("'x'", "too large")),
    Row("another size than that declared", model("g (float[2] x) => (float[3] y) { y = Relu(x) }"), VERIFY, 0, ("'y' is declared [3]", "[2]")),
    Row("output of a sequence", model("g (float[2] x) => (seq(float[2]) y) { y = SequenceConstruct(x) }"), VERIFY, 3, ("'y'", "not a tensor")),
    Row("output of strings", model("g (float[2] x) => (string[2] y) { y = Cast <to: int = 8> (x) }"), VERIFY, 3, ("'y'", "numbers")),
    Row("complex input", model("g (complex64[2] x) => (complex64[2] y) { y = Identity(x) }"), VERIFY, 2, ("'x'", "complex64")),
    Row("no input", model("g () => (float[2] y) <float[2] w = {1, 2}> { y = Exp(w) }"), VERIFY, 0, ("1 passed",)),
    Row("no output", model("g (float[2] x) => () { z = Exp(x) }"), VERIFY, 2, ("m.onnx", "output")),
    Row("no node", model("g (float[2] x) => (float[2] y) { }"), VERIFY, 2, ("'y'",)),
    Row("weight of NaN", model("g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { y = Add(x, w) }", put_nan), VERIFY, 3, ("NaN",)),
    Row("weight of a negative size", weight(dims=[-2]), VERIFY, 2, ("'w'", "[-2]")),
    Row("weight of a terabyte", weight(dims=[2**38]), VERIFY, 2, ("'w'", "[274877906944]")),
    Row("weight of other bytes", weight(dims=[3]), VERIFY, 2, ("'w'", "[3]", "bytes")),
    Row("weight of a type that is none", weight(data_type=99), VERIFY, 2, ("m.onnx", "99")),
    Row("terabytes of a constant shape", model("g (float[1] x) => (float[m] y) <int64[1] s = {1000000000000}> { c = ConstantOfShape(s) y = Add(c, x) }"), VERIFY, 3, ("'c'", "[1000000000000]", "4,000,000,000,000 bytes")),
    Row("terabytes by Expand", model("g (float[1] x) => (float[m] y) <int64[1] s = {1000000000000}> { c = Expand(x, s) y = Exp(c) }"), VERIFY, 3, ("'c'", "[1000000000000]", "4,000,000,000,000 bytes")),
    Row("terabytes by Tile", model("g (float[1] x) => (float[m] y) <int64[1] s = {1000000000000}> { c = Tile(x, s) y = Exp(c) }"), VERIFY, 3, ("'c'", "[1000000000000]", "4,000,000,000,000 bytes")),
    Row("terabytes by Pad", model("g (float[1] x) => (float[m] y) <int64[2] s = {0, 999999999999}> { c = Pad(x, s) y = Exp(c) }"), VERIFY, 3, ("'c'", "[1000000000000]", "4,000,000,000,000 bytes")),
    Row("range to 10^12", model("g (float[1] x) => (float[m] y) <int64 a = {0}, int64 b = {1000000000000}, int64 s = {1}> { c = Range(a, b, s) d = Cast<to: int = 1>(c) y = Add(d, x) }"), VERIFY, 3, ("Range", "1,000,000,000,000 numbers", "bytes")),
    Row("random operator", model("g (float[2] x) => (float[2] y) { r = RandomNormalLike(x) y = Add(x, r) }"), VERIFY, 3, ("random", "--seed-random")),
    Row("open dimension", model("g (float[n, 2] x) => (float[n, 2] y) { y = Relu(x) }"), VERIFY, 2, ("'n'", "--shape x=2,2")),
    Row("function that calls itself", functions("f (a) => (b) { b = own.f(a) }"), VERIFY, 2, ("'f'", "calls itself")),
    Row("functions that call each other", functions("f (a) => (b) { b = own.h(a) }", "h (a) => (b) { b = own.f(a) }"), VERIFY, 2, ("'f'", "calls itself")),
    Row("functions that double forty times", functions(*(f"f{i or ''} (a) => (b) {{ c = own.f{i + 1}(a) b = own.f{i + 1}(c) }}" for i in range(40)), "f40 (a) => (b) { b = Exp(a) }"), VERIFY, 2, ("1,099,511,627,776 nodes",)),
    Row("resize to 10^18 elements", model('g (float[1, 1, 2, 2] x) => (float[a, b, c, d] y) <float[4] s = {1, 1, 1000000000, 1000000000}> { y = Resize <mode: string = "nearest"> (x, , s) }'), VERIFY, 3, ("[1, 1, 2000000000, 2000000000]", "bytes")),
    Row("one-hot of 10^12", model("g (int64[2] x) => (float[a, b] y) <int64 d = {1000000000000}, float[2] v = {0, 1}> { y = OneHot(x, d, v) }"), VERIFY, 3, ("bytes", "free")),
    Row("reshape beyond 64 bits", model("g (float[2] x) => (float[m] y) <int64[2] s = {4611686018427387904, 4}> { y = Reshape(x, s) }"), VERIFY, 3, ("Reshape",)),
    Row("operator without a name", model("g (float[2] x) => (float[2] y) { y = Relu(x) }", lambda proto: setattr(proto.graph.node[0], "op_type", "")), VERIFY, 3, ("y",)),
    Row("two inputs of one name", model("g (float[2] x) => (float[2] y) { y = Relu(x) }", lambda proto: proto.graph.input.add().CopyFrom(proto.graph.input[0])), VERIFY, 3, ("x",)),
    Row("input without a type", model("g (float[2] x) => (float[2] y) { y = Relu(x) }", lambda proto: proto.graph.input[0].ClearField("type")), VERIFY, 2, ("'x'", "not a tensor of numbers")),
    Row("optional input", model("g (optional(float[2]) x) => (float[2] y) { y = OptionalGetElement(x) }"), VERIFY, 2, ("'x'", "not a tensor of numbers")),
    Row("outputs that differ in their case alone", model("g (float[2] x) => (float[2] Y, float[2] y) { Y = Relu(x) y = Neg(x) }"), VERIFY, 0, ("Y", "1 passed")),
    Row("metadata that is code", model("g (float[2] x) => (float[2] y) { y = Relu(x) }", lambda proto: proto.graph.node[0].metadata_props.add(key="pkg.torch.onnx.name_scopes", value="[open('owned', 'w')]")), VERIFY, 0, ("1 passed",)),
    Row("escapes in a name", model("g (float[2] x) => (float[2] y) { y = Relu(x) }", renamed("\x1b[31mred\r\n1 passed")), VERIFY, 0, ("\\u001b[31mred", "1 passed")),
    Row("name of 300 letters", model("g (float[2] x) => (float[2] y) { y = Relu(x) }", renamed("n" * 300)), VERIFY, 0, ("1 passed",)),
)  # fmt: skip
