"""Registry entries of the losses of relations between examples."""

from kdjax.losses._entry import entry, recipe

ENTRIES = (
    entry(
        "rkd_distance",
        "Relational knowledge distillation, distance-wise (RKD-D)",
        formula="`1/N sum_j Huber_1(d_ij^t/mu^t - d_ij^s/mu^s)`",
        paper="Park et al. 2019 (1904.05068)",
        weight="25 (metric learning 1)",
        tap="pooled embedding",
        invariances="rotation, shift, scale of student or teacher; widths free",
        aliases="rkd, rkd-d, rkdd, relational",
        goals=(
            "relations between examples, match features of other width, no "
            "projector, metric learning"
        ),
        kernel=True,
        term=recipe("embedding", weight=25),
        relation=True,
    ),
    entry(
        "rkd_angle",
        "Relational knowledge distillation, angle-wise (RKD-A)",
        formula="`1/N^2 sum_ik Huber_1(A_jik^t - A_jik^s)`, `A` cosines of angles",
        paper="Park et al. 2019 (1904.05068)",
        weight="50 (metric learning 2)",
        tap="pooled embedding",
        invariances="rotation, shift, scale of student or teacher; widths free",
        aliases="rkd, rkd-a, rkda, relational",
        goals=(
            "relations between examples, match features of other width, no "
            "projector, metric learning"
        ),
        kernel=True,
        term=recipe("embedding", weight=50),
        relation=True,
    ),
    entry(
        "rkd",
        "Relational knowledge distillation (RKD), any potential",
        formula="mean over tuples of `Huber(psi(t_i, t_j, ..) - psi(s_i, s_j, ..))`",
        paper="Park et al. 2019 (1904.05068)",
        start="that of the potential; 25 for distances, 50 for angles",
        tap="pooled embedding",
        invariances="those of the potential; widths free",
        aliases="relational, relational kd, potential",
        goals="relations between examples, match features of other width, no projector",
        kernel=True,
        needs="potential",
        relation=True,
    ),
    entry(
        "triplet_relation",
        "Relative dissimilarity of triplets (several teachers)",
        formula=(
            "mean over pairs of `max(0, d_ij - d_ik + margin)` in the order the "
            "teachers' majority has"
        ),
        paper="You et al. 2017 (KDD, no arXiv)",
        start="1 to start",
        tap="one pooled intermediate tap per network",
        invariances=(
            "rotation and scale per row of student or teacher; any change of a teacher "
            "that keeps the order; widths free"
        ),
        aliases="triplet, multiple teachers, relative dissimilarity",
        goals=(
            "relations between examples, several teachers, match features of other "
            "width"
        ),
        kernel=True,
        term=recipe("embedding"),
        relation=True,
    ),
    entry(
        "sp",
        "Similarity-preserving distillation (SP)",
        formula="`1/N sum_j (g_ij^t - g_ij^s)^2`, `G = QQ^T` with unit rows",
        paper="Tung, Mori 2019 (1907.09682)",
        weight="3000",
        tap="last block, flattened",
        invariances="rotation, scale of student or teacher; widths free",
        aliases="similarity preserving, spkd",
        goals=(
            "relations between examples, match features of other width, no projector"
        ),
        kernel=True,
        term=recipe("stage3", weight=3000),
        relation=True,
    ),
    entry(
        "representational_similarity",
        "Representational similarity analysis (RSA)",
        formula="`1 - corr` of the two tables `1 - corr(f_i, f_j)` over pairs",
        paper="Teacher Guided Architecture Search (1808.01405)",
        weight="a score there; none as a loss",
        tap="several layers, flattened",
        invariances="scale and shift of each example's features; widths free",
        aliases="rsa, rdm, tgsa, architecture search",
        goals=(
            "relations between examples, match features of other width, "
            "architecture search"
        ),
        kernel=True,
        term=recipe("embedding"),
        relation=True,
    ),
    entry(
        "cc",
        "Correlation congruence (CC, CCKD)",
        formula=(
            "`1/N sum_j (C_ij^t - C_ij^s)^2`, Taylor series of a Gaussian of unit "
            'rows, or kernels bilinear and MMD; `"consecutive"`: `sum_d abs(d_i) '
            "abs(d_(i+1))`, `d = f^s - f^t`"
        ),
        paper="Peng et al. 2019 (1904.01802)",
        weight='100 (KD-Zoo); `"consecutive"` 0.02 (RepDistiller)',
        tap='pooled features; `"consecutive"`: trained 128-d linear embeddings',
        invariances=(
            'rotation, scale of any row; widths free; `"consecutive"`: a shift of '
            "both, depends on batch order"
        ),
        aliases="cckd, correlation congruence",
        goals=(
            "relations between examples, match features of other width, no projector"
        ),
        kernel=True,
        term=recipe("embedding", weight=100),
        relation=True,
    ),
    entry(
        "pkt",
        "Probabilistic knowledge transfer (PKT)",
        formula=(
            "`1/N sum_j P^t log((P^t+eps)/(P^s+eps))`, `P` row-normalized "
            '`(cos+1)/2`; `"paper"`: summed over all pairs `j != i`'
        ),
        paper="Passalis, Tefas 2018 (1803.10837)",
        weight="30000",
        tap="embeddings",
        invariances="rotation, scale of any row; widths free",
        aliases="probabilistic knowledge transfer",
        goals=(
            "relations between examples, match features of other width, no "
            "projector, no labels"
        ),
        kernel=True,
        term=recipe("embedding", weight=30000),
        relation=True,
    ),
    entry(
        "irg",
        "Instance relationship graph (IRG)",
        formula="`0.1 logit_mse + 5 edges + 5 transformation`",
        paper="Liu et al. 2019 (CVPR, no arXiv)",
        weight="1; its three proportions are options, 0.1, 5, 5 KD-Zoo's",
        tap="ends of two stages, pooled, and logits",
        invariances="none common to all three terms",
        aliases="instance relationship graph",
        goals=(
            "relations between examples, several taps, match features of other width"
        ),
        kernel=True,
        needs="several taps, logits",
        relation=True,
        term=recipe("stem", "stage1"),
    ),
    entry(
        "irg_edges",
        "Edges of an instance relationship graph (IRG)",
        formula="`1/N sum_j (E_ij^t - E_ij^s)^2`, `E = d^2 / max d^2`",
        paper="Liu et al. 2019 (CVPR, no arXiv)",
        weight="5 (KD-Zoo)",
        tap="embedding, pooled stage maps",
        invariances="rotation, shift, scale of student or teacher; widths free",
        aliases="irg edges, instance relationship graph",
        goals="relations between examples, match features of other width",
        kernel=True,
        term=recipe("embedding", weight=5),
        relation=True,
    ),
    entry(
        "irg_transformation",
        "Feature space transformation of an instance relationship graph (IRG)",
        formula=(
            "`(t_i^t - t_i^s)^2`, `t_i` squared step between two layers over the "
            "largest"
        ),
        paper="Liu et al. 2019 (CVPR, no arXiv)",
        weight="5 (KD-Zoo)",
        tap="ends of two stages, pooled",
        invariances=("scale of either network; rotation and shift of both its layers"),
        aliases="instance relationship graph",
        goals="relations between examples, several taps, between layers",
        kernel=True,
        needs="several taps",
        relation=True,
        term=recipe("stem", "stage1", weight=5),
    ),
    entry(
        "locality_preserving",
        "Locality preserving loss (LP)",
        formula="`1/k sum_(j in kNN_t(i)) exp(-d_t^2/sigma^2) d_s^2`",
        paper="Chen et al. 2021 (1812.06597)",
        weight="1.5 with k = 5 (ports)",
        tap="penultimate features",
        invariances=(
            "rotation, shift of either network; scale of the teacher without `sigma`"
        ),
        aliases="locality preserving",
        goals=("relations between examples, match features of other width, neighbors"),
        kernel=True,
        term=recipe("embedding", weight=1.5),
        relation=True,
    ),
    entry(
        "mhgd",
        "Multi-head graph distillation (MHGD)",
        formula="`N sum_hj G^s (log G^s - log G^t)`, `G = softmax tanh <S v, R u>`",
        paper="Lee, Song 2019 (1907.02226)",
        start="1 to start, summed over taps",
        tap="unit vectors of consecutive taps, frozen heads",
        invariances="none",
        aliases="multi head graph distillation, graph attention, mhgkd",
        goals="relations between examples, several taps, between layers",
        kernel=True,
        needs="several taps, attention heads",
        relation=True,
    ),
    entry(
        "edge_smoothness",
        "Smoothness along the edges of a graph",
        formula="mean squared distance of the two ends of each edge",
        aliases="laplacian, graph laplacian, gnn",
        goals="graphs",
    ),
    entry(
        "adjacency_reconstruction",
        "Adjacency reconstruction of a graph auto-encoder (GAE)",
        formula=(
            "binary cross-entropy of inner products against a graph's edges; weight 1"
        ),
        aliases="gae, graph auto-encoder, gnn",
        goals="graphs",
    ),
    entry(
        "dark_rank",
        "DarkRank",
        formula=(
            "`-log P_s(order of the teacher's n nearest)`, or the divergence over "
            "all orders; scores `-3 d^3`"
        ),
        paper="DarkRank (1707.01220); RKD's code",
        start="1 to start",
        tap="embeddings of length 1",
        invariances="rotation, shift of student or teacher; widths free",
        aliases="darkrank, cross sample similarities, listwise",
        goals=(
            "relations between examples, match features of other width, ranking, "
            "metric learning"
        ),
        kernel=True,
        term=recipe("embedding"),
        relation=True,
    ),
    entry(
        "mmd",
        "Maximum mean discrepancy (MMD)",
        formula="`mean k(t, t') + mean k(s, s') - 2 mean k(s, t)`",
        paper="Zhang, Peng (IJCAI 2018); Gretton 2012",
        start="1 to start",
        tap="pooled features of one width",
        invariances="permutation of student's or teacher's examples (the mean)",
        aliases="maximum mean discrepancy, domain adaptation",
        goals=(
            "distribution of features, domain adaptation, match features of the "
            "same width"
        ),
        kernel=True,
        term=recipe("embedding", projector=True),
        relation=True,
    ),
    entry(
        "info_nce",
        "InfoNCE contrast within the batch (CPC)",
        formula="`-log softmax_j(<u_i, v_j>/T)[i]`",
        paper="van den Oord et al. 2018 (1807.03748)",
        start="1 to start",
        tap="embeddings of one width",
        invariances="rotation of both alike, scale of any row",
        aliases="infonce, cpc, nt-xent, contrastive",
        goals="contrastive, relations between examples, embeddings",
        kernel=True,
        term=recipe("embedding", projector=True),
        relation=True,
    ),
    entry(
        "crd",
        "Contrastive representation distillation (CRD)",
        formula="`-log P_0/(P_0+c) - sum log c/(P_i+c)`, both directions",
        paper="Tian et al. 2020 (1910.10699)",
        weight="0.8, T 0.07, 16384 negatives",
        tap="penultimate pooled features behind 128-d heads",
        invariances="scale of any anchor",
        aliases="contrastive representation distillation",
        goals="contrastive, memory bank, embeddings",
        kernel=True,
        needs="memory",
    ),
    entry(
        "CRDMemory",
        "Memory bank of CRD",
        formula=(
            "both networks' embeddings of every example, as a pure, shardable state"
            " for `crd`"
        ),
        aliases="memory bank",
        goals="helper of crd",
    ),
    entry(
        "crd_memory_init",
        "Memory bank of CRD: initial rows",
        formula="a memory of random rows",
        aliases="memory bank",
        goals="helper of crd",
    ),
    entry(
        "crd_memory_lookup",
        "Memory bank of CRD: entries of some examples",
        formula="positives and negatives of some examples, for `crd`",
        aliases="memory bank",
        goals="helper of crd",
    ),
    entry(
        "crd_memory_calibrate",
        "Memory bank of CRD: normalization constants",
        formula="the memory with its two constants set from the first batch",
        aliases="memory bank",
        goals="helper of crd",
    ),
    entry(
        "crd_memory_update",
        "Memory bank of CRD: moving average of its rows",
        formula="the memory after a batch",
        aliases="memory bank",
        goals="helper of crd",
    ),
    entry(
        "hashing_likelihood",
        "Pairwise likelihood of hash codes (unsupervised cross-modal hashing)",
        formula=("`1/M sum_j [log(1 + e^theta) - S theta]`, `theta = <h_i, g_j> / 2`"),
        paper="Hu et al. 2020 (CVPR)",
        start="1 to start",
        tap="codes before the sign",
        invariances="one rotation of both modalities",
        aliases="hashing, cross modal hashing, retrieval, ukd",
        goals="hashing, retrieval",
        kernel=True,
        needs="codes of the other modality",
    ),
)
