"""Do work that may block for longer than its caller can wait."""

from __future__ import annotations

import threading
from collections.abc import Callable


class InTime:
    """Runs one task at a time in a thread, and waits for it for a limited time. Thread-safe.

    A task that takes longer goes on in the background. Until it has ended, further tasks fail at once: they would
    block, too.
    """

    def __init__(self, limit_s: float, make_error: Callable[[str], Exception]) -> None:
        self._limit_s = limit_s
        self._make_error = make_error
        self._late: threading.Thread | None = None

    def run(self, work: Callable[[], object]) -> None:
        """Run the work. An error of the task is raised here.

        Raises:
            Exception: made by `make_error`, because the task has not ended in time.

        """
        late = self._late
        if late is not None and late.is_alive():
            raise self._make_error("it has not answered yet to an earlier message")
        errors: list[BaseException] = []

        def do() -> None:
            try:
                work()
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=do, name="midwatch-publish", daemon=True)
        thread.start()
        thread.join(self._limit_s)
        if thread.is_alive():
            self._late = thread
            raise self._make_error(f"no answer within {self._limit_s:g} s")
        if errors:
            raise errors[0]
