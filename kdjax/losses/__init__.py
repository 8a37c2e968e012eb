"""Distillation losses as pure functions of arrays; importing them needs only jax.

A kernel is called as

    name(student_x, teacher_x, *, knobs, axis=-1, where=None) -> one value per example

and keeps these laws, which `tests/contracts/test_losses.py` holds every one of them to:

- The plain mean of the values is the published loss, in the reduction its weights were
  tuned for. There is no `reduction`, no weight and no hidden state: `combine` weighs.
  The proportions of a loss of several terms are knobs (`dist`, `instance_graph`).
- Tempered losses carry the temperature squared inside. Sums run in at least float32:
  half precision is widened, float64 stays.
- No kernel stops the gradient to a side; whoever owns the teacher does. What a formula
  holds constant is constant, and the docstring says so: the teacher's order in
  `dark_rank`, the weight of the released form of `weighted_soft_label`.
- Values and gradients of both arguments are finite for every finite input whose squares
  are: zeros, duplicates, one example, ±1e4, saturated teachers. A gradient has the
  dtype of its argument: in float16 one beyond 65 504 is infinite (`flow` at ±1e4, say).
- Shapes and dtypes are checked while tracing, and the error names the argument. So are
  values (labels and indices out of range, temperatures and widths not above 0) where
  they are known. Traced ones pass at no cost, and are checked at run time under
  `jax.experimental.checkify.checkify`, which the error then goes through.
- `where` selects entries inside the reduced axes (classes, channels, positions), and is
  then the same as slicing. In the kernels of `RELATION`, and in the generator losses of
  pairs (`generator_diversity`, `generator_competition`), it selects examples. Nothing
  that is left out, NaN included, reaches a value or a gradient.
- The kernels of `RELATION` mean the global batch: under `jax.jit` over a mesh of
  `AxisType.Auto`, elsewhere with what `kdjax.core.collectives` gathers.
"""

from kdjax.losses.adversarial import (
    adversarial_critic,
    adversarial_student,
    gradient_penalty,
    reverse_gradient,
)
from kdjax.losses.attention import (
    attention_map_kl,
    attention_map_mse,
    value_relation,
)
from kdjax.losses.boundary import (
    activation_boundary,
    overhaul_margin,
    overhaul_margins,
)
from kdjax.losses.channels import (
    channel_weighted_hint,
    channel_wise,
    inter_channel_correlation,
    neuron_selectivity,
)
from kdjax.losses.combine import (
    combine,
)
from kdjax.losses.confidence import (
    confidence_weights,
    fidelity_weights,
    reliability_mask,
)
from kdjax.losses.contrastive import (
    contrastive_representation,
    info_nce,
)
from kdjax.losses.decoupled import (
    decoupled_kd,
    decoupled_non_target,
    decoupled_target,
    lwf_kd,
)
from kdjax.losses.dense import (
    inter_region_affinity,
    pairwise_affinity,
    quantized_hint,
    uniform_quantize,
)
from kdjax.losses.detection import (
    bounded_regression,
    box_weights,
    focal_imitation,
    imitation_mask,
)
from kdjax.losses.discrepancy import (
    compact_bilinear,
    maximum_mean_discrepancy,
)
from kdjax.losses.ensemble import (
    ensemble_logits,
    teacher_weights,
)
from kdjax.losses.feature import (
    hint_cosine,
    hint_l1,
    hint_l2,
    hint_norm,
)
from kdjax.losses.flow import (
    dense_flow,
    flow,
    flow_matrix,
)
from kdjax.losses.generator import (
    generator_activation,
    generator_class_logit,
    generator_entropy,
    generator_one_hot,
    image_l2,
    image_total_variation,
)
from kdjax.losses.gradient import (
    attention_transfer_gradient,
    input_gradient,
    jacobian_matching,
)
from kdjax.losses.graph import (
    adjacency_reconstruction,
    edge_smoothness,
    locality_preserving,
    multi_head_graph,
)
from kdjax.losses.hashing import (
    hashing_likelihood,
    neighbour_similarity,
)
from kdjax.losses.hidden import (
    hidden_state_mse,
    layer_map,
)
from kdjax.losses.impressions import (
    activation_reconstruction,
    class_similarity,
    graph_fourier_basis,
    impression_concentration,
    sample_activations,
    sample_soft_labels,
)
from kdjax.losses.instances import (
    instance_edges,
    instance_graph,
    instance_transformation,
)
from kdjax.losses.linear import (
    linear_softmax_kl,
)
from kdjax.losses.maps import (
    attention_transfer,
    class_attention,
    factor_transfer,
    hierarchical_context,
    masked_imitation,
)
from kdjax.losses.memory import (
    Memory,
    memory_calibrate,
    memory_init,
    memory_lookup,
    memory_update,
)
from kdjax.losses.motion import (
    census_loss,
    occlusion_mask,
    optical_flow,
    warp,
)
from kdjax.losses.prediction import (
    dist,
    dist_inter,
    dist_intra,
    multi_level_logit,
)
from kdjax.losses.privacy import (
    noisy_votes,
    private_epsilon,
)
from kdjax.losses.ranking import (
    dark_rank,
    ranking_distillation,
)
from kdjax.losses.regression import (
    log_softmax_l2,
    logit_l1,
    logit_l2,
    probability_l1,
    probability_mse,
    sigmoid_kl,
)
from kdjax.losses.relation import (
    rkd_angle,
    rkd_distance,
    triplet_relation,
)
from kdjax.losses.response import (
    hard_cross_entropy,
    jeffreys,
    jensen_shannon,
    logit_mse,
    reverse_softmax_kl,
    soft_cross_entropy,
    softmax_kl,
)
from kdjax.losses.sequence import (
    per_sequence,
    sequence_nll,
    token_jsd,
    token_kl,
)
from kdjax.losses.similarity import (
    correlation_congruence,
    probabilistic_transfer,
    representational_similarity,
    similarity_preserving,
)
from kdjax.losses.singular import (
    singular_value,
    singular_vectors,
)
from kdjax.losses.soft_targets import (
    class_weighted_cross_entropy,
    policy_kl,
    sigmoid_cross_entropy,
)
from kdjax.losses.sparse import (
    top_k_kl,
)
from kdjax.losses.standardized import (
    standardize_logits,
    standardized_kl,
)
from kdjax.losses.statistics import (
    batch_norm_statistics,
    initial_log_variance,
    variational_information,
)
from kdjax.losses.synthesis import (
    generator_competition,
    generator_disagreement,
    generator_diversity,
    generator_multi_label,
    generator_sparsity,
)
from kdjax.losses.targets import (
    gumbel_softmax,
    permute_dark_knowledge,
    rule_teacher_logits,
)
from kdjax.losses.weighted import (
    teacher_free_kl,
    weighted_soft_label,
)

