"""The registry: complete, true to the functions, searchable; its page; former names."""

import fractions
import inspect
import re
import warnings

import pytest

from kdjax import losses, targets
from kdjax.losses import page, registry
from kdjax.losses._aliases import MOVED

ENTRIES = list(losses.REGISTRY.values())


def names(text):
    return [entry.name for entry in losses.find(text)]


def required(entry):
    """Names of the arguments without a default."""
    parameters = inspect.signature(entry.function).parameters.values()
    return [p.name for p in parameters if p.default is p.empty]


def test_registry_and_package_have_the_same_names():
    imported = {
        name
        for name, value in vars(losses).items()
        if callable(value) and not name.startswith("_")
    }
    registered = set(losses.REGISTRY) | {"Any", "Entry", "find"}
    missing = sorted(imported - registered)
    assert not missing, f"no entry(...) in _entries.py of their room: {missing}"
    missing = sorted(registered - imported)
    assert not missing, f"not imported in kdjax/losses/__init__.py: {missing}"
    assert set(losses.__all__) <= set(dir(losses))
    for name, entry in losses.REGISTRY.items():
        assert entry.function.__name__ == entry.name == name
        assert entry.function.__module__.split(".")[2] in (f"_{entry.room}", "_combine")


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name)
def test_entry_is_complete(entry):
    assert entry.method and entry.formula and entry.aliases and entry.goals
    if entry.paper:
        assert entry.tap and entry.invariances
    if entry.kernel:
        assert entry.paper
    assert bool(entry.term) <= bool(entry.paper)
    assert bool(entry.term) != bool(entry.missing)
    assert "as above" not in (entry.paper, entry.tap)
    assert not (entry.weight and entry.start)


@pytest.mark.parametrize(
    "entry", [e for e in ENTRIES if e.kernel], ids=lambda e: e.name
)
def test_needs_are_what_the_signature_requires(entry):
    more = required(entry)[2:]
    assert bool(more) == bool(set(entry.needs) - {"labels"} or "labels" in more)
    assert ("labels" in required(entry)) == ("labels" in entry.needs)


TAPS = ("end", "later")


@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.term], ids=lambda e: e.name)
def test_a_term_needs_nothing_but_taps_logits_and_labels(entry):
    first, *more = required(entry)
    assert first.startswith("student_")
    taps = {f"{side}_{tap}" for side in ("student", "teacher") for tap in TAPS}
    assert set(more[1:]) <= {"labels", "student_logits", "teacher_logits", *taps}
    assert set(entry.needs) <= {"labels", "logits", "several taps"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ReviewKD", ["review_kd"]),
        ("review kd", ["review_kd"]),
        ("2104.09044", ["review_kd"]),
        ("hierarchical_context", ["review_kd"]),
        ("decoupled knowledge distillation", ["dkd"]),
        ("AT", ["attention_transfer"]),
        ("RKD", ["rkd", "rkd_distance", "rkd_angle"]),
        ("arXiv 1910.10699", ["crd"]),
        ("no teacher", ["tf_kd"]),
        ("mutual", ["softmax_kl"]),
        ("deep mutual learning", ["softmax_kl"]),
        ("mutual information", ["vid"]),
        ("nothing of the kind whatsoever", []),
        ("", []),
    ],
)
def test_find(text, expected):
    assert names(text) == expected


@pytest.mark.parametrize(
    "goal",
    [
        *("match features of other width", "features of another width"),
        *("another width", "different width", "other width", "widths that differ"),
        *("features with a different number of channels", "Features, unequal widths"),
    ],
)
def test_find_by_goal_finds_features_of_any_width(goal):
    found = names(goal)
    assert {"attention_transfer", "nst", "rkd_distance", "sp", "pkt"} <= set(found)
    assert not {"hint_l2", "hint_cosine", "softmax_kl"} & set(found)


@pytest.mark.parametrize(
    ("goal", "name"),
    [
        *(("equal widths", "hint_l2"), ("match outputs", "softmax_kl")),
        *(("without data", "image_l2"), ("object detector", "fgd")),
        *(("vit layers", "value_relation"), ("without a teacher", "tf_kd")),
    ],
)
def test_a_goal_in_other_words(goal, name):
    assert name in [entry.name for entry in registry.find_goal(goal)]


@pytest.mark.parametrize("goal", registry.goals())
def test_every_goal_finds_its_losses(goal):
    having = {e.name for e in ENTRIES if goal in e.goals}
    assert having <= {entry.name for entry in registry.find_goal(goal)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ReviewKD", ["review_kd"]),
        ("decoupled_kdd", ["dkd"]),
        ("flow", ["fsp"]),
        ("RKD", ["rkd_distance", "rkd_angle", "rkd"]),
        ("fitnet", ["hint_l2"]),
        ("cosine_of_dreams", []),
    ],
)
def test_the_nearest_names_are_those_of_today(text, expected):
    assert registry.nearest(text, losses.REGISTRY) == expected


