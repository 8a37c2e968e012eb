"""Several runs one after another: `kdjax distill --config FILE.py:FUNCTION`."""

import dataclasses
import os
import pathlib
import re
from collections.abc import Callable, Collection, Mapping

from kdjax.config.bounds import Text
from kdjax.config.checks import (
    ConfigError,
    beneath,
    require,
    require_known,
    require_type,
)
from kdjax.config.earlier import require_network, require_seed, require_seeds
from kdjax.config.model import ModelConfig
from kdjax.config.plain import check_types
from kdjax.config.run import Run
from kdjax.config.teacher import (
    Ensemble,
    FromRun,
    FromWeights,
    TeacherConfig,
    members_of,
)
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
        self.check_names()
        for name, run in self.resolve().items():
            with beneath(f"runs.{name}"):
                run.check()
                self._check_taken(self.runs[name])

    def check_names(self) -> None:
        """Refuse what is no table of runs, and names that no stage can have."""
        require_type(self.runs, dict, "runs", "a table of runs by name")
        require(bool(self.runs), "runs", "at least one stage", "none")
        ok = isinstance(self.workdir, (str, os.PathLike)) and bool(str(self.workdir))
        require(ok, "workdir", "a folder", self.workdir)
        # Options of one stage begin with its name. Its teacher's are --NAME.teacher.
        fields = {field.name for field in dataclasses.fields(Run)} - {"teacher"}
        for name, run in self.runs.items():
            ok = isinstance(name, str) and re.fullmatch(r"[\w-]+", name) is not None
            require(ok, "runs", "names of letters, digits, - and _", name)
            ok = name not in fields
            require(ok, "runs", "names that are no field of a run", name)
            require(isinstance(run, Run), f"runs.{name}", "a Run", run)
            with beneath(f"runs.{name}"):
                check_types(run)

    def resolve(self) -> dict[str, Run]:
        """The runs with their folders, and those of earlier stages that they name.

        Raises ConfigError for a stage that names itself, a later one, or none.
        """
        resolved: dict[str, Run] = {}
        for name, run in self.runs.items():
            with beneath(f"runs.{name}"):
                self._refuse_later(name, [*resolved])
                run = name_stages(run, {x: str(self.folder / x) for x in resolved})
            folder = os.path.join(self.workdir, name)
            resolved[name] = dataclasses.replace(run, name=name, workdir=folder)
        return resolved

    def _refuse_later(self, name: str, earlier: Collection[str]) -> None:
        """Refuse a stage that names itself or a later one."""
        for field, other in references(self.runs[name]):
            if other in self.runs and other not in earlier:
                place = "is this one" if other == name else "comes later"
                shown = f"{other!r}, which {place}"
                raise ConfigError(field, "an earlier stage", other, shown=shown)

    def _check_taken(self, run: Run) -> None:
        """Refuse networks and seeds that an earlier stage has not."""
        for field, member in members_of(run.teacher):
            if isinstance(member, FromRun) and member.run.startswith(PREFIX):
                before, _ = self._stage(member.run)
                if member.seed is not None:
                    require_seed(member.seed, before, f"{field}.seed")
            if isinstance(member, FromWeights):
                text, at = member.model.weights, f"{field}.model.weights"
                expected = f"published weights (a stage goes in {field}.run)"
                require(not text.startswith(PREFIX), at, expected, text)
        self._check_start(run, run.model, "model")
        for name, network in run.networks.items():
            at = f"networks.{name}"
            self._check_start(run, network.model, f"{at}.model", network.network)
        for name, term in run.terms.items():
            if term.projector_weights.startswith(PREFIX):
                before, of = self._stage(term.projector_weights)
                require_seeds(run, before, f"terms.{name}.projector_weights", of)

    def _check_start(
        self, run: Run, model: ModelConfig, field: str, network: str = ""
    ) -> None:
        """Refuse a model of another network than the stage that it starts from.

        network: one of that stage's `networks`; empty for the evaluated one.
        """
        if not model.weights.startswith(PREFIX):
            return
        before, of = self._stage(model.weights)
        its = before.model
        while not its.name and its.weights.startswith(PREFIX):
            its = self._stage(its.weights)[0].model
        if network:
            trained = [k for k, x in before.networks.items() if not x.frozen]
            at = f"{field.removesuffix('.model')}.network"
            expected = f"a network that {of} trains, of {trained}"
            require_known(network, trained, at, expected)
            its = before.networks[network].model
        require_network(model, its, field, of)
        require_seeds(run, before, f"{field}.weights", of)

    def _stage(self, text: str) -> tuple[Run, str]:
        """The run of `stage:NAME`, and its name in words."""
        name = text.removeprefix(PREFIX)
        return self.runs[name], f"stage {name}"

    def earlier(self, name: str) -> list[str]:
        """The stages that a stage names, in the order of its fields."""
        return [other for _, other in references(self.runs[name])]


def references(run: Run) -> list[tuple[str, str]]:
    """(field, stage) of each `stage:NAME` in a run."""
    found: list[tuple[str, str]] = []

    def note(text: str, field: str) -> str:
        found.append((field, text.removeprefix(PREFIX)))
        return text

    _replace_references(run, note)
    return found


def refuse_references(run: Run) -> None:
    """Refuse `stage:NAME` in a run that is no stage."""
    for field, name in references(run):
        reason = f"{PREFIX}{name} stands for a folder in Stages alone"
        raise ConfigError(field, reason=f"{reason}; expected that of a run")


def name_stages(run: Run, folders: Mapping[str, str]) -> Run:
    """A run with folders in place of `stage:NAME`.

    folders: those of the earlier stages, by name.

    Raises ConfigError for a stage without a folder.
    """

    def folder(text: str, field: str) -> str:
        name = text.removeprefix(PREFIX)
        which = f", of {[*folders]}" if folders else " (there is none)"
        require_known(name, folders, field, f"an earlier stage{which}")
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
