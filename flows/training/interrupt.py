"""Signals that stop a run after the current step instead of in the middle of it."""

import signal
import threading
from types import FrameType

import torch
from accelerate import Accelerator


class Interrupt:
    """Context in which SIGINT, SIGTERM and SIGHUP set a flag; a second SIGINT interrupts at once.

    A closed terminal sends SIGHUP, which Windows lacks. Under `nohup` it is ignored, and it stays so here.
    Python lets the main thread alone handle signals; in another one the context does nothing.
    """

    names = ("SIGINT", "SIGTERM", "SIGHUP")

    def __init__(self) -> None:
        self.received: str | None = None

    def __enter__(self) -> "Interrupt":
        here = threading.current_thread() is threading.main_thread()
        numbers = [getattr(signal, name) for name in self.names if here and hasattr(signal, name)]
        handled = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
        self.before = {number: signal.signal(number, self._note) for number in handled}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received == "SIGINT" and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name

    def anywhere(self, accelerator: Accelerator) -> bool:
        """Whether any rank received a signal. Ranks must agree, or one would wait for the others forever."""
        if accelerator.num_processes == 1:
            return self.received is not None
        flag = torch.tensor(float(self.received is not None), device=accelerator.device)
        return bool(accelerator.reduce(flag, "sum") > 0)
