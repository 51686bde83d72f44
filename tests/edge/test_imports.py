"""What an edge process imports."""

import subprocess
import sys


def test_the_edge_imports_neither_numpy_nor_pillow_nor_torch():
    code = "import sys, s3seg.edge, s3seg.web.edge_app; print(sorted({'numpy', 'PIL', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
