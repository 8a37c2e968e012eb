"""`kdjax losses`: the table, one loss by any of its names, losses for a goal."""

import pytest

from kdjax import losses
from kdjax.cli.main import main


def printed(capsys, *args):
    main(["losses", *args])
    return capsys.readouterr().out


def refused(capsys, *args):
    with pytest.raises(SystemExit) as stop:
        main(["losses", *args])
    assert stop.value.code == 2
    return capsys.readouterr().err.strip()


def test_the_table_has_every_loss(capsys):
    lines = printed(capsys).splitlines()
    names = [line.split()[0] for line in lines if line.startswith("  ")]
    assert names == list(losses.REGISTRY)


def test_losses_of_a_paper(capsys):
    text = printed(capsys, "2203.08679")
    assert "dkd " in text and "dkd_target" in text and "dkd_non_target" in text


@pytest.mark.parametrize("name", ["dkd", "DKD", "decoupled_kd", "decoupled kd"])
def test_one_loss_in_full(capsys, name):
    text = printed(capsys, name)
    assert text.startswith("dkd: Decoupled knowledge distillation (DKD)\n")
    assert "    labels,\n    alpha=1.0,\n    beta=8.0,\n    temperature=4.0,\n" in text
    assert "2203.08679" in text and 'Term("dkd", weight=1)' in text
    assert "alpha: weight of the part about the label." in text


def test_a_loss_that_is_no_term_says_what_it_needs(capsys):
    text = printed(capsys, "crd")
    assert "Term(" not in text and "--terms." not in text
    assert "needs         memory" in text
    assert "as a term     none: crd is a loss, but no term can supply memory" in text
    assert "0.8, T 0.07, 16384 negatives" in text


def test_the_options_of_a_run_are_one_line_to_copy(capsys):
    """Taps, projector and published weight of ReviewKD."""
    lines = printed(capsys, "ReviewKD").splitlines()
    assert (
        "in a run      kdjax distill --terms.extra.loss review_kd --terms.extra.weight "
        "0.6 --terms.extra.student stage2 --terms.extra.teacher stage2 "
        "--terms.extra.projector True"
    ) in lines
    text = printed(capsys, "cat_kd")
    assert "class_maps: stands for a tap of a network of your own" in text


def test_losses_for_a_goal(capsys):
    text = printed(capsys, "--goal", "another width")
    assert "  attention_transfer " in text and "  sp " in text
    assert "hint_l2" not in text and "softmax_kl" not in text


def test_several_losses_of_one_name(capsys):
    lines = printed(capsys, "relational").splitlines()
    assert [line.split()[0] for line in lines] == [
        *("relations:", "rkd_distance", "rkd_angle", "rkd")
    ]


@pytest.mark.parametrize("wrong", ["reviewdk", "hierarchical_contxt", "review-kdd"])
def test_a_typing_error_gets_a_hint(capsys, wrong):
    text = refused(capsys, wrong)
    assert text == (
        f"kdjax: name: expected a loss, method or paper, got {wrong!r}; "
        "did you mean review_kd?"
    )


def test_what_is_refused(capsys):
    assert "got 'zzzzzz'" in refused(capsys, "zzzzzz")
    error, *known = refused(capsys, "--goal", "zzzzzz").splitlines()
    assert error == "kdjax: goal: expected words of one of these goals, got 'zzzzzz'"
    assert "match features of other width" in " ".join(known)
    both = refused(capsys, "dkd", "--goal", "detection")
    assert both == "kdjax: goal: expected no goal with a name, got both"
