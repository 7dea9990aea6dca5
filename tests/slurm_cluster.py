"""A real SLURM cluster of one node, on this machine only, for the tests of what is submitted to one.

Needs root and Debian's packages slurmctld, slurmd, slurm-client and munge. To try things by hand:
`python tests/slurm_cluster.py FOLDER`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scontrol", "scancel", "sinfo")
LONGEST_FOLDER = 70  # the address of a Unix socket has at most 107 bytes, and SLURM puts sockets below the folder
WAIT = 60.0  # seconds until a part that has not started counts as broken
PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))  # where the daemons are, often not in PATH

# KillWait: seconds from SIGTERM to SIGKILL (default 30). cred_expire: seconds until a requeued job may start again
# (default 120, at least 5). EnforcePartLimits: refuse at once what can never run (default NO: it stays pending).
CONFIGURATION = """\
ClusterName=test{ports[0]}
SlurmctldHost={host}({address})
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1,sched_min_interval=0
EnforcePartLimits=ALL
JobRequeue=1
InactiveLimit=0
KillWait=5
ReturnToService=2
DefMemPerCPU={memory_per_cpu}
NodeName=node0 NodeHostname={host} NodeAddr={address} CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=main Nodes=node0 Default=YES MaxTime=60 State=UP
"""


def missing() -> str | None:
    """What keeps a cluster from being started here, in words; None if nothing does."""
    absent = [program for program in PROGRAMS if shutil.which(program, path=PATH) is None]
    if absent:
        return f"not installed: {', '.join(absent)} (Debian: apt-get install slurmctld slurmd slurm-client munge)"
    return None if os.geteuid() == 0 else "SLURM's daemons have to be started as root"


def free_ports() -> tuple[int, int]:
    """Two ports that nothing listens on."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


def configuration(folder: Path, settings: dict[str, str]) -> str:
    """The slurm.conf of a cluster in `folder`."""
    host, address = socket.gethostname().split(".")[0], ""
    with contextlib.suppress(OSError):
        address = socket.gethostbyname(host)
    local = address.startswith("127.")  # the daemons can listen on every address, or on that of the host's name
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20 * 9 // 10
    node = {"cpus": os.cpu_count(), "memory": memory, "memory_per_cpu": memory // (os.cpu_count() or 1)}
    address = address if local else "127.0.0.1"
    text = CONFIGURATION.format(folder=folder, host=host, address=address, ports=free_ports(), **node)
    lines = dict(line.split("=", 1) for line in text.splitlines())
    lines |= {"CommunicationParameters": "NoCtldInAddrAny,NoInAddrAny"} if local else {}
    return "".join(f"{key}={value}\n" for key, value in (lines | settings).items())


class Cluster:
    """A cluster that runs within `with`, its files in `folder`; `settings` replace lines of slurm.conf."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder.resolve()
        if len(str(self.folder)) > LONGEST_FOLDER:
            raise ValueError(f"the path of a cluster's folder has at most {LONGEST_FOLDER} characters: {self.folder}")
        inherited = {key: text for key, text in os.environ.items() if not key.startswith(("SLURM", "SBATCH_"))}
        self.environment: dict[str, str] = inherited | {"PATH": PATH, "SLURM_CONF": f"{self.folder}/slurm.conf"}
        self.settings = settings
        self.daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        for name in ("state", "spool"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / name).mkdir(parents=True)
        (self.folder / "slurm.conf").write_text(configuration(self.folder, self.settings))
        (self.folder / "munge.key").touch(0o600)
        (self.folder / "munge.key").write_bytes(secrets.token_bytes(128))
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command such as squeue, asked of this cluster."""
        return subprocess.run(command, env=self.environment, check=check, capture_output=True, text=True, timeout=WAIT)

    def logs(self, lines: int = 15) -> str:
        """The ends of what the daemons wrote."""
        paths = sorted([*self.folder.glob("*.log"), *self.folder.glob("*.out")])
        tails = {path.name: path.read_text(errors="replace").splitlines()[-lines:] for path in paths}
        return "\n".join(f"--- {name}\n" + "\n".join(tail) for name, tail in tails.items())

    def stop(self) -> None:
        """Stops the daemons and kills the jobs, with whatever jobs that have ended left behind."""
        for daemon in reversed(self.daemons):
            daemon.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(10)
            daemon.kill()
            daemon.wait()
        self.daemons.clear()
        end = time.monotonic() + WAIT
        while (left := list(self.processes())) and time.monotonic() < end:
            for process in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.05)

    def processes(self) -> Iterator[int]:
        """The processes of this cluster's jobs: SLURM's own, and those whose environment says that a job began them."""
        mark = f"SLURM_CONF={self.environment['SLURM_CONF']}".encode()
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                variables = (path / "environ").read_bytes().split(b"\0")
                of_job = any(variable.startswith(b"SLURM_JOB_ID=") for variable in variables)
                if mark in variables and (of_job or (path / "comm").read_text().strip() == "slurmstepd"):
                    yield int(path.name)

    def _start(self) -> None:
        address = self.folder / "munge.socket"
        address.unlink(missing_ok=True)
        files = {"key-file": "munge.key", "pid-file": "munged.pid", "log-file": "munged.log", "seed-file": "munge.seed"}
        options = [f"--{option}={self.folder / name}" for option, name in files.items()]
        self._daemon("munged", "--foreground", "--force", f"--socket={address}", *options)
        self._wait("socket of munged", address.exists)
        self._daemon("slurmctld", "-D")
        self._daemon("slurmd", "-D", "-N", "node0")
        self._wait("idle node", lambda: self.run("sinfo", "-h", "--format=%T", check=False).stdout.strip() == "idle")

    def _daemon(self, *command: str) -> None:
        program, environment = shutil.which(command[0], path=PATH), self.environment
        with (self.folder / f"{command[0]}.out").open("wb") as out:  # a session of its own: Ctrl-C is for us to handle
            daemon = subprocess.Popen(
                command, executable=program, env=environment, stdout=out, stderr=out, start_new_session=True
            )
        self.daemons.append(daemon)

    def _wait(self, what: str, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + WAIT
        while not ready():
            if died := [daemon.args for daemon in self.daemons if daemon.poll() is not None]:
                raise RuntimeError(f"no {what}, as this has ended: {died}\n{self.logs()}")
            if time.monotonic() > end:
                raise RuntimeError(f"no {what} within {WAIT:.0f} s\n{self.logs()}")
            time.sleep(0.1)


def main(arguments: Sequence[str]) -> None:
    """Runs a cluster in the folder given until Ctrl-C."""
    problem = missing()
    if problem or len(arguments) != 1:
        sys.exit(problem or "usage: python tests/slurm_cluster.py FOLDER")
    for number in (signal.SIGINT, signal.SIGTERM):  # also where the shell has it ignored, as in `... &`
        signal.signal(number, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), Cluster(Path(arguments[0])) as cluster:
        print(f"export SLURM_CONF={cluster.environment['SLURM_CONF']}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1:])
