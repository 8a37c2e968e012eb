"""A critic on features, Belagiannis et al. 2018, arXiv 1803.10750."""

import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.config import require
from kdjax.core.types import Model, Strategy
from kdjax.models import make_projector
from kdjax.models.layers import mean_pool
from kdjax.strategies import critics
from kdjax.strategies.networks import apply_network
from kdjax.strategies.sampling import draw_uniform
from kdjax.strategies.supervision import (
    find_tap,
    label_loss,
    require_teacher,
    trace_output,
)


def critic_on_features(
    student: Model,
    *,
    tap: str = "embedding",
    teacher_tap: str = "embedding",
    projector: bool = True,
    weight: float = 1.0,
    pair_weight: float = 1.0,
    label_weight: float = 0.0,
    penalty: float = 0.0,
    variant: str = "non_saturating",
    reverse: bool = False,
    width: int = 64,
    student_steps: int = 1,
    rate: float = 1e-3,
    axis_name: str | None = None,
) -> Strategy:
    """A critic separates pooled features of teacher and student.

    L_student = label_weight * CE(y, p) + pair_weight * mean (z - z_teacher)^2
        + weight * GAN loss
    L_critic = GAN loss + penalty * (slope of the critic - 1)^2

    Without `label_weight` no labels are read. Wang et al. (AAAI 2018) add labels.

    Args:
      student: learns from the teacher's logits and from the critic.
      tap: of the student; maps are averaged over their positions.
      teacher_tap: of the teacher.
      projector: a linear map from the student's width to the teacher's learns too.
      penalty: of the critic's gradient; 10 in WGAN-GP.
      variant: of the GAN loss, as in `losses.adversarial_critic`.
      reverse: one backward pass trains both, and the critic's gradient enters the
        student times -weight. Without it, critic and student take turns.
      width: units of each of the critic's two hidden layers.
      student_steps: steps of the student for one of the critic.
      rate: the critic's learning rate.

    Raises:
      ConfigError: no teacher, an unknown tap, or options that do not fit.
    """
    critics.require_steps(student_steps)
    critics.require_variant(variant)
    ok = not reverse or student_steps == 1
    expected = "1 with reverse, which trains both at every step"
    require(ok, "strategy.options.student_steps", expected, student_steps)
    critic = critics.mlp_critic(width)

    def pooled(output, name: str, option: str):
        features = find_tap(output, name, f"strategy.options.{option}")
        return mean_pool(features)

    def init(key, batch):
        one, two, three = jax.random.split(key, 3)
        variables = student.init(one, batch.inputs["image"])
        output = trace_output(student, variables, batch.inputs["image"])
        require_teacher(batch, output.logits.shape[-1])
        ours = jax.eval_shape(lambda x: pooled(x, tap, "tap"), output)
        theirs = pooled(batch.targets, teacher_tap, "teacher_tap")
        networks = {"student": variables, "critic": critic.init(two, theirs)}
        if projector:
            linear = make_projector("linear", ours.shape, theirs.shape)
            networks["projector"] = linear.init(three)
        same = projector or ours.shape == theirs.shape
        expected = f"True, as {tap} and {teacher_tap} differ in width"
        require(same, "strategy.options.projector", expected, projector)
        return networks

    def loss(params, state, batch, schedules, key):
        image, teacher = batch.inputs["image"], batch.targets
        output, state = apply_network("student", student, params, state, image, key)
        ours = pooled(output, tap, "tap")
        theirs = pooled(teacher, teacher_tap, "teacher_tap")
        if projector:
            linear = make_projector("linear", ours.shape, theirs.shape)
            ours, _ = linear.apply({"params": params["projector"]}, ours)

        def score(values):
            return critics.score(critic, params["critic"], values)

        pairs = losses.logit_mse(output.logits, teacher.logits).mean()
        metrics = {"logit_mse": pairs}
        student_loss = pair_weight * pairs
        if label_weight:
            metrics["hard"] = label_loss(output.logits, batch)
            student_loss += label_weight * metrics["hard"]
        if not reverse:
            against = losses.adversarial_student(score(ours), variant=variant).mean()
            student_loss += weight * against
        fake = losses.reverse_gradient(ours, weight) if reverse else ours
        source = losses.adversarial_critic(score(fake), score(theirs), variant=variant)
        critic_loss = metrics["critic"] = source.mean()
        if penalty:
            share = draw_uniform(key, len(theirs), axis_name)
            fixed = jax.lax.stop_gradient(ours)
            slopes = losses.gradient_penalty(score, fixed, theirs, share=share)
            critic_loss += penalty * jnp.mean(slopes)
        return {"student": student_loss, "critic": critic_loss}, (state, metrics)

    learner = ("student", "projector") if projector else "student"
    turns = () if reverse else (("critic", 1), (learner, student_steps))
    return Strategy(
        init,
        loss,
        turns=turns,
        labels=label_weight > 0,
        optim={"critic": critics.critic_optim(rate)},
    )
