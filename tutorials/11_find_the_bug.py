# %% [markdown]
# # Find the bug
#
# Ten wrong backward passes, all of them mistakes that people really make. For each you see what the gradient check
# saw, but not what it says. Think first: *which line of the backward pass would do that?* Then look at the answer.

# %%
import minires
from minires.checking.cases import cases_for
from minires.checking.mutants import MUTANTS, planted

EXERCISES = [
    "relu_leaks",
    "linear_batch_reversed",
    "conv_grad_weight_last_image",
    "conv_kernel_flipped",
    "conv_grad_bias_averaged",
    "batch_norm_without_mean_term",
    "batch_norm_weight_forgotten",
    "max_pool_overwrites",
    "cross_entropy_target_forgotten",
    "fan_out_overwritten",
]


def ask(name):
    """The report of the first case in which the mistake shows."""
    with planted(MUTANTS[name]):
        for case in cases_for(MUTANTS[name]):
            report = minires.gradcheck(case.fn, *case.arrays)
            if not report:
                return case, report
    raise AssertionError(f"{name} went unnoticed")


answers = {}
for number, name in enumerate(EXERCISES, 1):
    case, report = ask(name)
    answers[name] = report
    print(f"\n{number}. {case.name}")
    for comparison in report.comparisons:
        cosine, relative = comparison.agreement()
        state = "right" if comparison.ok else f"WRONG   cosine {cosine:+.2f}   relative L2 error {relative:.2g}"
        print(f"   {comparison.name:7s} {comparison.shape!s:14s} {state}")
        if comparison.worst is not None:
            worst = comparison.worst
            print(f"           worst: analytic {worst.analytic:+.4f}, numeric {worst.numeric.value:+.4f}")

# %% [markdown]
# ## Hints
#
# - Cosine 1 but the wrong size: a factor. Which axis has that length?
# - One of several gradients wrong: the others share the upstream gradient, so it isn't that.
# - Cosine near 0: the right numbers in the wrong places, or of the wrong sample.
# - Only some elements wrong: look at *which* ones. A border? A sign? The last image?
#
# ## Answers
#
# What the check says, and what was planted.

# %%
for number, name in enumerate(EXERCISES, 1):
    report = answers[name]
    print(f"\n{number}. it says:  {report.diagnoses[0].sentence}")
    print(f"   planted:  {MUTANTS[name].sentence}  ({name})")

# %% [markdown]
# There are dozens more in `minires.checking.mutants`; their code is one function each. `minires mutate` shows
# which of them the checks of other engines would have let through.

# %%
named = sum(answers[name].cause == MUTANTS[name].cause for name in EXERCISES)
print(f"\nthe first diagnosis was right for {named} of {len(EXERCISES)}")
assert all(not report for report in answers.values())
assert named == len(EXERCISES)
