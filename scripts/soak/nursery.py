"""Child processes that start at once: forked from one that has imported everything already.

Run as a program, it reads a line of JSON for each child: which function to call with what. It
answers with the child's number. `wait N` answers once that child is gone.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[2]


class Nursery:
    """Starts children in a process of its own; a context manager."""

    def __init__(self, *modules: str) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "scripts.soak.nursery", *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def start(self, function: str, **job: Any) -> int:
        """Start a child.

        Args:
            function: as `module:name`; called with a dictionary.
            job: what is in the dictionary.

        Returns:
            Its process number.
        """
        return int(self._ask(json.dumps({"function": function, "job": job})))

    def wait(self, child: int) -> int:
        """Wait until a child is gone; its exit code, negative for a signal."""
        return int(self._ask(f"wait {child}"))

    def kill(self, child: int) -> int:
        """Kill a child and wait until it is gone; its exit code, negative for a signal."""
        os.kill(child, signal.SIGKILL)
        return self.wait(child)

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()


def main() -> None:
    """Fork until the input ends."""
    for module in sys.argv[1:]:
        importlib.import_module(module)
    for line in sys.stdin:
        if line.startswith("wait "):
            _, status = os.waitpid(int(line.split()[1]), 0)
            os.write(1, b"%d\n" % os.waitstatus_to_exitcode(status))
            continue
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            module, name = order["function"].split(":")
            getattr(importlib.import_module(module), name)(order["job"])
            os._exit(0)
        os.write(1, b"%d\n" % child)


if __name__ == "__main__":
    main()
