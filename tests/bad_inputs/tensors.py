"""What nested outputs and inputs hold that is no tensor, tensors of other kinds, weights that are none, and a state."""

from __future__ import annotations

from bad_inputs.row import VERIFY, Make, Row, model, suite

NET = """
import dataclasses, math
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(4, 2)
        self.register_buffer('count', torch.zeros(2))
    def forward(self, input):
        y = self.fc(input)
        {lines}
def build():
    net = Net()
    {change}
    return net.eval()
"""


def net(lines: str, change: str = "pass") -> Make:
    """Return what writes a suite of a layer whose ``forward`` goes on with these lines, ``y`` being its result.

    ``change`` is done to the module ``net`` that is built.
    """
    return suite(NET.format(lines=lines, change=change), build="build")


def returned(expression: str) -> Make:
    return net(f"return {expression}")


def weights(change: str) -> Make:
    return net("return y", change)


def given(expression: str, lines: str = "return y") -> Make:
    return suite(NET.format(lines=lines, change="pass"), build="build", cases=f"{{'one': lambda: {expression}}}")


NO_TENSORS: dict[str, tuple[Make, tuple[str, ...]]] = {
    "a number beside a tensor": (returned("{'y': y, 'n': {'m': 3}}"), ("'n.m'", "int")),
    "a number out of a tensor": (returned("[y, y.sum().item()]"), ("'output_1'", "float")),
    "a boolean": (returned("(y, [True])"), ("'output_1.0'", "bool")),
    "a shape": (returned("{'y': y, 's': y.shape}"), ("'s.0'", "int")),
    "text": (returned("{'y': [y, 'label']}"), ("'y.1'", "str")),
    "an object": (returned("{'y': y, 'o': object()}"), ("'o'", "object")),
    "a set": (returned("{'y': {y}}"), ("'y'", "set")),
    "a generator": (returned("(t for t in [y])"), ("'output'", "generator")),
    "two paths of one name": (returned("{'a.b': y, 'a': {'b': 2 * y}}"), ("'a.b'", "rename")),
    "a name that is taken": (returned("{'input': y, 'output.input': 2 * y}"), ("'output.input'", "rename")),
    "an output without a name": (returned("{'': y}"), ("output", "no name")),
    "a list in itself": (net("a = [y]; a.append(a); return a"), ("'output_1'", "itself")),
    "a case that gives a number in a list": (given("{'input': [torch.ones(2, 4), 1]}"), ("'one'", "'input.1'", "int")),
    "cases of other structures": (
        suite(cases="{'one': lambda: {'input': torch.ones(2, 4)}, 'two': lambda: {'input': [torch.ones(2, 4)]}}"),
        ("'one'", "'two'", "'input'"),
    ),
    "a case of another structure": (
        suite(
            NET.format(lines="return y", change="pass").replace("self.fc(input)", "self.fc(input[0])"),
            build="build",
            cases="{'one': lambda: {'input': [torch.ones(2, 4)]}, 'two': lambda: {'input': (torch.ones(2, 4),)}}",
        ),
        ("'one'", "'two'", "containers"),
    ),
    "a case without tensors": (given("{'input': [None]}"), ("'one'", "no tensors")),
}
NOT_JUDGED: dict[str, tuple[Make, tuple[str, ...]]] = {
    "complex": (returned("{'y': [torch.fft.fft(y)]}"), ("'y.0'", "complex64", "view_as_real")),
    "compressed sparse": (returned("{'y': y.to_sparse_csr()}"), ("'y'", "sparse_csr", "to_dense")),
    "nested tensor": (returned("{'y': torch.nested.nested_tensor([y[0], y[1]])}"), ("'y'", "nested", "padded")),
    "jagged tensor": (
        returned("{'y': torch.nested.nested_tensor([y[0], y[1]], layout=torch.jagged)}"),
        ("'y'", "nested", "padded"),
    ),
    "masked tensor": (returned("{'y': torch.masked.masked_tensor(y, y > 0)}"), ("'y'", "MaskedTensor")),
    "float8": (returned("{'y': y.to(torch.float8_e4m3fn)}"), ("'y'", "float8_e4m3fn", "float()")),
    "NaN in a nested input": (
        given("{'input': [torch.full((2, 4), math.nan)]}"), ("'one'", "'input.0'", "8 NaN")
    ),
    "NaN buffer": (weights("net.count[:] = math.nan"), ("'count'", "2 NaN", "checkpoint")),
    "infinite weights": (weights("net.fc.weight.data[:, 0] = math.inf; net.fc.weight.data[:, 1] = -math.inf"),
                         ("NaN", "'fc.weight'", "4 Inf")),
    "weights that are not initialised": (weights("net.fc = torch.nn.LazyLinear(2)"), ("'fc.weight'", "initialised")),
    "one weight on the meta device": (
        weights("net.fc.bias = torch.nn.Parameter(net.fc.bias.to('meta'))"),
        ("'fc.bias'", "meta device"),
    ),
    "sparse weight": (
        weights("net.fc.weight = torch.nn.Parameter(net.fc.weight.detach().to_sparse())"),
        ("'fc.weight'", "sparse_coo"),
    ),
    "quantised buffer": (
        weights("net.count = torch.quantize_per_tensor(net.count, 0.1, 0, torch.qint8)"),
        ("'count'", "qint8"),
    ),
    "input changed in place": (net("input.neg_(); return y"), ("'input'", "in place", "clone")),
    "buffer changed by every run": (net("self.count += 1; return y"), ("'count'", "state")),
    "tensor kept from run to run": (
        net("self.last = y + getattr(self, 'last', 0); return self.last"),
        ("'output'", "not repeatable", "state"),
    ),
    "outputs that differ in a trace": (
        net("return {'y': y} if torch.compiler.is_exporting() else {'z': y}"),
        ("y when it is traced", "z in another run"),
    ),
    "outputs that differ from run to run": (
        net("self.again = not getattr(self, 'again', False); return {'y': y, 'z': y} if self.again else {'y': y}"),
        ("returns y,", "y, z in another run"),
    ),
    "NaN that decides": (returned("{'best': (y - 9).abs().neg().log().argmax(1) + 1}"), ("4 NaN", "argmax", "'log'")),
}  # fmt: skip
OF_FILES = tuple(
    Row(f"output of {name}", model(f"g (float[2] x) => ({name.lower()}[2] y) {{ y = Cast<to={number}>(x) }}"), VERIFY, 3,
        ("'y'", name, "cast it"))
    for name, number in (("COMPLEX64", 14), ("FLOAT8E4M3FN", 17), ("FLOAT8E5M2", 19), ("INT4", 22))
) + tuple(
    Row(f"input of {name}", model(f"g ({name}[2] x) => (float[2] y) {{ y = Cast<to=1>(x) }}"), VERIFY, 2,
        ("'x'", name, "dtype"))
    for name in ("complex64", "float8e4m3fn", "int4")
)  # fmt: skip
ROWS = OF_FILES + tuple(
    Row(name, make, "verify s", status, facts)
    for status, kinds in ((2, NO_TENSORS), (3, NOT_JUDGED))
    for name, (make, facts) in kinds.items()
)
