"""How a local run ends when it does not end well; the messages are for the person at the terminal."""


class RunError(RuntimeError):
    """The run cannot go on; the message says what happened and what to do.

    Attributes:
        status: Exit status of the command.
    """

    status = 1


class WrongInput(RunError):
    """What was asked for cannot be done as it was asked; nothing has been started."""

    status = 2


class Interrupted(RunError):
    """Somebody wants it to end: Ctrl-C, SIGTERM, or an output that nobody reads any more.

    Attributes:
        signal: Its number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by signal {number}")
        self.signal = number
        self.status = 128 + number
