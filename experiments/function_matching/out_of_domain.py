"""Distillation on images outside the teacher's classes, down to random textures."""

import dataclasses

from experiments.function_matching import common
from experiments.function_matching.common import WEIGHTS, base, path_of
from kdjax.config import Data, FromWeights, ModelConfig, Optim, Run, Scalar, Term, Views
from kdjax.experiments import Experiment, Hypothesis, above

SETS = path_of("sets.py")
NARROWED = f"{path_of('networks.py')}:resnet56_of_vehicles"
# The data sets of the student's images, used without labels.
RELATED = {"digits": f"{SETS}:high_digits", "cifar": f"{SETS}:animals"}
UNRELATED = {"digits": f"{SETS}:photographs", "cifar": "fashion_mnist"}
NOISE = {"digits": f"{SETS}:noise_8", "cifar": f"{SETS}:noise_32"}


def own(scale: str = "digits") -> Run:
    """Images of the teacher's own classes."""
    return {"cifar": _vehicles, "paper": _pets}.get(scale, _low_digits)(scale)


def related(scale: str = "digits") -> Run:
    """Other classes of the same set; ImageNet for pets."""
    return _taught_on(scale, RELATED, "imagenet2012")


def unrelated(scale: str = "digits") -> Run:
    """Photographs for digits, Fashion-MNIST for vehicles, food for pets."""
    return _taught_on(scale, UNRELATED, "food101")


def noise(scale: str = "digits") -> Run:
    """Random textures."""
    return _taught_on(scale, NOISE, f"{SETS}:noise_160")


def _taught_on(scale: str, names: dict[str, str], large: str) -> Run:
    run = own(scale)
    name = (
        large if scale == "paper" else names["cifar" if scale == "cifar" else "digits"]
    )
    # As many images as the domain's own.
    count = {"cifar": 1_000, "paper": 3_312}.get(scale, 200)
    data = dataclasses.replace(run.data, train=f"train[:{count}]", train_name=name)
    return dataclasses.replace(run, data=data)


def _low_digits(scale: str) -> Run:
    """The digits 0 to 4."""
    run = base(scale)
    return dataclasses.replace(
        run, data=dataclasses.replace(run.data, name=f"{SETS}:low_digits")
    )


def _vehicles(scale: str) -> Run:
    """CIFAR-10's vehicles, of which there are 20 000. The published teacher has
    logits of animals too; only those of vehicles are used, as of the paper's pets.
    But it has learnt from the animals that the student is taught on."""
    data = Data(
        f"{SETS}:vehicles",
        "train[:1000]",
        "train[18000:]",
        "test",
        channels=3,
        store=32,
    )
    run = base(scale)
    assert isinstance(run.teacher, FromWeights)
    narrowed = dataclasses.replace(run.teacher.model, name=NARROWED)
    teacher = dataclasses.replace(run.teacher, model=narrowed)
    return dataclasses.replace(run, data=data, teacher=teacher)


def _pets(scale: str) -> Run:
    """Pets for 300 epochs; T, rate and decay of the paper's long run (big_vision)."""
    del scale
    model = ModelConfig(
        name="bit_r152x2", resolution=128, weights=f"{WEIGHTS}/R152x2_T_pet128.npz"
    )
    data = Data("oxford_iiit_pet", "train[:90%]", "train[90%:]", "test", store=160)
    return Run(
        data=data,
        model=ModelConfig(name="bit_r50x1", resolution=128),
        teacher=FromWeights(model),
        views=Views(evaluation_crop=1.25),
        terms={"soft": Term(temperature=Scalar(2.0))},
        optim=Optim(lr=3e-3, wd=1e-5, warmup=1_500),
        steps=1_941,
        batch=512,
        baselines=(),
    )


PAPER = "figure 6, no table: pets from food alone about 30 %"
# The largest chance of any scale: one of four vehicles (five digits, 37 pets).
CHANCE = 0.25

EXPERIMENT = Experiment(
    claim=(
        "Images of the teacher's own domain teach best, related ones nearly as well, "
        "unrelated ones still far above chance (arXiv 2106.05237, figure 6)"
    ),
    variants={"own": own, "related": related, "unrelated": unrelated, "noise": noise},
    # At the paper's scale 300, 3 000 and 30 000 epochs of pets.
    durations={**common.DURATIONS, "paper": (1, 10, 100)},
    hypotheses=(
        above("11: own above related, longest", "own", "related", paper=PAPER),
        above(
            "11: related above unrelated, longest", "related", "unrelated", paper=PAPER
        ),
        above("11: unrelated above noise, longest", "unrelated", "noise"),
        *(
            Hypothesis(
                f"11: {name} above chance (25 %), longest",
                ((1.0, name, -1),),
                paper=PAPER,
                threshold=CHANCE,
            )
            for name in ("unrelated", "noise")
        ),
        Hypothesis(
            "11: related gains from training longer",
            ((1.0, "related", -1), (-1.0, "related", 0)),
            paper="needs longer than the domain's own",
        ),
    ),
)
