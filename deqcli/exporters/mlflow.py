"""MLflow: an experiment for each recipe, a run for each run, below the one of the sweep that it was exported with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deqcli.data.files import file_sha256
from deqcli.errors import Refused
from deqcli.exporters.exporter import Exported, Exporter, Item, State, Tell
from deqcli.exporters.mlflow_place import elsewhere, opened, opens, shown
from deqcli.exporters.series import ExportedRun, Series, exported_runs, settings
from deqcli.runs import files
from deqcli.runs.folder import COMPLETE, FAILED, INTERRUPTED, RUNNING, Manifest
from deqcli.sweep.gather import Gathered
from deqcli.sweep.stored import SWEEP, Stored

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

RUN_TAG, SWEEP_TAG, DONE_TAG = "deqcli.run_id", "deqcli.sweep_id", "deqcli.exported"
"""`deqcli.exported` is set last: a run without it is what an interrupted export left, and is replaced."""

STATUSES = {COMPLETE: "FINISHED", FAILED: "FAILED", INTERRUPTED: "KILLED", RUNNING: "RUNNING"}
METRICS_A_CALL, PARAMS_A_CALL, LONGEST_PARAM, LONGEST_TAG = 1000, 100, 6000, 5000
MILLISECONDS_A_STEP = 1000
"""A step counts as a second in the timestamps of metrics: no time is recorded."""


@dataclass(frozen=True)
class Entry:
    """A run or sweep in MLflow's words; `key` is the tag that has its name."""

    key: str
    name: str
    experiment: str
    status: str
    params: dict[str, str]
    tags: dict[str, str]
    series: Sequence[Series]
    artifacts: dict[Path, str | None]

    @property
    def digest(self) -> str:
        """A hash of all that is logged."""
        found = hashlib.sha256(repr((self.status, self.params, self.tags)).encode())
        for each in self.series:
            found.update(each.tag.encode() + each.steps.tobytes() + each.values.tobytes())
        for path in self.artifacts:
            found.update(f"{path.name} {file_sha256(path)}".encode())
        return found.hexdigest()


def write_mlflow(gathered: Gathered, place: str, tell: Tell) -> Exported:
    """Log the runs to the database in a folder, or to a tracking URI; what is there already, the same, is left alone.

    Raises: Refused where MLflow cannot use the place, SystemRefused where it fails; FolderInUse, OSError.
    """
    items, parents = [], dict[str, str]()
    with opened(place) as (client, artifacts):
        store = _Store(client, artifacts)
        for source in gathered.sources:
            if source.manifest.kind == SWEEP:
                _, parent = store.put(_sweep_entry(source))
                parents |= dict.fromkeys(source.manifest.cells, parent)
        for run in exported_runs(gathered):
            entry = _run_entry(run)
            state, _ = store.put(entry, parents.get(run.name))
            items.append(Item(run.name, sum(len(each.steps) for each in entry.series), state))
            tell(items[-1])
    return Exported("mlflow", "runs", shown(place), items, opens(place))


def _run_entry(run: ExportedRun) -> Entry:
    tags = {key: str(value) for key, value in run.keys.items() if key in ("recipe", "dataset", "activation")}
    tags |= {"status": run.status} | ({"error": run.error} if run.error else {})
    artifacts: dict[Path, str | None] = {}
    if run.stored is not None:
        tags |= _origin(run.stored.manifest)
        artifacts = _artifacts(run.stored, files.RECIPE, files.CERTIFICATES)
    return Entry(
        RUN_TAG, run.name, str(run.keys["recipe"]), STATUSES.get(run.status, "SCHEDULED"), _params(run.settings),
        _tags(tags), run.series, artifacts,
    )  # fmt: skip


def _sweep_entry(sweep: Stored) -> Entry:
    manifest = sweep.manifest
    status = STATUSES.get(sweep.state, "SCHEDULED")
    artifacts = _artifacts(sweep, files.RECIPE, files.RUNS)
    tags = _tags({"recipe": manifest.recipe, "status": sweep.state})
    return Entry(SWEEP_TAG, manifest.id, manifest.recipe, status, _params(settings(sweep)), tags, (), artifacts)


