"""Code of a suite that raises, ends the process, or gives something else than modules and tensors; and suites that are none."""

from __future__ import annotations

from pathlib import Path

from bad_inputs.onnx_files import LFS
from bad_inputs.row import Make, Row, both, suite, write

VERIFY = "verify s"
NET = "class Net(torch.nn.Module):\n    def forward(self, input):\n        return {}\n"


def build(body: str) -> Make:
    """Return what writes a suite whose build() is this expression."""
    return suite("import os, sys\n", build=f"lambda: {body}")


def raising(error: str) -> Make:
    """Return what writes a suite whose build() raises this."""
    return suite(f"def build():\n    raise {error}\n", build="build")


def forward(result: str, code: str = "") -> Make:
    """Return what writes a suite whose forward() returns this."""
    return suite(code + NET.format(result), build="lambda: Net().eval()")


def case(inputs: str) -> Make:
    """Return what writes a suite whose case gives this."""
    return suite(cases=f"{{'one': lambda: {inputs}}}")


ROWS = (
    Row("syntax error", write("suites/test_s.py", "def f(:\n"), VERIFY, 2, ("test_s.py", "SyntaxError", "line 1")),
    Row("syntax error by path", write("s.py", "\n\ndef f(:\n"), "verify s.py", 2, ("s.py", "SyntaxError", "line 3")),
    Row("tabs and spaces", write("suites/test_s.py", "if 1:\n\tx = 1\n        y = 2\n"), VERIFY, 2, ("test_s.py", "TabError", "line 3")),
    Row("no UTF-8", write("suites/test_s.py", b"x = '\xff'\n"), VERIFY, 2, ("test_s.py", "SyntaxError")),
    Row("NUL", write("suites/test_s.py", b"x = 1\0\n"), VERIFY, 2, ("test_s.py", "null bytes")),
    Row("another encoding that is declared", both(suite(), lambda: Path("suites/test_s.py").write_bytes(b"# coding: latin-1\n# \xe9\n" + Path("suites/test_s.py").read_bytes())), VERIFY, 0, ("1 passed",)),
    Row("empty suite", write("suites/test_s.py", ""), VERIFY, 2, ("test_s.py", "no SUBJECT")),
    Row("pointer of Git LFS", write("suites/test_s.py", LFS), VERIFY, 2, ("test_s.py", "Git LFS pointer")),
    Row("import error", write("suites/test_s.py", "import none_such\n"), VERIFY, 2, ("test_s.py", "none_such")),
    Row("import of a name that is none", write("suites/test_s.py", "from harness import Subjekt\n"), VERIFY, 2, ("test_s.py", "Subjekt")),
    Row("circular import", both(write("suites/test_s.py", "from suites.test_t import y\nx = 1\n"), write("suites/test_t.py", "from suites.test_s import x\ny = 1\n")), VERIFY, 2, ("test_s.py", "ImportError")),
    Row("import of itself for ever", write("suites/test_s.py", "def f():\n    f()\nf()\n"), VERIFY, 2, ("test_s.py", "RecursionError", "line 2")),
    Row("error while it is imported", write("suites/test_s.py", "\n1 / 0\n"), VERIFY, 2, ("test_s.py", "ZeroDivisionError", "line 2")),
    Row("error without words", write("suites/test_s.py", "raise ValueError\n"), VERIFY, 2, ("test_s.py", "ValueError", "line 1")),
    Row("error of many lines", write("suites/test_s.py", "raise ValueError('a\\n' * 99)\n"), VERIFY, 2, ("test_s.py", "ValueError", "line 1")),
    Row("end of the process while it is imported", write("suites/test_s.py", "import os\nos._exit(0)\n"), VERIFY, 2, ("test_s.py", "SystemExit", "line 2")),
    Row("two suites of one name", both(suite(name="'same'"), suite(name="'same'", path="suites/test_t.py")), "verify same", 2, ("test_s.py", "test_t.py", "'same'")),
    Row("module that is none", suite(), "verify none_such:SUBJECT", 2, ("none_such",)),
    Row("attribute that is none", suite(path="mine.py"), "verify mine:SUBJEKT", 2, ("SUBJEKT", "SUBJECT")),
    Row("attribute that is no subject", suite(path="mine.py"), "verify mine:torch", 2, ("mine:torch", "module")),
    Row("attribute without a module", suite(), "verify :SUBJECT", 2, (":SUBJECT", "package.module")),
    Row("build gives nothing", build("None"), VERIFY, 2, ("s: build()", "NoneType", "Module")),
    Row("build gives a function", build("len"), VERIFY, 2, ("s: build()", "builtin_function", "Module")),
    Row("build gives a path", build("'model.pt'"), VERIFY, 2, ("s: build()", "str", "Module")),
    Row("build gives weights", build("torch.nn.Linear(4, 2).state_dict()"), VERIFY, 2, ("s: build()", "OrderedDict", "Module")),
    Row("build gives a class", build("torch.nn.ReLU"), VERIFY, 2, ("s: build()", "type", "Module")),
    Row("build raises", build("1 / 0"), VERIFY, 3, ("s: build()", "ZeroDivisionError")),
    Row("build ends the process", build("os._exit(0)"), VERIFY, 3, ("s: build()", "SystemExit")),
    Row("build exits", build("sys.exit('no weights')"), VERIFY, 3, ("s: build()", "no weights")),
    Row("build takes an argument", suite(build="lambda path: path"), VERIFY, 3, ("s: build()", "path")),
    Row("weights that are missing", build("torch.load('none.pt')"), VERIFY, 3, ("s: build()", "none.pt")),
    Row("module in training mode", build("torch.nn.Dropout()"), VERIFY, 3, ("training mode", ".eval()")),
    Row("module in half precision", build("torch.nn.Linear(4, 2).eval().half()"), VERIFY, 2, ("s: forward()", "dtype")),
    Row("module on the meta device", build("torch.nn.Linear(4, 2, device='meta').eval()"), VERIFY, 3, ("s", "meta")),
    Row("weights of NaN", suite(build="lambda: torch.nn.Linear(4, 2).eval().requires_grad_(False).apply(lambda m: m.weight.fill_(float('nan')))"), VERIFY, 3, ("NaN",)),
    Row("forward raises", forward("1 / 0"), VERIFY, 2, ("s: forward()", "ZeroDivisionError")),
    Row("forward ends the process", forward("os._exit(0)", "import os\n"), VERIFY, 3, ("s: forward()", "SystemExit")),
    Row("forward gives nothing", forward("None"), VERIFY, 2, ("s", "no outputs")),
    Row("forward gives text", forward("'hello'"), VERIFY, 2, ("output", "str")),
    Row("forward gives an empty list", forward("[]"), VERIFY, 2, ("no outputs",)),
    Row("forward gives its input", forward("input"), VERIFY, 0, ("1 passed",)),
    Row("forward gives complex numbers", forward("input + 1j"), VERIFY, 3, ("output", "complex")),
    Row("forward gives a sparse tensor", forward("input.to_sparse()"), VERIFY, 3, ("output", "sparse")),
    Row("forward gives a quantised tensor", forward("torch.quantize_per_tensor(input, 1.0, 0, torch.qint8)"), VERIFY, 3, ("output", "quant")),
    Row("forward gives a tensor on the meta device", forward("input.to('meta')"), VERIFY, 3, ("output", "meta")),
    Row("forward gives no elements", forward("input[:0]"), VERIFY, 3, ("output", "every output is empty", "nothing was compared")),
    Row("forward is random", forward("torch.rand_like(input)"), VERIFY, 3, ("s", "rand")),
    Row("no forward", suite("class Net(torch.nn.Module):\n    pass\n", build="lambda: Net().eval()"), VERIFY, 2, ("s", "forward")),
    Row("case gives nothing", case("None"), VERIFY, 2, ("'one' of s", "no inputs")),
    Row("case gives a tensor", case("torch.ones(2, 4)"), VERIFY, 2, ("'one' of s", "no inputs", "dict")),
    Row("case gives a tuple", case("(torch.ones(2, 4),)"), VERIFY, 2, ("'one' of s", "dict")),
    Row("case gives an array", case("{'input': __import__('numpy').ones((2, 4), 'f4')}"), VERIFY, 2, ("'one' of s", "'input'", "ndarray")),
    Row("case of numbers for names", case("{0: torch.ones(2, 4)}"), VERIFY, 2, ("'one' of s", "0")),
    Row("case raises", case("1 / 0"), VERIFY, 3, ("case 'one'", "ZeroDivisionError")),
    Row("case ends the process", case("__import__('os')._exit(0)"), VERIFY, 3, ("case 'one'", "SystemExit")),
    Row("case of another name", case("{'x': torch.ones(2, 4)}"), VERIFY, 2, ("'one' of s", "'x'", "input")),
    Row("case with an input too many", case("{'input': torch.ones(2, 4), 'mask': torch.ones(2)}"), VERIFY, 2, ("'one' of s", "'mask'", "input")),
    Row("case without an input", suite(build="lambda: torch.nn.Bilinear(4, 4, 2).eval()", cases="{'one': lambda: {'input1': torch.ones(2, 4)}}"), VERIFY, 2, ("'one' of s", "'input2'", "missing")),
    Row("case of a wrong shape", case("{'input': torch.ones(2, 5)}"), VERIFY, 2, ("s: forward()", "2x5")),
    Row("case of a wrong dtype", case("{'input': torch.ones(2, 4).long()}"), VERIFY, 2, ("s: forward()", "Long")),
    Row("case of doubles", case("{'input': torch.ones(2, 4).double()}"), VERIFY, 2, ("s: forward()", "Double")),
    Row("case of complex numbers", case("{'input': torch.ones(2, 4) + 1j}"), VERIFY, 3, ("'input'", "complex")),
    Row("case of a sparse tensor", case("{'input': torch.ones(2, 4).to_sparse()}"), VERIFY, 3, ("'input'", "sparse")),
    Row("case on the meta device", case("{'input': torch.ones(2, 4, device='meta')}"), VERIFY, 3, ("'input'", "meta")),
    Row("case without elements", case("{'input': torch.ones(0, 4)}"), VERIFY, 3, ("output", "every output is empty", "nothing was compared")),
    Row("case of NaN", case("{'input': torch.full((2, 4), float('nan'))}"), VERIFY, 3, ("'one' of s", "'input'", "8 NaN")),
    Row("case of infinity", case("{'input': torch.full((2, 4), float('inf'))}"), VERIFY, 3, ("'one' of s", "'input'", "8 infinite")),
    Row("case that is another each time", suite("draws = torch.Generator().manual_seed(0)\n", cases="{'one': lambda: {'input': torch.rand(2, 4, generator=draws)}}"), VERIFY, 0, ("1 passed",)),
    Row("path that is a number", suite(build=None, onnx="3"), VERIFY, 2, ("'s'", "onnx", "3 (int)")),
    Row("file that is not there", suite(build=None, onnx="'none.onnx'"), VERIFY, 2, ("none.onnx", "does not exist")),
    Row("function of a file that raises", suite(build=None, onnx="lambda: 1 / 0"), VERIFY, 3, ("s: onnx()", "ZeroDivisionError")),
    Row("function of a file that gives nothing", suite(build=None, onnx="lambda: None"), VERIFY, 2, ("s: onnx()", "None", "path")),
    Row("warnings of a suite", suite("import warnings, logging\nwarnings.warn('old')\nlogging.getLogger('mine').warning('older')\n"), VERIFY, 0, ("1 passed",)),
    Row("warnings of build", build("[__import__('warnings').warn('old'), torch.nn.Linear(4, 2).eval()][1]"), VERIFY, 0, ("1 passed",)),
    Row("warnings with --verbose", suite("import warnings\nwarnings.warn('old')\n"), "verify s --verbose", 0, ("UserWarning: old", "test_s.py")),
    Row("study that raises", write("s/study.py", "1 / 0\n"), "study s", 2, ("study.py", "ZeroDivisionError", "line 1")),
    Row("study without run", write("s/study.py", "def variants():\n    return []\n"), "study s", 2, ("study.py", "run()")),
    Row("study whose run raises", write("s/study.py", "def variants():\n    return ['a']\ndef run(**options):\n    1 / 0\n    yield\n"), "study s -b ort-cpu", 3, ("study s: run()", "ZeroDivisionError")),
    Row("study whose run gives nothing", write("s/study.py", "def variants():\n    return ['a']\ndef run(**options):\n    yield from ()\n"), "study s -b ort-cpu", 3, ("s", "no result")),
    Row("study whose run gives text", write("s/study.py", "def variants():\n    return ['a']\ndef run(**options):\n    yield 'done'\n"), "study s -b ort-cpu", 2, ("s", "run()", "str")),
    Row("study whose run returns nothing", write("s/study.py", "def variants():\n    return ['a']\ndef run(**options):\n    pass\n"), "study s -b ort-cpu", 2, ("s", "run()", "NoneType")),
    Row("study whose variants raise", write("s/study.py", "def variants():\n    1 / 0\ndef run(**options):\n    yield\n"), "study s --list", 3, ("study", "variants()", "ZeroDivisionError")),
    Row("study that takes no options", write("s/study.py", "def variants():\n    return ['a']\ndef run():\n    yield\n"), "study s -b ort-cpu", 3, ("study s: run()", "unexpected keyword argument")),
    Row("study that ends the process", write("s/study.py", "import os\ndef variants():\n    return ['a']\ndef run(**options):\n    os._exit(0)\n    yield\n"), "study s -b ort-cpu", 3, ("SystemExit",)),
    Row("build exchanges standard output", build("[setattr(sys, 'stdout', None), 1 / 0]"), VERIFY, 3, ("s: build()", "ZeroDivisionError")),
    Row("build closes what the verdict is printed to", build("[os.close(1), torch.nn.Linear(4, 2).eval()][1]"), VERIFY, 0, ("1 passed",)),
    Row("build forks a process", build("[os.fork(), torch.nn.Linear(4, 2).eval()][1]"), VERIFY, 0, ("1 passed",)),
    Row("build raises what has no text", raising("type('E', (Exception,), {'__str__': None})()"), VERIFY, 3, ("s: build()", "raised E")),
    Row("build raises GeneratorExit", raising("GeneratorExit"), VERIFY, 3, ("GeneratorExit",)),
    Row("build raises what is no Exception", raising("BaseException"), VERIFY, 3, ("s: build()", "BaseException")),
    Row("build raises a megabyte", raising("ValueError('a' * 10**6)"), VERIFY, 3, ("s: build()", "aaa ...")),
    Row("build raises escapes", raising("ValueError('\\x1b[31m1 passed')"), VERIFY, 3, ("s: build()", "\\u001b[31m1 passed")),
    Row("build skips as a test", build("__import__('pytest').skip('no')"), VERIFY, 3, ("s: build()", "Skipped")),
    Row("default device meta", build("[torch.set_default_device('meta'), torch.nn.Linear(4, 2).eval(), torch.set_default_device(None)][1]"), VERIFY, 3, ("'weight'", "meta")),
    Row("SUBJECT raises when it is asked", write("suites/test_s.py", "class X:\n    def __getattr__(self, name):\n        raise RuntimeError('no')\nSUBJECT = X()\n"), VERIFY, 2, ("SUBJECT is a X",)),
    Row("case of what has an end", case("next(iter(()))"), VERIFY, 3, ("case 'one'", "StopIteration")),
)  # fmt: skip
