"""`python -m deploy.cluster ENGINE [COMMAND...]`: three receivers on a distributed file system, behind HAProxy.

Builds everything on this machine, in network namespaces, runs COMMAND in it, or waits for Ctrl-C, and takes it down.
"""

import argparse
import os
import shlex
import subprocess
import sys
import time

from deploy.cluster.engines import ENGINES
from deploy.cluster.hosts import DESCRIPTION, Cluster, Failed, enter_command, enter_namespaces, make_hosts, missing
from deploy.cluster.receivers import PROGRAMS, client_command, start_all

_CANT = 2


def main() -> int:
    """Exit status: the command's; 2 when this can't run here, and it says why; 1 when something failed."""
    options = _parser().parse_args()
    kind = ENGINES[options.engine]
    if why := missing({**PROGRAMS, **kind.programs}):
        print(f"no cluster can be built here: {why}", file=sys.stderr)
        return _CANT
    enter_namespaces("deploy.cluster")
    try:
        began = time.monotonic()
        cluster = Cluster(options.engine, make_hosts())
        kind(cluster).build(not options.untuned)
        print(f"{kind.version()}: {len(cluster.hosts)} hosts, in {time.monotonic() - began:.0f} s", flush=True)
        if not options.command:
            start_all(cluster)
            return _wait()
        environment = {**os.environ, DESCRIPTION: cluster.describe()}
        return subprocess.run(options.command, env=environment).returncode  # noqa: S603 -- what was typed
    except Failed as problem:
        print(problem, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _wait() -> int:
    print(f"from another terminal, as root:\n    {enter_command()} {shlex.join(client_command('FILE', './'))}")
    print("Ctrl-C takes everything down.", flush=True)
    while True:
        time.sleep(3600)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.cluster", description=__doc__.partition("\n")[0])
    parser.add_argument("engine", choices=sorted(ENGINES))
    parser.add_argument("--untuned", action="store_true", help="without the options that the engine needs")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what to run in it; its status is ours")
    return parser


if __name__ == "__main__":
    sys.exit(main())
