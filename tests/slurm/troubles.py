"""Rewards and a strategy that make a run fail in the ways in which runs fail."""

import ctypes
import os
import sys
import time
from typing import Any

from efficient_rl.strategies.static import Full


class Trouble:
    """A reward that is 0 until its fourth call, and then something happens."""

    def __init__(self) -> None:
        self.calls = 0
        self.__name__ = type(self).__name__

    def __call__(self, completions: list[Any], **_: Any) -> list[float]:
        self.calls += 1
        if self.calls == 4:
            self.happen()
        return [0.0] * len(completions)

    def happen(self) -> None:
        raise NotImplementedError


class Raises(Trouble):
    """An error of the run."""

    def happen(self) -> None:
        raise ValueError("the fourth batch cannot be scored")


class Exits(Trouble):
    """Somebody called exit."""

    def happen(self) -> None:
        sys.exit(3)


class Leaves(Trouble):
    """The process is gone without a word."""

    def happen(self) -> None:
        os._exit(7)


class Crashes(Trouble):
    """A segmentation fault."""

    def happen(self) -> None:
        ctypes.string_at(0)


class Grows(Trouble):
    """More memory than the job asked for."""

    def happen(self) -> None:
        self.kept = [bytearray(os.urandom(1) * (64 << 20)) for _ in range(200)]


class Hangs(Trouble):
    """Never a next step, the first time."""

    def happen(self) -> None:
        marker = "hung-once"
        if not os.path.exists(marker):
            open(marker, "w").close()
            time.sleep(3600)


class Slow:
    """A reward that is always 0 and takes its time."""

    __name__ = "slow"

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, completions: list[Any], **_: Any) -> list[float]:
        time.sleep(self.seconds)
        return [0.0] * len(completions)


class Hungry(Full):
    """Trains everything, and finds no memory for more than eight completions in one pass."""

    def apply(self, model: Any) -> Any:
        def bounded(module: Any, arguments: Any, keywords: Any) -> None:
            rows = next(value for value in (*arguments, *keywords.values()) if hasattr(value, "shape")).shape[0]
            if module.training and rows > 8:
                raise MemoryError(f"out of memory for {rows} rows")

        model.register_forward_pre_hook(bounded, with_kwargs=True)
        return super().apply(model)
