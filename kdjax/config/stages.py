"""Several runs one after another: `kdjax distill --config FILE.py:FUNCTION`."""

import dataclasses
import os
import pathlib
import re
from collections.abc import Callable, Mapping

from kdjax.config.bounds import Text
from kdjax.config.checks import beneath, require, require_known
from kdjax.config.model import ModelConfig
from kdjax.config.run import Run
from kdjax.config.teacher import Ensemble, FromRun, TeacherConfig
from kdjax.config.training import Term

PREFIX = "stage:"


@dataclasses.dataclass(frozen=True)
class Stages:
    """Runs one after another, where a later one begins with an earlier one.

    `stage:NAME` stands for the run folder of an earlier stage: as `teacher.run`, as
    `weights` of a model, or as `projector_weights` of a term. Each stage
    has the folder WORKDIR/NAME.
    """

    runs: dict[str, Run]
    """The runs by name, in order. Their `workdir` and `name` are set by the stage."""
    workdir: Text = "runs/stages"
    """Folder of the stages, and of one report over all."""

    @property
    def folder(self) -> pathlib.Path:
        """`workdir`, with ~ replaced by the user's home."""
        return pathlib.Path(self.workdir).expanduser()

    def check(self) -> None:
        """Raise `ConfigError` for the first field that cannot be run."""
        require(bool(self.runs), "runs", "at least one stage", "none")
        runs = self.resolve()
        for name, run in runs.items():
            ok = re.fullmatch(r"[\w-]+", name) is not None
            require(ok, "runs", "names of letters, digits, - and _", name)
            with beneath(f"runs.{name}"):
                run.check()
                self._check_start(self.runs[name].model)

    def _check_start(self, model: ModelConfig) -> None:
        """Refuse a student of another network than the stage that it starts from."""
        if not model.name or not model.weights.startswith(PREFIX):
            return
        name = model.weights.removeprefix(PREFIX)
        before = self.runs[name].model
        for field in ("name", "depth", "width"):
            own, its = getattr(model, field), getattr(before, field)
            expected = f"{its!r}, that of stage {name}"
            require(own == its, f"model.{field}", expected, own)

    def resolve(self) -> dict[str, Run]:
        """The runs with their folders, and those of earlier stages that they name.

        Raises ConfigError for a stage that names itself, a later one, or none.
        """
        resolved: dict[str, Run] = {}
        for name, run in self.runs.items():
            with beneath(f"runs.{name}"):
                run = name_stages(run, {x: str(self.folder / x) for x in resolved})
            folder = os.path.join(self.workdir, name)
            resolved[name] = dataclasses.replace(run, name=name, workdir=folder)
        return resolved

    def earlier(self, name: str) -> list[str]:
        """The stages that a stage names, in the order of its fields."""
        found: list[str] = []

        def note(text: str, field: str) -> str:
            found.append(text.removeprefix(PREFIX))
            return text

        _replace_references(self.runs[name], note)
        return found


def name_stages(run: Run, folders: Mapping[str, str]) -> Run:
    """A run with folders in place of `stage:NAME`.

    folders: those of the earlier stages, by name.

    Raises ConfigError for a stage without a folder.
    """

    def folder(text: str, field: str) -> str:
        name = text.removeprefix(PREFIX)
        require_known(name, folders, field, f"an earlier stage, of {[*folders]}")
        return folders[name]

    return _replace_references(run, folder)


def _replace_references(run: Run, replace: Callable[[str, str], str]) -> Run:
    """A run with other texts where it names a stage.

    replace: `(text, field) -> text`.
    """

    def model(config: ModelConfig, field: str) -> ModelConfig:
        if not config.weights.startswith(PREFIX):
            return config
        weights = replace(config.weights, f"{field}.weights")
        return dataclasses.replace(config, weights=weights)

    def teacher(config: TeacherConfig | None, field: str) -> TeacherConfig | None:
        if isinstance(config, Ensemble):
            members = enumerate(config.members)
            new = (teacher(member, f"{field}.members.{i}") for i, member in members)
            return dataclasses.replace(config, members=tuple(new))
        if not isinstance(config, FromRun) or not config.run.startswith(PREFIX):
            return config
        return dataclasses.replace(config, run=replace(config.run, f"{field}.run"))

    def term(config: Term, field: str) -> Term:
        if not config.projector_weights.startswith(PREFIX):
            return config
        weights = replace(config.projector_weights, f"{field}.projector_weights")
        return dataclasses.replace(config, projector_weights=weights)

    networks = {
        name: dataclasses.replace(
            network, model=model(network.model, f"networks.{name}.model")
        )
        for name, network in run.networks.items()
    }
    return dataclasses.replace(
        run,
        model=model(run.model, "model"),
        networks=networks,
        teacher=teacher(run.teacher, "teacher"),
        terms={name: term(x, f"terms.{name}") for name, x in run.terms.items()},
    )