def _origin(manifest: Manifest) -> dict[str, str]:
    """What computed a run."""
    known = {"device": manifest.device_name or manifest.device, "threads": manifest.threads, "git": manifest.git}
    versions = {f"version.{package}": version for package, version in manifest.versions.items()}
    return {key: str(value) for key, value in (known | versions).items() if value}


def _tags(values: Mapping[str, str]) -> dict[str, str]:
    return {f"deqcli.{key}": value[:LONGEST_TAG] for key, value in values.items()}


def _params(values: Mapping[str, Any]) -> dict[str, str]:
    """The values as the recipe spells them; one too long for MLflow is in recipe.yaml alone."""
    spelled = {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in values.items()}
    return {key: value for key, value in spelled.items() if len(value) <= LONGEST_PARAM}


def _artifacts(stored: Stored, *names: str) -> dict[Path, str | None]:
    """Files and figures of a folder, and the folder of the artifact store that each goes to."""
    found: dict[Path, str | None] = {stored.folder / name: None for name in names if stored.has(name)}
    return found | dict.fromkeys(sorted(stored.folder.glob("figures/*")), "figures")


class _Store:
    """A tracking store in which each entry is once."""

    def __init__(self, client: MlflowClient, artifacts: Path | None) -> None:
        self._client, self._artifacts = client, artifacts
        self._experiments: dict[str, str] = {}

    def put(self, entry: Entry, parent: str | None = None) -> tuple[State, str]:
        """Log an entry unless it is there, below `parent`; the former ones of its name go once it is there whole."""
        from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

        experiment = self._experiment(entry.experiment)
        former = self._client.search_runs([experiment], f"tags.`{entry.key}` = '{entry.name}'")
        same = next((run for run in former if run.data.tags.get(DONE_TAG) == entry.digest), None)
        identity = same.info.run_id if same else self._log(entry, experiment)
        tags = {} if same is None else same.data.tags
        if parent is not None and tags.get(MLFLOW_PARENT_RUN_ID) != parent:
            self._client.set_tag(identity, MLFLOW_PARENT_RUN_ID, parent)
        for run in former:
            if run is not same:
                self._client.delete_run(run.info.run_id)
        return "unchanged" if same else "replaced" if former else "written", identity

    def _experiment(self, name: str) -> str:
        """Its id. Raises: Refused where it has been deleted: its name is taken until it is restored or purged."""
        if name not in self._experiments:
            found = self._client.get_experiment_by_name(name)
            if found is not None and found.lifecycle_stage != "active":
                raise Refused(f"the experiment {name} was deleted in MLflow; restore it there, or run `mlflow gc`")
            location = (self._artifacts / name).absolute().as_uri() if self._artifacts else None
            made = found.experiment_id if found else self._client.create_experiment(name, location)
            self._experiments[name] = made
        return self._experiments[name]

    def _log(self, entry: Entry, experiment: str) -> str:
        from mlflow.entities import Param

        tags = entry.tags | {entry.key: entry.name}
        identity: str = self._client.create_run(experiment, tags=tags, run_name=entry.name).info.run_id
        params = [Param(key, value) for key, value in entry.params.items()]
        for start in range(0, len(params), PARAMS_A_CALL):
            self._client.log_batch(identity, params=params[start : start + PARAMS_A_CALL])
        metrics = list(_metrics(entry))
        for start in range(0, len(metrics), METRICS_A_CALL):
            self._client.log_batch(identity, metrics=metrics[start : start + METRICS_A_CALL])
        for path, folder in entry.artifacts.items():
            self._client.log_artifact(identity, str(path), folder)
        if entry.status != STATUSES[RUNNING]:
            self._client.set_terminated(identity, entry.status)
        self._client.set_tag(identity, DONE_TAG, entry.digest)
        return identity


def _metrics(entry: Entry) -> Iterator[Any]:
    from mlflow.entities import Metric

    for each in entry.series:
        for step, value in zip(each.steps.tolist(), each.values.tolist(), strict=True):
            yield Metric(each.tag, value, MILLISECONDS_A_STEP * step, step)


MLFLOW = Exporter(write_mlflow, ("mlflow", "sqlalchemy", "alembic"), takes_uri=True, elsewhere=elsewhere)
