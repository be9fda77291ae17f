"""Runs programs with a time limit, without leaving any processes behind."""

import os
import signal
import subprocess
import tempfile


def run(command, limit, environment=None, catch=True):
    """Returns (exit status, or None if it did not end within `limit` seconds; its output, if `catch`). All processes
    that it has started are killed with it, such as a compiler's workers."""
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        streams = {"stdout": output, "stderr": subprocess.STDOUT} if catch else {}
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env={**os.environ, **(environment or {})}, start_new_session=True, **streams)
        status = None
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            pass
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # all have ended
            process.wait()
        output.seek(0)
        return status, output.read()
