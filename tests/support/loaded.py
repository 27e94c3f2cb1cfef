"""Commands of this installation as in a shell, each in a separate process that does not load torch again.

One process loads the libraries and forks for every command. The program on the PATH with a command's name sends it
arguments, folder, environment and standard streams, and ends with the status that it returns. The fork calls the same
function as the installed command.
"""

from __future__ import annotations

import array
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

COMMANDS = ("lungstage", "lungstage-train", "lungstage-export", "python")

_CLIENT = """#!{python} -ISE
import array, json, os, signal, socket, sys
said = json.dumps([os.path.basename(sys.argv[0]), sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
with socket.socket(socket.AF_UNIX) as wire:
    wire.connect({address!r})
    wire.sendmsg([len(said).to_bytes(8, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
    wire.sendall(said)
    process = int.from_bytes(wire.recv(8), "big")
    signal.signal(signal.SIGTERM, lambda number, _: os.kill(process, number))
    sys.exit((wire.recv(1) or b"\\xff")[0])
"""


@contextmanager
def loaded_commands(folder: Path) -> Iterator[dict[str, str]]:
    """Yield an environment in which one process, with all libraries loaded, runs the :data:`COMMANDS`."""
    commands, address = folder / "commands", str(folder / "wire")
    commands.mkdir()
    for name in COMMANDS:
        (commands / name).write_text(_CLIENT.format(python=sys.executable, address=address))
        (commands / name).chmod(0o755)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LUNGSTAGE_WORKERS": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.loaded", address],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, start_new_session=True,
    ) as server:  # fmt: skip
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n", "it did not start"
            yield {**environment, "PATH": f"{commands}:{environment['PATH']}"}
        finally:
            os.killpg(server.pid, signal.SIGTERM)  # also ends processes of a failed test


def _serve(address: str) -> None:
    """Load the libraries, and fork for each command."""
    import lungstage.appliance.cli.main
    import lungstage.export.bundle
    import lungstage.training.fit
    import lungstage.training.reporting.report
    import lungstage.training.validation.validate  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that ended forks do not become zombies
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(address)
        door.listen()
        print("ready", flush=True)
        while True:
            wire, _ = door.accept()
            if os.fork() == 0:
                door.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _answer(wire)
            wire.close()


def _answer(wire: socket.socket) -> None:
    """Run the requested command, send its status, and end."""
    handed = array.array("i")
    length, extra, _, _ = wire.recvmsg(8, socket.CMSG_LEN(3 * handed.itemsize))
    for _, _, streams in extra:
        handed.frombytes(streams)
    for stream, mine in enumerate(handed):
        os.dup2(mine, stream)
        os.close(mine)
    with wire.makefile("rb") as said:
        name, arguments, folder, environment = json.loads(said.read(int.from_bytes(length, "big")))
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    wire.sendall(os.getpid().to_bytes(8, "big"))
    status = 1
    try:
        status = _run(name, arguments)
    except BaseException:  # no exception may reach the loop of the parent
        traceback.print_exc()
    with suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    wire.sendall(bytes([status]))
    os._exit(status)


def _run(name: str, arguments: list[str]) -> int:
    sys.argv = [name, *arguments]
    try:
        if name == "python":
            sys.argv = arguments
            sys.path[0] = str(Path(arguments[0]).parent.resolve())
            runpy.run_path(arguments[0], run_name="__main__")
        else:
            main: Any = next(iter(entry_points(group="console_scripts", name=name))).load()
            main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


if __name__ == "__main__":
    _serve(sys.argv[1])