RELATION = frozenset(
    {
        "correlation_congruence",
        "dark_rank",
        "dist",
        "dist_intra",
        "hint_norm",
        "info_nce",
        "instance_edges",
        "instance_graph",
        "instance_transformation",
        "locality_preserving",
        "maximum_mean_discrepancy",
        "multi_head_graph",
        "multi_level_logit",
        "probabilistic_transfer",
        "representational_similarity",
        "rkd_angle",
        "rkd_distance",
        "similarity_preserving",
        "triplet_relation",
    }
)

__all__ = [
    "Memory",
    "RELATION",
    "activation_boundary",
    "activation_reconstruction",
    "adjacency_reconstruction",
    "adversarial_critic",
    "adversarial_student",
    "attention_map_kl",
    "attention_map_mse",
    "attention_transfer",
    "attention_transfer_gradient",
    "batch_norm_statistics",
    "bounded_regression",
    "box_weights",
    "census_loss",
    "channel_weighted_hint",
    "channel_wise",
    "class_attention",
    "class_similarity",
    "class_weighted_cross_entropy",
    "combine",
    "compact_bilinear",
    "confidence_weights",
    "contrastive_representation",
    "correlation_congruence",
    "dark_rank",
    "decoupled_kd",
    "decoupled_non_target",
    "decoupled_target",
    "dense_flow",
    "dist",
    "dist_inter",
    "dist_intra",
    "edge_smoothness",
    "ensemble_logits",
    "factor_transfer",
    "fidelity_weights",
    "flow",
    "flow_matrix",
    "focal_imitation",
    "generator_activation",
    "generator_class_logit",
    "generator_competition",
    "generator_disagreement",
    "generator_diversity",
    "generator_entropy",
    "generator_multi_label",
    "generator_one_hot",
    "generator_sparsity",
    "gradient_penalty",
    "graph_fourier_basis",
    "gumbel_softmax",
    "hard_cross_entropy",
    "hashing_likelihood",
    "hidden_state_mse",
    "hierarchical_context",
    "hint_cosine",
    "hint_l1",
    "hint_l2",
    "hint_norm",
    "image_l2",
    "image_total_variation",
    "imitation_mask",
    "impression_concentration",
    "info_nce",
    "initial_log_variance",
    "input_gradient",
    "instance_edges",
    "instance_graph",
    "instance_transformation",
    "inter_channel_correlation",
    "inter_region_affinity",
    "jacobian_matching",
    "jeffreys",
    "jensen_shannon",
    "layer_map",
    "linear_softmax_kl",
    "locality_preserving",
    "log_softmax_l2",
    "logit_l1",
    "logit_l2",
    "logit_mse",
    "lwf_kd",
    "masked_imitation",
    "maximum_mean_discrepancy",
    "memory_calibrate",
    "memory_init",
    "memory_lookup",
    "memory_update",
    "multi_head_graph",
    "multi_level_logit",
    "neighbour_similarity",
    "neuron_selectivity",
    "noisy_votes",
    "occlusion_mask",
    "optical_flow",
    "overhaul_margin",
    "overhaul_margins",
    "pairwise_affinity",
    "per_sequence",
    "permute_dark_knowledge",
    "policy_kl",
    "private_epsilon",
    "probabilistic_transfer",
    "probability_l1",
    "probability_mse",
    "quantized_hint",
    "ranking_distillation",
    "reliability_mask",
    "representational_similarity",
    "reverse_gradient",
    "reverse_softmax_kl",
    "rkd_angle",
    "rkd_distance",
    "rule_teacher_logits",
    "sample_activations",
    "sample_soft_labels",
    "sequence_nll",
    "sigmoid_cross_entropy",
    "sigmoid_kl",
    "similarity_preserving",
    "singular_value",
    "singular_vectors",
    "soft_cross_entropy",
    "softmax_kl",
    "standardize_logits",
    "standardized_kl",
    "teacher_free_kl",
    "teacher_weights",
    "token_jsd",
    "token_kl",
    "top_k_kl",
    "triplet_relation",
    "uniform_quantize",
    "value_relation",
    "variational_information",
    "warp",
    "weighted_soft_label",
]
