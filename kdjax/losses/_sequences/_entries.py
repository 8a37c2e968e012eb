"""Registry entries of the losses of transformers and sequences."""

from kdjax.losses._entry import entry, recipe

ENTRIES = (
    entry(
        "attention_map_mse",
        "TinyBERT attention loss",
        formula="mean over heads, queries, keys of (s - t)^2",
        paper="TinyBERT (1909.10351)",
        weight="1 per layer, summed",
        tap="attention scores before the softmax, layer (i+1)r-1 of the teacher",
        invariances="what masked entries hold",
        aliases="tinybert, attention mse",
        goals="transformer, attention layers, language model",
        kernel=True,
        term=recipe("attention0"),
    ),
    entry(
        "attention_map_kl",
        "MiniLM attention distribution transfer",
        formula="mean over heads and queries of KL(a_t, a_s) over the keys",
        paper="MiniLM (2002.10957)",
        weight="1, the sum of the two (the paper's formula)",
        tap="attention weights before dropout, last layer",
        invariances=(
            "constant added to a row of scores; scale of a row of weights; masked "
            "entries"
        ),
        aliases="minilm, attention kl",
        goals="transformer, attention layers, language model",
        kernel=True,
        term=recipe("attention0"),
    ),
    entry(
        "value_relation",
        "MiniLM value relation transfer",
        formula="KL of softmax(V V^T / sqrt(d)), mean over heads and positions",
        paper="MiniLM (2002.10957), MiniLMv2 (2012.15828)",
        weight="1, the sum of the two (the paper's formula)",
        tap="values (or queries, keys) per head, last layer",
        invariances="rotation of each head's values; widths may differ",
        aliases="minilm, minilmv2, value relation, qkv relation",
        goals=(
            "transformer, attention layers, language model, match features of other"
            " width"
        ),
        kernel=True,
        term=recipe("values0"),
    ),
    entry(
        "hidden_state_mse",
        "TinyBERT hidden-state loss; patient KD (PKD)",
        formula=(
            'sum over mapped layers of the mean of (s - t)^2 (`"pkd"`: unit '
            "vectors, mean over layers)"
        ),
        paper="TinyBERT (1909.10351), PKD (1908.09355)",
        weight='1; `"pkd"` not in our references, 100 to start',
        tap="hidden states stacked `[batch, layers, tokens, channels]`",
        invariances='`"pkd"`: scale of each state',
        aliases="tinybert, pkd, patient kd, hidden states",
        goals=(
            "transformer, hidden states, language model, match features of the same"
            " width"
        ),
        kernel=True,
        term=recipe("hidden_states"),
    ),
    entry(
        "layer_map",
        "Layer mapping of TinyBERT and PKD",
        formula="index of the teacher layer for each student layer",
        aliases="layer mapping, pkd skip, pkd last",
        goals="helper of hidden_state_mse and attention losses",
    ),
    entry(
        "token_kl",
        "Word-level distillation of sequence models",
        formula='T^2 KL(p, q) per real token (`"reverse"`: KL(q, p))',
        paper="Kim, Rush (1606.07947), MiniLLM (2306.08543)",
        start="1 with `sequence_nll` to start (DistilBERT 5 at `T = 2`)",
        tap="token logits",
        invariances="constant added to a token's logits; padding",
        aliases="word level kd, sequence kd, distilbert, language model kd",
        goals="language model, tokens, match logits",
        kernel=True,
        term=recipe(),
    ),
    entry(
        "token_jsd",
        "Generalized knowledge distillation (GKD)",
        formula=(
            "T^2 (b KL(p, m) + (1-b) KL(q, m)), m = b p + (1-b) q; ends are the two KLs"
        ),
        paper="GKD (2306.13649)",
        weight="1, `b = 0.5` (TRL)",
        tap="token logits, on text the student wrote",
        invariances="as `token_kl`; symmetric at b = 1/2, at most log 2",
        aliases="gkd, on policy distillation, jsd",
        goals="language model, tokens, match logits, on-policy",
        kernel=True,
        term=recipe(),
    ),
    entry(
        "sequence_nll",
        "Sequence-level distillation (SeqKD)",
        formula="-log q(y) of the teacher's tokens",
        paper="Kim, Rush (1606.07947)",
        start="1 to start",
        tap="token logits, shifted",
        invariances="constant added to a token's logits; padding",
        aliases="seqkd, sequence level kd, supervised fine tuning, sft",
        goals="language model, tokens, generated text",
        term=recipe(teacher="tokens"),
    ),
    entry(
        "per_sequence",
        "One value per sequence from one per token",
        formula="values per token to one value per sequence",
        aliases="reduce tokens",
        goals="helper of token losses",
    ),
    entry(
        "top_k_kl",
        "KL divergence to a top-k teacher (sparse logits)",
        formula=(
            "T^2 KL with a teacher of K log-probabilities; tail uniform, bucket or "
            'renormalized; `"reverse"`: KL(q, p)'
        ),
        paper="Hinton (1503.02531), Sparse Logit Sampling (2503.16870)",
        weight="as `softmax_kl`",
        tap="logits; the teacher's top K from a store",
        invariances="constant added to the student's logits; order of the K",
        aliases="top k, sparse logits, cached logits, specialists",
        goals="match logits, stored targets, large vocabulary, language model",
        kernel=True,
        needs="top-k indices",
    ),
    entry(
        "top_k_jsd",
        "Jensen-Shannon divergence to a top-k teacher (GKD, sparse logits)",
        formula=(
            "`jensen_shannon` with a teacher of K log-probabilities; tail as `top_k_kl`"
        ),
        paper="GKD (2306.13649)",
        weight="as `jensen_shannon`",
        tap="logits; the teacher's top K from a store",
        invariances="constant added to the student's logits; order of the K",
        aliases="top k jsd, sparse jsd",
        goals="match logits, stored targets, large vocabulary, language model",
        kernel=True,
        needs="top-k indices",
    ),
    entry(
        "linear_softmax_kl",
        "Fused linear and softmax KL (Liger)",
        formula="`softmax_kl` of two linear heads, in blocks of the vocabulary",
        paper="Hinton (1503.02531), Liger (2410.10989)",
        weight="as `token_kl`",
        tap="last hidden states and the head's weights",
        invariances="what masked tokens hold; block length",
        aliases="liger, fused linear kl, chunked",
        goals="language model, large vocabulary, little memory",
    ),
)
