"""Whether a call that blocks is made inside a running event loop, and the warning for it.

Such a call holds up every other task of the loop. It is told when it really comes to wait: what is
there already, or is there within a millisecond, is read and written without a warning.
"""

from __future__ import annotations

import sys
import warnings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

imported: Callable[[str], Any] = sys.modules.get
_PACKAGE = __name__.partition(".")[0]
_MESSAGE = ("this call waits inside a running event loop, and all of the loop's tasks stand still "
            "meanwhile: netkit.aio has the same call to be awaited")


def _not_imported() -> Any:
    # It is not there yet while another thread is importing asyncio.
    function = getattr(imported("asyncio"), "_get_running_loop", None)
    if function is None:
        return None
    Running.loop = function
    return function()


class Running:
    """`loop` gives the event loop that the calling thread runs at this moment, or None. Once
    asyncio is imported it is asyncio's own function: it is called for every little thing."""

    loop: Callable[[], Any] = _not_imported


def in_loop() -> bool:
    """Whether the calling thread runs an event loop at this moment."""
    return Running.loop() is not None


def warn_in_loop() -> None:
    """Warns at the line outside this package that has made the call."""
    level = 2
    frame = sys._getframe(1)
    while (frame.f_back is not None and
           str(frame.f_globals.get("__name__")).partition(".")[0] == _PACKAGE):
        frame = frame.f_back
        level += 1
    warnings.warn(_MESSAGE, RuntimeWarning, stacklevel=level)
