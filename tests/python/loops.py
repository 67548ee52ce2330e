"""The event loops that netkit.aio is tested on."""

import asyncio
import os
import warnings


class NoReaders(asyncio.SelectorEventLoop):
    """A loop that cannot watch descriptors, as asyncio's for Windows' completion ports."""

    def add_reader(self, *_):
        raise NotImplementedError

    add_writer = remove_reader = remove_writer = add_reader


def no_uvloop():
    raise AssertionError("there is no uvloop: apt-get install python3-uvloop")


try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import uvloop
    LOOPS = {"selector": asyncio.SelectorEventLoop, "no add_reader": NoReaders,
             "uvloop": uvloop.new_event_loop}
except ImportError:
    # Debian has it for one Python, and that one is run by `make test-all` with NKT_TEST_UVLOOP=1.
    LOOPS = {"selector": asyncio.SelectorEventLoop, "no add_reader": NoReaders}
    if os.environ.get("NKT_TEST_UVLOOP") == "1":
        LOOPS["uvloop"] = no_uvloop


def run(coroutine, make=asyncio.SelectorEventLoop, limit_s=60):
    """Runs it on a new loop of a kind, and sees that nothing is left behind."""
    loop = make()
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(asyncio.wait_for(coroutine, limit_s))
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left))
        loop.run_until_complete(loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        loop.close()
