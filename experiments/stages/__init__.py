"""Methods of several stages, a file each.

    kdjax distill --config experiments/stages/FILE.py:FUNCTION

| method | FILE.py:FUNCTION |
|---|---|
| FitNets, arXiv 1412.6550 | fitnets.py:fitnets |
| FSP, Yim et al., CVPR 2017 | fsp.py:fsp |
| Densely distilled flow, Bae et al., TIP 2020 | dense_flow.py:dense_flow |
| Moonshine, arXiv 1711.02613 | moonshine.py:moonshine |
| Born-Again Networks, arXiv 1805.04770 | born_again.py:born_again |
| their ablations CWTM and DKPP | born_again.py:cwtm, born_again.py:dkpp |
| Teacher assistants, arXiv 1902.03393 | assistants.py:assistants, assistants.py:plain |
| Labels first, then soft targets | labels_then_soft.py:labels_then_soft |
| Features without labels, then labels, arXiv 2407.20179 | label_free.py:label_free |
| Train, then tune on own predictions | tune.py:tune |
| Factor transfer, arXiv 1802.04977 | factor_transfer.py:factor_transfer |
| Multi-head graphs, arXiv 1907.02226 | multi_head_graph.py:multi_head_graph |
| Transfer data of a GAN | generated.py:digits |
| Teachers weighted by example | several_teachers.py:oracle |
| Majority of several teachers, You et al., KDD 2017 | several_teachers.py:majority |
| Two teachers, Chen et al., ISNN 2019 | several_teachers.py:two_teachers |
| Graph of several teachers, arXiv 1804.10069 | several_teachers.py:graph |
| Specialists, arXiv 1503.02531 | specialists.py:specialists |
| Supervision transfer, arXiv 1507.00448 | supervision_transfer.py:transfer |

Each function returns `Stages` and has a default for every argument. `scale` is tiny,
digits or cifar. Networks, images, views and optimizer are those of
`experiments/methods`, which compares these methods with others.

`python -m experiments.stages.best_path` trains teacher assistants of several sizes and
prints their best path.
"""
