"""Registry entries of the losses of dense predictions."""

from kdjax.losses._entry import entry, recipe

ENTRIES = (
    entry(
        "bounded_regression",
        "Teacher-bounded regression",
        formula="`(s - y)^2` where `(s - y)^2 + m > (t - y)^2`",
        paper="Chen 2017 (NeurIPS)",
        start="0.5 to start",
        tap="box regression",
        invariances="any change of the teacher that keeps the bound",
        aliases="bounded regression, chen detection",
        goals="detection, box regression",
        kernel=True,
        needs="box targets",
    ),
    entry(
        "fine_grained_imitation",
        "Fine-grained feature imitation (FGFI)",
        formula="`sum_p m_p sum_c (s - t)^2 / (2 sum_p m_p)`",
        paper="Fine-grained imitation (1906.03609)",
        start="0.01 to start",
        tap="the map that detection heads read",
        invariances="scale of the mask",
        aliases="fgfi, fine grained imitation, masked imitation",
        goals="detection, match features of the same width",
        kernel=True,
        needs="mask of positions",
    ),
    entry(
        "fgd",
        "Focal and global distillation (FGD): focal part",
        formula=(
            "`sum (alpha m + beta n) A_t B_t (s - t)^2 + gamma (abs(A_s - A_t) + "
            "abs(B_s - B_t))`, attention of positions and channels"
        ),
        paper="FGD (2111.11837)",
        weight="1; 5e-5, 2.5e-5, 5e-5 inside as options (two-stage)",
        tap="maps of the neck",
        invariances="a permutation of student and teacher' positions or channels",
        aliases="focal imitation, focal global distillation",
        goals="detection, match features of the same width",
        kernel=True,
        needs="mask of positions",
    ),
    entry(
        "pairwise_affinity",
        "Pair-wise distillation (SKD)",
        formula="`1/P^2 sum_pq (a_s - a_t)^2`, cosines between positions",
        paper="Structured KD (1903.04197)",
        start="1 to start",
        tap="last map, pooled",
        invariances="scale of a position, rotation of either network's channels",
        aliases="structured kd, skds, pairwise, structured knowledge distillation",
        goals="segmentation, dense prediction, match features of other width",
        kernel=True,
        term=recipe("stage3"),
    ),
    entry(
        "inter_region_affinity",
        "Inter-region affinity distillation (IntRA-KD)",
        formula=(
            "`1/(3R^2) sum (C^t - C^s)^2`, cosines between region means, variances,"
            " skewnesses"
        ),
        paper="Hou et al. 2020 (2004.05304)",
        start="0.1 to start",
        tap=("one or two mid or late maps, with label map; `band` widens thin regions"),
        invariances="positions in a region; scale of student or teacher; widths free",
        aliases="intra-kd, intrakd, lane, inter region affinity",
        goals="segmentation, dense prediction, match features of other width",
        kernel=True,
        needs="labels, label map",
    ),
    entry(
        "optical_flow",
        "Data distillation of optical flow (DDFlow)",
        formula="`sum m (abs(s - t) + 0.01)^0.4 / sum m`",
        paper="DDFlow (1902.09145)",
        start="1 to start",
        tap="motion fields",
        invariances="a common shift; scale of the mask",
        aliases="ddflow, flow distillation",
        goals="optical flow",
        kernel=True,
        needs="mask of positions",
    ),
    entry(
        "census_loss",
        "Census loss of optical flow (DDFlow, UnFlow)",
        formula=(
            "`sum m (d + 0.01)^0.4 / sum m`, `d = sum_q g^2 / (0.1 + g^2)` over a "
            "7x7 patch, `g` the difference of `a / sqrt(0.81 + a^2)`, `a` gray "
            "levels less the middle's"
        ),
        paper="DDFlow (1902.09145, code); UnFlow (1711.07837)",
        weight="1/2 (code), for each direction",
        tap="an image and the other, through `warp`; no teacher",
        invariances="a constant added to either image; scale of the mask",
        aliases="census transform, photometric, unflow, ddflow",
        goals="optical flow, photometric",
    ),
    entry(
        "warp",
        "Bilinear warp by a flow field",
        formula="images, or a flow field, sampled at the ends of a flow field",
        aliases="grid sample, backward warp",
        goals="helper of optical flow",
    ),
    entry(
        "occlusion_mask",
        "Occlusion mask from forward and backward flow",
        formula=(
            "pixels whose forward and backward flow disagree, for `census_loss` and"
            " `optical_flow`"
        ),
        aliases="forward backward consistency",
        goals="helper of optical flow",
    ),
)
