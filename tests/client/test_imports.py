"""What the client imports."""

import subprocess
import sys


def test_the_client_imports_neither_numpy_nor_pillow_nor_torch():
    code = "import sys, s3seg.client; print(sorted({'numpy', 'PIL', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
