"""Python imports this at its start: plants faults in ONNX Runtime where the environment says which."""

import json
import os

if "PLANTED" in os.environ:
    from benchmarks.planted.engine import plant_in_onnxruntime
    from benchmarks.planted.rewriting import Rewrite

    plant_in_onnxruntime(Rewrite.of(json.loads(os.environ["PLANTED"])))
