"""The three faces of a report, terminal, dictionary and notebook, tell the same facts."""

import html
import json

import numpy as np
import pytest

import minires
from minires import functional
from minires.checking import check_arrays

X = np.random.default_rng(1).standard_normal((3, 4))


def wrong(*rows):
    """tanh whose backward is wrong in these rows."""

    def backward(grad_output, x):
        grad = grad_output * (1 - np.tanh(x) ** 2)
        grad[list(rows)] *= 1.5
        return grad

    return backward


def never(grad_output, x):
    return np.full_like(x, 7.0)


REPORTS = {
    "right": lambda: check_arrays(np.tanh, wrong(), X),
    "wrong": lambda: check_arrays(np.tanh, wrong(1), X),
    "wrong along directions": lambda: check_arrays(np.tanh, wrong(1), np.tile(X, (1, 20)), mode="fast"),
    "zero": lambda: check_arrays(np.zeros_like, never, X),  # no noise, no cosine, an infinite relative error
    "nothing arrives": lambda: minires.gradcheck(lambda x: x.detach() * 2 + 0 * x[:1].sum(), X),
    "kinks": lambda: minires.gradcheck(functional.relu, X * (X > 0)),
    "a problem": lambda: check_arrays(np.tanh, lambda g, x: g.sum(0), X),
    "not finite": lambda: check_arrays(lambda x: x / 0.0, never, X),
}


@pytest.mark.parametrize("name", REPORTS)
def test_terminal_dictionary_and_notebook_tell_the_same(name):
    with np.errstate(all="ignore"):
        report = REPORTS[name]()
    text = str(report)
    assert text in html.unescape(report._repr_html_())
    facts = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert facts == report.to_dict()
    assert facts["ok"] == bool(report)
    told = [
        f"{'passed' if facts['ok'] else 'FAILED'}  {facts['function']}",
        f"seed {facts['seed']}",
        facts["source"],
        facts["problem"],
        *facts["notes"],
        *(diagnosis["sentence"] for diagnosis in facts["diagnoses"][:3]),
        "" if facts["ok"] else facts["repeat"],
    ]
    for each in facts["comparisons"]:
        told += [f"{'ok   ' if each['ok'] else 'WRONG'} {each['name']} {tuple(each['shape'])}"]
        told += [f"every element ({each['points']})"] if each["every_element"] else ["directions, "]
        told += [f"{each['excluded']} on kinks of"] if each["excluded"] else []
        told += [f"{kink} ({count})" for kink, count in each["kinks"].items()]
        told += [] if each["gradient_arrives"] else ["no gradient arrives"]
        worst = each["worst"]
        assert (worst is None) == each["ok"]
        if worst:
            cosine = float("nan") if each["cosine"] is None else each["cosine"]
            relative = float("inf") if each["relative_error"] is None else each["relative_error"]
            noises = float("inf") if worst["noises"] is None else worst["noises"]
            told += [
                f"{each['wrong']} of {each['points']} wrong   cosine {cosine:+.3f}   relative L2 error {relative:.2g}",
                f"numeric noise {worst['noise']:.0e}",
                f"worst {worst['place']}   analytic {worst['analytic']:+.6e}   numeric {worst['numeric']:+.6e}",
                f"relative error {worst['relative_error']:.2g}: {worst['ulps']:.1e} ulp, {noises:.1e} x noise",
            ]
            told += [f"wrong where #: {each['map']}"] if each["map"] else []
    for fact in told:
        assert fact in text


def test_the_numbers_of_the_worst_element():
    report = check_arrays(np.tanh, wrong(1), X)
    comparison, worst = report.comparisons[0], report.comparisons[0].worst
    facts = report.to_dict()["comparisons"][0]["worst"]
    assert facts["error"] == abs(facts["analytic"] - facts["numeric"])
    assert facts["relative_error"] == pytest.approx(1 / 3)  # of the larger one, the analytic: 1.5 and 1
    assert facts["ulps"] == facts["error"] / np.spacing(abs(facts["analytic"]))
    assert facts["noises"] == facts["error"] / facts["noise"] > 1e5
    assert facts["numeric"] == comparison.numeric().flat[worst.direction.elements[0]]
    assert report.to_dict()["comparisons"][0]["map"] == ".... #### ...."
