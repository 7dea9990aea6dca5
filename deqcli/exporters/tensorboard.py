"""TensorBoard: an event file for each run, its scalars by step, its recipe as hyperparameters and as text."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import deqcli
from deqcli.errors import Refused
from deqcli.exporters.exporter import Exported, Exporter, Item, State, Tell
from deqcli.exporters.series import ExportedRun, Series, exported_runs, recipe_text
from deqcli.runs import files
from deqcli.runs.folder import COMPLETE, FAILED, LEFT_BEHIND, RUNNING, locked
from deqcli.sweep.gather import Gathered

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

EVENTS = "events.out.tfevents.0.deqcli"
"""TensorBoard reads what has tfevents in its name; a time would follow, of which a run has none."""

FORMAT = "brain.Event:2"
ENDS = {COMPLETE: "STATUS_SUCCESS", FAILED: "STATUS_FAILURE", RUNNING: "STATUS_RUNNING"}


def write_tensorboard(gathered: Gathered, place: str, tell: Tell) -> Exported:
    """Write <place>/<recipe>/<run_id>/, each event file in one move.

    Raises: Refused where the folder of a run has something else in it; FolderInUse, OSError.
    """
    folder, items, remarks = Path(place), list[Item](), list[str]()
    with locked(folder):
        for run in exported_runs(gathered):
            own = folder / str(run.keys["recipe"]) / run.name
            state = _state(own)
            series = [_in_float32(each) for each in run.series]
            own.mkdir(parents=True, exist_ok=True)
            files.replace_file(own / EVENTS, partial(_write, run, series))
            remarks += _left_out(run, series)
            items.append(Item(run.name, sum(len(each.steps) for each in series), state))
            tell(items[-1])
    return Exported("tensorboard", "runs", place, items, f"tensorboard --logdir {shlex.quote(place)}", remarks)


def _state(folder: Path) -> State:
    """Raises: Refused where TensorBoard would mix what is there with the run."""
    there = sorted(folder.iterdir()) if folder.exists() else []
    foreign = [path for path in there if path.name != EVENTS and not any(map(path.match, LEFT_BEHIND))]
    if foreign:
        raise Refused(f"{foreign[0]} is not deqcli's, and its folder is left as it is; name another one with --out")
    return "replaced" if there else "written"


def _in_float32(series: Series) -> Series:
    """The numbers that keep their size in float32, which the scalars of an event file have."""
    import numpy as np

    size, limits = np.abs(series.values), np.finfo(np.float32)
    fits = (size <= limits.max) & ((size >= limits.tiny) | (size == 0))
    return Series(series.tag, series.steps[fits], series.values[fits])


def _left_out(run: ExportedRun, series: Sequence[Series]) -> list[str]:
    beyond = sum(len(each.steps) for each in run.series) - sum(len(each.steps) for each in series)
    why = "are too large or too small for float32, which TensorBoard's scalars have, and are left out"
    return [f"{run.name}: {beyond} numbers {why}"] if beyond else []


def _write(run: ExportedRun, series: Sequence[Series], path: Path) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    with path.open("wb") as file:
        writer = RecordWriter(file)
        for event in _events(run, series):
            writer.write(event.SerializeToString())


def _events(run: ExportedRun, series: Sequence[Series]) -> Iterator[Event]:
    """The events of a run: what it is, then its scalars by step. A step counts as a second: no time is recorded."""
    from tensorboard.compat.proto.event_pb2 import Event, SourceMetadata
    from tensorboard.compat.proto.summary_pb2 import Summary

    source = SourceMetadata(writer=f"deqcli {deqcli.__version__}")
    yield Event(file_version=FORMAT, source_metadata=source)
    for summary in _descriptions(run):
        yield Event(summary=summary)
    scalars: dict[int, list[Any]] = defaultdict(list)
    for each in series:
        for step, value in zip(each.steps.tolist(), each.values.tolist(), strict=True):
            scalars[step].append(Summary.Value(tag=each.tag, simple_value=value))
    for step in sorted(scalars):
        yield Event(wall_time=step, step=step, summary=Summary(value=scalars[step]))


def _descriptions(run: ExportedRun) -> Iterator[Summary]:
    """How the run ended and its settings, for the HParams page, and its recipe for the page of texts."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import metadata
    from tensorboard.plugins.hparams.api_pb2 import Status
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb
    from tensorboard.plugins.text.summary_v2 import text_pb

    yield hparams_pb(run.settings, trial_id=run.name, start_time_secs=0.0)
    last = max((int(each.steps.max()) for each in run.series), default=0)
    end = SessionEndInfo(status=Status.Value(ENDS.get(run.status, "STATUS_UNKNOWN")), end_time_secs=last)
    about = metadata.create_summary_metadata(HParamsPluginData(session_end_info=end))
    tag = metadata.SESSION_END_INFO_TAG
    yield Summary(value=[Summary.Value(tag=tag, tensor=metadata.NULL_TENSOR, metadata=about)])
    for name, text in _texts(run):
        yield text_pb(name, "\n".join(f"    {line}" for line in text.splitlines()))  # as code in Markdown


def _texts(run: ExportedRun) -> Iterator[tuple[str, str]]:
    if run.stored is not None:
        yield "recipe", recipe_text(run.stored)
    if run.error is not None:
        yield "error", run.error


TENSORBOARD = Exporter(write_tensorboard, ("tensorboard",))
