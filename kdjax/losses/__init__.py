"""Distillation losses as pure functions of arrays; importing them needs only jax.

    name(student_x, teacher_x, *, options, axis=-1, where=None) -> one value per example

Losses of generators, critics and images have no pair to compare, and take other arrays.
The plain mean of the values is the published loss. `kdjax losses` lists all of them,
and the README of this folder has the rules and a row for each.
"""

import importlib
import warnings
from typing import Any

from kdjax.losses._aliases import ALIASES as ALIASES
from kdjax.losses._aliases import MOVED as MOVED
from kdjax.losses._combine import combine as combine
from kdjax.losses._dense.bounded_regression import (
    bounded_regression as bounded_regression,
)
from kdjax.losses._dense.fgd import fgd as fgd
from kdjax.losses._dense.fine_grained import (
    fine_grained_imitation as fine_grained_imitation,
)
from kdjax.losses._dense.inter_region_affinity import (
    inter_region_affinity as inter_region_affinity,
)
from kdjax.losses._dense.optical_flow import census_loss as census_loss
from kdjax.losses._dense.optical_flow import occlusion_mask as occlusion_mask
from kdjax.losses._dense.optical_flow import optical_flow as optical_flow
from kdjax.losses._dense.optical_flow import warp as warp
from kdjax.losses._dense.pairwise_affinity import pairwise_affinity as pairwise_affinity
from kdjax.losses._features.ab import ab as ab
from kdjax.losses._features.attention_transfer import (
    attention_transfer as attention_transfer,
)
from kdjax.losses._features.cat_kd import cat_kd as cat_kd
from kdjax.losses._features.compact_bilinear import compact_bilinear as compact_bilinear
from kdjax.losses._features.cwd import cwd as cwd
from kdjax.losses._features.factor_transfer import factor_transfer as factor_transfer
from kdjax.losses._features.fsp import dense_fsp as dense_fsp
from kdjax.losses._features.fsp import fsp as fsp
from kdjax.losses._features.fsp import fsp_matrix as fsp_matrix
from kdjax.losses._features.hint import channel_weighted_hint as channel_weighted_hint
from kdjax.losses._features.hint import hint_cosine as hint_cosine
from kdjax.losses._features.hint import hint_l1 as hint_l1
from kdjax.losses._features.hint import hint_l2 as hint_l2
from kdjax.losses._features.hint import hint_norm as hint_norm
from kdjax.losses._features.ickd import ickd as ickd
from kdjax.losses._features.input_gradients import (
    attention_transfer_gradient as attention_transfer_gradient,
)
from kdjax.losses._features.input_gradients import input_gradient as input_gradient
from kdjax.losses._features.input_gradients import (
    jacobian_matching as jacobian_matching,
)
from kdjax.losses._features.kdsvd import kdsvd as kdsvd
from kdjax.losses._features.kdsvd import singular_vectors as singular_vectors
from kdjax.losses._features.nst import nst as nst
from kdjax.losses._features.ofd import ofd as ofd
from kdjax.losses._features.ofd import ofd_margins as ofd_margins
from kdjax.losses._features.quantized_hint import quantized_hint as quantized_hint
from kdjax.losses._features.quantized_hint import uniform_quantize as uniform_quantize
from kdjax.losses._features.review_kd import review_kd as review_kd
from kdjax.losses._features.vid import vid as vid
from kdjax.losses._features.vid import vid_log_variance as vid_log_variance
from kdjax.losses._generative.dafl import generator_activation as generator_activation
from kdjax.losses._generative.dafl import generator_class_logit as generator_class_logit
from kdjax.losses._generative.dafl import generator_entropy as generator_entropy
from kdjax.losses._generative.dafl import generator_one_hot as generator_one_hot
from kdjax.losses._generative.deep_inversion import (
    batch_norm_statistics as batch_norm_statistics,
)
from kdjax.losses._generative.deep_inversion import (
    generator_competition as generator_competition,
)
from kdjax.losses._generative.disagreement import (
    generator_disagreement as generator_disagreement,
)
from kdjax.losses._generative.dual_gan import (
    generator_multi_label as generator_multi_label,
)
from kdjax.losses._generative.dual_gan import generator_sparsity as generator_sparsity
from kdjax.losses._generative.gan import adversarial_critic as adversarial_critic
from kdjax.losses._generative.gan import adversarial_student as adversarial_student
from kdjax.losses._generative.gan import gradient_penalty as gradient_penalty
from kdjax.losses._generative.gan import reverse_gradient as reverse_gradient
from kdjax.losses._generative.image_priors import image_l2 as image_l2
from kdjax.losses._generative.image_priors import (
    image_total_variation as image_total_variation,
)
from kdjax.losses._generative.kegnet import generator_diversity as generator_diversity
from kdjax.losses._generative.reconstruction import (
    activation_reconstruction as activation_reconstruction,
)
from kdjax.losses._logits.cross_entropy import (
    class_weighted_cross_entropy as class_weighted_cross_entropy,
)
from kdjax.losses._logits.cross_entropy import hard_cross_entropy as hard_cross_entropy
from kdjax.losses._logits.cross_entropy import soft_cross_entropy as soft_cross_entropy
from kdjax.losses._logits.cross_entropy import (
    soft_label_cross_entropy as soft_label_cross_entropy,
)
from kdjax.losses._logits.dist import dist as dist
from kdjax.losses._logits.dist import dist_inter as dist_inter
from kdjax.losses._logits.dist import dist_intra as dist_intra
from kdjax.losses._logits.distance import log_softmax_l2 as log_softmax_l2
from kdjax.losses._logits.distance import logit_l1 as logit_l1
from kdjax.losses._logits.distance import logit_l2 as logit_l2
from kdjax.losses._logits.distance import logit_mse as logit_mse
from kdjax.losses._logits.distance import probability_l1 as probability_l1
from kdjax.losses._logits.distance import probability_mse as probability_mse
from kdjax.losses._logits.dkd import dkd as dkd
from kdjax.losses._logits.dkd import dkd_non_target as dkd_non_target
from kdjax.losses._logits.dkd import dkd_target as dkd_target
from kdjax.losses._logits.kl import jeffreys as jeffreys
from kdjax.losses._logits.kl import jensen_shannon as jensen_shannon
from kdjax.losses._logits.kl import reverse_softmax_kl as reverse_softmax_kl
from kdjax.losses._logits.kl import softmax_kl as softmax_kl
from kdjax.losses._logits.lwf import lwf as lwf
from kdjax.losses._logits.mlld import mlld as mlld
from kdjax.losses._logits.mlld import mlld_batch as mlld_batch
from kdjax.losses._logits.mlld import mlld_class as mlld_class
from kdjax.losses._logits.policy_distillation import (
    policy_distillation as policy_distillation,
)
from kdjax.losses._logits.ranking_distillation import (
    ranking_distillation as ranking_distillation,
)
from kdjax.losses._logits.sigmoid import sigmoid_cross_entropy as sigmoid_cross_entropy
from kdjax.losses._logits.sigmoid import sigmoid_kl as sigmoid_kl
from kdjax.losses._logits.standardization import (
    standardize_logits as standardize_logits,
)
from kdjax.losses._logits.standardization import standardized_kl as standardized_kl
from kdjax.losses._logits.tf_kd import tf_kd as tf_kd
from kdjax.losses._logits.wsld import wsld as wsld
from kdjax.losses._relations.cc import cc as cc
from kdjax.losses._relations.crd import crd as crd
from kdjax.losses._relations.crd_memory import CRDMemory as CRDMemory
from kdjax.losses._relations.crd_memory import (
    crd_memory_calibrate as crd_memory_calibrate,
)
from kdjax.losses._relations.crd_memory import crd_memory_init as crd_memory_init
from kdjax.losses._relations.crd_memory import crd_memory_lookup as crd_memory_lookup
from kdjax.losses._relations.crd_memory import crd_memory_update as crd_memory_update
from kdjax.losses._relations.dark_rank import dark_rank as dark_rank
from kdjax.losses._relations.graph import (
    adjacency_reconstruction as adjacency_reconstruction,
)
from kdjax.losses._relations.graph import edge_smoothness as edge_smoothness
from kdjax.losses._relations.hashing import hashing_likelihood as hashing_likelihood
from kdjax.losses._relations.info_nce import info_nce as info_nce
from kdjax.losses._relations.irg import irg as irg
from kdjax.losses._relations.irg import irg_edges as irg_edges
from kdjax.losses._relations.irg import irg_transformation as irg_transformation
from kdjax.losses._relations.locality import locality_preserving as locality_preserving
from kdjax.losses._relations.mhgd import mhgd as mhgd
from kdjax.losses._relations.mmd import mmd as mmd
from kdjax.losses._relations.pkt import pkt as pkt
from kdjax.losses._relations.representational_similarity import (
    representational_similarity as representational_similarity,
)
from kdjax.losses._relations.rkd import rkd as rkd
from kdjax.losses._relations.rkd import rkd_angle as rkd_angle
from kdjax.losses._relations.rkd import rkd_distance as rkd_distance
from kdjax.losses._relations.sp import sp as sp
from kdjax.losses._relations.triplet import triplet_relation as triplet_relation
from kdjax.losses._sequences.attention import attention_map_kl as attention_map_kl
from kdjax.losses._sequences.attention import attention_map_mse as attention_map_mse
from kdjax.losses._sequences.attention import value_relation as value_relation
from kdjax.losses._sequences.hidden_states import hidden_state_mse as hidden_state_mse
from kdjax.losses._sequences.hidden_states import layer_map as layer_map
from kdjax.losses._sequences.linear_softmax_kl import (
    linear_softmax_kl as linear_softmax_kl,
)
from kdjax.losses._sequences.tokens import per_sequence as per_sequence
from kdjax.losses._sequences.tokens import sequence_nll as sequence_nll
from kdjax.losses._sequences.tokens import token_jsd as token_jsd
from kdjax.losses._sequences.tokens import token_kl as token_kl
from kdjax.losses._sequences.top_k import top_k_jsd as top_k_jsd
from kdjax.losses._sequences.top_k import top_k_kl as top_k_kl
from kdjax.losses.registry import REGISTRY as REGISTRY
from kdjax.losses.registry import RELATION as RELATION
from kdjax.losses.registry import Entry as Entry
from kdjax.losses.registry import find as find

__all__ = [  # pyright: ignore[reportUnsupportedDunderAll]
    *REGISTRY,
    *("ALIASES", "Entry", "REGISTRY", "RELATION", "find"),
]


def __getattr__(name: str) -> Any:
    """Names of the release before this one, each with a `DeprecationWarning`."""
    if name in ALIASES:
        module, new = "kdjax.losses", ALIASES[name]
    elif name in MOVED:
        module, new = "kdjax.targets", MOVED[name]
    else:
        raise AttributeError(f"module 'kdjax.losses' has no attribute {name!r}")
    text = f"kdjax.losses.{name} is now {module}.{new}"
    warnings.warn(text, DeprecationWarning, stacklevel=2)
    return getattr(importlib.import_module(module), new)