def numbers_of(text):
    """Numbers of a text; "half" and "1/2" are 0.5."""
    found = re.findall(r"\d+/\d+|\d+\.?\d*(?:e-?\d+)?", text)
    halves = [0.5] * text.startswith("half")
    return [float(fractions.Fraction(n)) for n in found] + halves


@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.term], ids=lambda e: e.name)
def test_the_weight_of_a_recipe_is_that_of_its_text(entry):
    numbers = numbers_of(entry.weight or entry.start)
    if entry.weight == "as `softmax_kl`":
        assert entry.term.weight == losses.REGISTRY["softmax_kl"].term.weight
    elif numbers:
        assert entry.term.weight in numbers
    else:
        assert entry.term.weight == 1


def test_the_page_lists_the_losses_that_compare_no_pair():
    found = {entry.name for entry in page.others(ENTRIES)}
    assert {"adversarial_student", "image_l2", "generator_one_hot"} <= found
    for entry in ENTRIES:
        if entry.paper:
            first, second, *_ = inspect.signature(entry.function).parameters
            pair = first[:7] == "student" and second[:7] in ("teacher", "labels")
            assert pair != (entry.name in found), entry.name


@pytest.mark.parametrize("name", losses.REGISTRY)
def test_every_spelling_finds_its_entry(name):
    entry = losses.REGISTRY[name]
    for text in (name, name.upper(), entry.method.split("(")[0], *entry.aliases):
        assert name in names(text), text


def test_years():
    years = {name: losses.REGISTRY[name].year for name in ("softmax_kl", "dkd", "fsp")}
    assert years == {"softmax_kl": 2015, "dkd": 2022, "fsp": 2017}
    assert losses.REGISTRY["review_kd"].year == 2021
    assert losses.REGISTRY["combine"].year is None


def test_the_page_is_that_of_the_registry():
    text = page.PATH.read_text()
    same = page.page(text) == text
    assert same, "run `python -m kdjax.losses.page`"


def test_former_names_are_the_new_functions():
    assert not set(losses.ALIASES) & set(losses.REGISTRY)
    for old, new in losses.ALIASES.items():
        with pytest.warns(DeprecationWarning, match=rf"{old} is now .*losses\.{new}$"):
            assert getattr(losses, old) is getattr(losses, new)
    for old, new in MOVED.items():
        with pytest.warns(DeprecationWarning, match=rf"{old} is now .*targets\.{new}$"):
            assert getattr(losses, old) is getattr(targets, new)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        losses.nonsense  # noqa: B018


def test_every_name_of_the_last_release_is_still_there():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for name in LAST_RELEASE.split():
            assert callable(getattr(losses, name)), name


# `kdjax.losses.__all__` of version 0.1.0, without RELATION.
LAST_RELEASE = """
Memory activation_boundary activation_reconstruction adjacency_reconstruction
adversarial_critic adversarial_student attention_map_kl attention_map_mse
attention_transfer attention_transfer_gradient batch_norm_statistics
bounded_regression box_weights census_loss channel_weighted_hint channel_wise
class_attention class_similarity class_weighted_cross_entropy combine compact_bilinear
confidence_weights contrastive_representation correlation_congruence dark_rank
decoupled_kd decoupled_non_target decoupled_target dense_flow dist dist_inter
dist_intra edge_smoothness ensemble_logits factor_transfer fidelity_weights flow
flow_matrix focal_imitation generator_activation generator_class_logit
generator_competition generator_disagreement generator_diversity generator_entropy
generator_multi_label generator_one_hot generator_sparsity gradient_penalty
graph_fourier_basis gumbel_softmax hard_cross_entropy hashing_likelihood
hidden_state_mse hierarchical_context hint_cosine hint_l1 hint_l2 hint_norm image_l2
image_total_variation imitation_mask impression_concentration info_nce
initial_log_variance input_gradient instance_edges instance_graph
instance_transformation inter_channel_correlation inter_region_affinity
jacobian_matching jeffreys jensen_shannon layer_map linear_softmax_kl
locality_preserving log_softmax_l2 logit_l1 logit_l2 logit_mse lwf_kd masked_imitation
maximum_mean_discrepancy memory_calibrate memory_init memory_lookup memory_update
multi_head_graph multi_level_logit neighbour_similarity neuron_selectivity noisy_votes
occlusion_mask optical_flow overhaul_margin overhaul_margins pairwise_affinity
per_sequence permute_dark_knowledge policy_kl private_epsilon probabilistic_transfer
probability_l1 probability_mse quantized_hint ranking_distillation reliability_mask
representational_similarity reverse_gradient reverse_softmax_kl rkd_angle rkd_distance
rule_teacher_logits sample_activations sample_soft_labels sequence_nll
sigmoid_cross_entropy sigmoid_kl similarity_preserving singular_value singular_vectors
soft_cross_entropy softmax_kl standardize_logits standardized_kl teacher_free_kl
teacher_weights token_jsd token_kl top_k_kl triplet_relation uniform_quantize
value_relation variational_information warp weighted_soft_label
"""
