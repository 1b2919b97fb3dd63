"""Stop a run at the next step instead of in the middle of one."""

import signal
from types import FrameType

import torch
from accelerate import Accelerator


class Interrupt:
    """While active, SIGINT, SIGTERM and SIGHUP set a flag; a second SIGINT interrupts at once.

    SIGHUP is what a closed terminal sends; under `nohup` it is ignored, and stays so.
    """

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.received: str | None = None

    def __enter__(self) -> "Interrupt":
        heard = [number for number in self.signals if signal.getsignal(number) is not signal.SIG_IGN]
        self.before = {number: signal.signal(number, self._note) for number in heard}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received == "SIGINT" and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name

    def anywhere(self, accelerator: Accelerator) -> bool:
        """Whether any rank received one. Ranks must agree, or one waits for the others forever."""
        if accelerator.num_processes == 1:
            return self.received is not None
        flag = torch.tensor(float(self.received is not None), device=accelerator.device)
        return bool(accelerator.reduce(flag, "sum") > 0)
