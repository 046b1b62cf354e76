"""Run by the wheel gate outside the checkout: the installed package must import fast and reduce for real."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np

PROGRAM = """
import numpy as np, pycomm
with pycomm.init() as comm:
    x = np.full(1000, comm.rank + 1, np.float32)
    comm.allreduce(x)
    assert x[0] == x[-1] == comm.size * (comm.size + 1) / 2, x
    print(comm.rank, comm.size, x[0])
"""


def main() -> None:
    start = time.perf_counter()
    import pycomm

    import_s = time.perf_counter() - start
    assert not {"torch", "mpi4py"} & set(sys.modules), "import pycomm pulled in an optional package"
    assert import_s < 0.15, f"import pycomm took {import_s:.3f} s beyond NumPy's own import"
    where = Path(pycomm.__file__).resolve()
    assert "site-packages" in where.parts, f"imported from {where}, not from the installed wheel"
    assert np.add(1, 1) == 2
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)
    subprocess.run([sys.executable, "-m", "pycomm", "doctor"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(
        [sys.executable, "-m", "pycomm", "bench", "allreduce", "-np", "2", "-b", "8", "-e", "64K", "-n", "5"],
        check=True,
    )
    print(f"wheel: imports in {import_s * 1e3:.0f} ms and works at {where.parent}")


if __name__ == "__main__":
    main()
