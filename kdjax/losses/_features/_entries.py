"""Registry entries of the losses of feature maps."""

from kdjax.losses._entry import entry, recipe

ENTRIES = (
    entry(
        "hint_l2",
        "FitNets hint (L2)",
        formula=(
            'mean `(s - t)^2`; `"fitnets"`: half the sum over channels, mean over '
            'positions; `"partial"`: sum where either is positive'
        ),
        paper="FitNets (1412.6550)",
        weight='100 (`"mean"`, RepDistiller); `"partial"` 1e-6',
        tap="one middle stage, student through a 1x1 convolution",
        invariances="one shift or permutation of student and teacher",
        aliases="fitnet, fitnets, hint, feature mse, l2",
        goals="match features of the same width, features through a projector",
        kernel=True,
        term=recipe("stage2", projector=True, weight=100),
    ),
    entry(
        "hint_l1",
        "Hint with L1 distance",
        formula="mean `abs(s - t)`",
        paper="the hint of FitNets (1412.6550), without squares",
        start="depends on the scale of the features",
        tap="one middle stage, student through a 1x1 convolution",
        invariances="one shift or permutation of student and teacher",
        aliases="feature l1, mae",
        goals="match features of the same width, features through a projector",
        kernel=True,
        term=recipe("stage2", projector=True),
    ),
    entry(
        "hint_cosine",
        "Cosine hint (DistilBERT)",
        formula="mean over positions of `1 - cos(s_p, t_p)`",
        paper="DistilBERT (1910.01108)",
        weight="1, with 5 for soft targets",
        tap="hidden states, or maps",
        invariances=(
            "positive scale of any vector; one rotation of both networks' channels"
        ),
        aliases="distilbert, cosine, cosine embedding",
        goals="match features of the same width, hidden states, scale-free",
        kernel=True,
        term=recipe("stage2", projector=True),
    ),
    entry(
        "hint_norm",
        "Hint of Be Your Own Teacher (BYOT)",
        formula="`(sum_ip (s_ip - t_ip)^2)^(1/2)` of the whole batch",
        paper="Be Your Own Teacher (1905.08094), the authors' later code",
        tap=(
            "each exit but the shallowest, against the last; flattened, after an "
            "adapter"
        ),
        invariances="one shift of student and teacher",
        aliases="byot, self distillation, be your own teacher",
        goals="match features of the same width, self-distillation",
        kernel=True,
        term=recipe("embedding", projector=True),
        relation=True,
    ),
    entry(
        "channel_weighted_hint",
        "Learning what and where to transfer (L2T-ww)",
        formula="`sum_c w_c mean_p (s_pc - t_pc)^2`",
        paper="Learning What and Where to Transfer (1905.05901)",
        weight="0.5, times a learned weight per pair of stages",
        tap="pairs of stages, student through a 1x1 convolution, teacher resized",
        invariances="one shift of student and teacher",
        aliases="l2t, l2tww, meta transfer",
        goals="match features of the same width, transfer learning",
        kernel=True,
        needs="channel weights",
    ),
    entry(
        "uniform_quantize",
        "Uniform quantization of activations",
        formula=(
            "nearest of evenly spaced levels, straight-through gradient; for "
            "weights: `kdjax.compress`"
        ),
        aliases="quantize, straight through",
        goals="quantization",
    ),
    entry(
        "quantized_hint",
        "Quantization mimic",
        formula="`1/2 (Q(s) - Q(t))^2` summed over channels",
        paper="Quantization mimic (1805.02152)",
        start="1 to start",
        tap="features of proposals",
        invariances="changes within a level",
        aliases="quantization mimic, mimic",
        goals="match features of the same width, quantization, detection",
        kernel=True,
        needs="levels",
    ),
    entry(
        "attention_transfer",
        "Attention transfer (AT)",
        formula=(
            'mean `(a_s - a_t)^2`, `a = mean_c abs(f)^2` of length 1; `"paper"`: '
            "half the norm"
        ),
        paper="Attention transfer (1612.03928)",
        weight='1000 for each pair (`"code"`)',
        tap="ends of the residual groups",
        invariances=(
            "channel permutation, scale, sign of either map; numbers of channels "
            "may differ"
        ),
        aliases="at, attention",
        goals="match features of other width, spatial attention maps, no projector",
        kernel=True,
        term=recipe("stage2", weight=1000),
    ),
    entry(
        "factor_transfer",
        "Factor transfer (FT)",
        formula=(
            'mean `abs(s - t)` of factors of length 1; `"attention"`: of their '
            "attention maps"
        ),
        paper="Factor transfer (1802.04977)",
        weight='200 (RepDistiller, `"attention"`)',
        tap="last map, through paraphraser and translator",
        invariances="positive scale of either factor",
        aliases="ft, paraphraser, translator",
        goals="match features through a paraphraser, factors",
        kernel=True,
        term=recipe("stage3", projector=True, weight=200),
    ),
    entry(
        "cat_kd",
        "Class attention transfer (CAT-KD)",
        formula=(
            "mean squared difference of class activation maps in `r x r` bins, each"
            " class of length 1"
        ),
        paper="CAT-KD (2304.12777)",
        weight="0.7 to 600 by pair; 0.5 on ImageNet",
        tap="class maps: the classifier as a 1x1 convolution on the last map",
        invariances="positive scale of a class of student or teacher",
        aliases="catkd, class attention transfer, class activation maps, cam",
        goals="class activation maps, interpretable",
        kernel=True,
        term=recipe("class_maps", weight=0.7),
    ),
    entry(
        "review_kd",
        "Knowledge review (ReviewKD): hierarchical context loss (HCL)",
        formula=(
            "mean squared difference of the maps and of their 4x4, 2x2, 1x1 means, "
            "weights 1, 1/2, 1/4, 1/8 normalized"
        ),
        paper="ReviewKD (2104.09044)",
        weight="0.6 to 8 by pair, rising over 20 epochs",
        tap="fused maps of every stage; the fusion module (ABF) is not included, so a "
        "term compares one stage as it is",
        invariances="one shift of student and teacher",
        aliases="reviewkd, hcl, knowledge review, hierarchical context",
        goals=(
            "match features of the same width, several stages, features through a "
            "projector"
        ),
        kernel=True,
        term=recipe("stage2", projector=True, weight=0.6),
    ),
    entry(
        "cwd",
        "Channel-wise distillation (CWD)",
        formula="`T^2/C sum_c KL(softmax_p(t_c / T), softmax_p(s_c / T))`",
        paper="CWD (2011.13256)",
        start="3 for logits, 50 for features to start, `T = 4`",
        tap="dense logits or last map",
        invariances="a constant added to a channel",
        aliases="channel wise distillation, channel distillation",
        goals=(
            "dense prediction, segmentation, detection, feature maps, spatial "
            "distribution"
        ),
        kernel=True,
        term=recipe("stage3", projector=True, weight=50),
    ),
    entry(
        "ickd",
        "Inter-channel correlation (ICKD)",
        formula=(
            "`1/C` squared distance of the channel Gram matrices with rows of length 1"
        ),
        paper="ICKD (2202.03680)",
        start="2.5 to start",
        tap="last map before the pooling",
        invariances="scale and sign of either map; a permutation of its positions",
        aliases="ickd-c, inter channel correlation, gram",
        goals="match feature maps of other size, channel correlation",
        kernel=True,
        term=recipe("stage3", projector=True, weight=2.5),
    ),
    entry(
        "nst",
        "Neuron selectivity transfer (NST)",
        formula=(
            "squared MMD of channels of length 1; kernels linear, `<a, b>^2`, "
            'Gaussian; `"released"` without the teacher\'s own term'
        ),
        paper="NST (1707.01219)",
        weight="50 (polynomial)",
        tap="last block of convolutions",
        invariances=(
            "channel permutation and positive channel scales of student or teacher; "
            "numbers of channels may differ"
        ),
        aliases="neuron selectivity transfer, mmd",
        goals="match features of other width, no projector",
        kernel=True,
        term=recipe("stage3", weight=50),
    ),
    entry(
        "ab",
        "Activation boundaries (AB)",
        formula=(
            "`(s + m)^2` where `t <= 0, s > -m`; `(s - m)^2` where `t > 0, s <= m`; sum"
        ),
        paper="AB (1811.03233)",
        weight="0.003 in the last stage, half in each before",
        tap="before the ReLU, all stages",
        invariances="any change of the teacher that keeps its signs",
        aliases="activation boundaries, boundary",
        goals="match features of the same width, signs before the relu",
        kernel=True,
        term=recipe("stage3_pre", projector=True, weight=0.003),
    ),
    entry(
        "ofd",
        "Overhaul of feature distillation (OFD)",
        formula="`(s - u)^2` where `s > u` or `t > 0`, `u = max(t, m_c)`; sum",
        paper="Overhaul (1904.01866)",
        weight="0.001 (ImageNet 0.0001) in the last stage, half in each before",
        tap="before the ReLU, behind the BatchNorm; `m` from `ofd_margins`",
        invariances="students below a negative target",
        aliases="overhaul, comprehensive overhaul, partial l2",
        goals=(
            "match features of the same width, features through a projector, before"
            " the relu"
        ),
        kernel=True,
        needs="margins",
    ),
    entry(
        "ofd_margins",
        "Margins of OFD from a BatchNorm",
        formula=(
            "mean of each channel's negative part, from a BatchNorm's scale and "
            "bias; for `ofd`"
        ),
        aliases="overhaul margins",
        goals="helper of ofd",
    ),
    entry(
        "fsp",
        "Flow of the solution procedure (FSP)",
        formula='mean (`"sum"`: sum) of `(G_s - G_t)^2`, `G = 1/P start^T end`',
        paper="FSP (CVPR 2017)",
        weight='50 (`"mean"`), alone first',
        tap="beginning and end of each stage",
        invariances=(
            "one permutation of a network's positions; a factor moved from one end "
            "to the other"
        ),
        aliases="flow, gift from knowledge distillation, gram",
        goals="several taps, between layers",
        kernel=True,
        needs="several taps",
        term=recipe("stem", "stage1", projector=True, weight=50),
    ),
    entry(
        "fsp_matrix",
        "FSP matrix of two maps",
        formula="`1/P start^T end`, for `fsp` and `dense_fsp`",
        aliases="flow matrix, gram",
        goals="helper of fsp",
    ),
    entry(
        "dense_fsp",
        "Densely distilled flow (dense FSP)",
        formula="`fsp` averaged over all pairs of taps `i < j <= m`",
        paper="Densely distilled flow (10.1109/TIP.2020.2984362), our reading",
        start="1 to start",
        tap="ends of all stages, swept bottom to top",
        invariances="as `fsp`",
        aliases="dense flow, densely distilled flow",
        goals="several taps, between layers",
        needs="several taps",
        term=recipe("stage1", "stage2", "stage3", projector=True),
    ),
    entry(
        "kdsvd",
        "Knowledge distillation by singular value decomposition (KD-SVD)",
        formula=(
            "`sum (exp(-(u - v)^2 / 8)_s - (...)_t)^2` over entries of the first "
            "singular vectors of two layers"
        ),
        paper="KD-SVD (1807.06819)",
        weight="1 (RepDistiller)",
        tap="consecutive stages",
        invariances="scale and sign of a map; an orthogonal turn of its positions",
        aliases="svd, kd-svd, radial basis",
        goals="several taps, between layers, feature maps of other size",
        kernel=True,
        needs="several taps",
        term=recipe("stage1", "stage2", projector=True),
    ),
    entry(
        "singular_vectors",
        "Strongest singular vectors of a map",
        formula=(
            "strongest right singular vectors of two maps, the student's signs "
            "aligned; for `kdsvd` and `mhgd`"
        ),
        aliases="svd",
        goals="helper of kdsvd and mhgd",
    ),
    entry(
        "vid",
        "Variational information distillation (VID)",
        formula="mean `((t - s)^2 / v_c + log v_c) / 2`, `v = softplus(a) + eps`",
        paper="VID (1904.05835)",
        weight="1 for each pair",
        tap="all stages, student through a regressor",
        invariances="one shift of student and teacher",
        aliases="variational information distillation, mutual information",
        goals=(
            "match features through a regressor, several stages, features of other "
            "width"
        ),
        kernel=True,
        needs="trained variances",
    ),
    entry(
        "vid_log_variance",
        "Initial parameter of VID's variances",
        formula="starting value of the parameter `log_variance` of `vid`",
        aliases="initial log variance",
        goals="helper of vid",
    ),
    entry(
        "compact_bilinear",
        "Compact bilinear pooling",
        formula="outer product of two vectors, sketched to a short vector",
        aliases="tensor sketch, count sketch",
        goals="products of features",
    ),
    entry(
        "input_gradient",
        "Gradient of a score in the input",
        formula=(
            "gradient of one score per example in the input, for the losses on "
            "gradients"
        ),
        aliases="saliency, jacobian",
        goals="helper of losses on gradients",
    ),
    entry(
        "attention_transfer_gradient",
        "Gradient-based attention transfer",
        formula="`norm(J_s - J_t) / 2`, `J` the gradient of the loss in the input",
        paper="Attention transfer (1612.03928)",
        start="1 to start",
        tap="`input_gradient` of the loss",
        invariances="one rotation of student and teacher",
        aliases="at gradient, gradient attention",
        goals="input gradients, saliency",
        kernel=True,
    ),
    entry(
        "jacobian_matching",
        "Jacobian matching",
        formula=(
            '`norm(J_s / norm(J_s) - J_t / norm(J_t))^2`; `"mean"`: over the entries'
        ),
        paper="Jacobian matching (1803.00443)",
        start="1 to start",
        tap="`input_gradient` of the class's logit",
        invariances="positive scale of student or teacher",
        aliases="jacobian, gradient matching",
        goals="input gradients, few examples",
        kernel=True,
    ),
)
