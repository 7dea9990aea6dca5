"""Where the cells of a sweep are computed: executor, retries, and what is asked of a cluster. It decides no number."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from deqcli.options import Count, Options

_WORD = r"^[^\s#'\"\\]{1,256}$"
_LINE = r"^[^\r\n\x00]{1,1000}$"
_TIME = r"^(\d+-)?\d{1,5}(:\d{1,2}){0,2}$"

Word = Annotated[str, Field(pattern=_WORD, description="a word without spaces and quotes")]
Line = Annotated[str, Field(pattern=_LINE, description="one line")]


class Ray(Options):
    """A Ray cluster."""

    address: Annotated[
        Word | None,
        Field(description="of a running cluster, or `auto` to find it; null: one is started on this machine"),
    ] = None


class Slurm(Options):
    """What the array of jobs asks of SLURM."""

    time: Annotated[
        Count | Annotated[str, Field(pattern=_TIME, description="as 1:30:00 or 2-00:00:00")],
        Field(description="limit of a job: minutes as a number, or text"),
    ] = "1:00:00"
    memory: Annotated[
        Count | Annotated[str, Field(pattern=r"^[1-9]\d*[KMGT]?$", description="as 4000M")] | None,
        Field(description="of a job: megabytes as a number, or text; null: what its largest run takes"),
    ] = None
    partition: Annotated[Word | None, Field(description="where jobs queue; null: the cluster's default")] = None
    account: Annotated[Word | None, Field(description="whom jobs are charged to; null: the user's default")] = None
    gres: Annotated[Word | None, Field(description="generic resources of a job, as `gpu:1`; null: none")] = None
    throttle: Annotated[Count | None, Field(description="most jobs at a time; null: execution.jobs, or no limit")] = (
        None
    )
    grace: Annotated[
        Count,
        Field(le=65535, description="seconds before the limit at which its runs checkpoint and a job is requeued"),
    ] = 120
    lines: Annotated[
        list[Line], Field(description="lines of the script after its own #SBATCH lines, as `module load cuda`")
    ] = Field(default=[])


class ExecutionOptions(Options):
    """How the cells of a sweep are computed."""

    executor: Annotated[
        Literal["local", "ray", "slurm"], Field(description="worker processes here, Ray tasks, or a SLURM array")
    ] = "local"
    jobs: Annotated[Count | None, Field(description="most cells at a time; null: by cores, memory and GPUs")] = None
    threads: Annotated[
        Count | None, Field(description="threads of each cell; null: the cores shared out among the jobs, with SLURM 1")
    ] = None
    retries: Annotated[
        int, Field(ge=0, le=1000, description="further attempts at a cell whose process died or ran out of memory")
    ] = 2
    fail_fast: Annotated[bool, Field(description="stop the sweep at the first cell that fails")] = False
    ray: Ray = Ray()
    slurm: Slurm = Slurm()
