"""Exact parameter counts of both papers' nets, and the names and initial values of what is counted."""

from __future__ import annotations

import numpy as np
import pytest

from minires import models, nn


class NoDraws(np.random.Generator):
    """A generator of zeros, with which nets of 60 million weights are built in no time."""

    def __init__(self):
        super().__init__(np.random.PCG64(0))

    def standard_normal(self, shape):
        return np.broadcast_to(np.float32(0), shape)


def build(name, **options):
    return models.create(name, rng=NoDraws(), **options)


def count(net):
    return sum(parameter.size for parameter in net.parameters())


CIFAR = {
    # He et al. 2015, table 6: 97,216 n - 21,926 with option A, 2,752 more with option B
    ("resnet8", "A"): 75_290,
    ("resnet20", "A"): 269_722,
    ("resnet32", "A"): 464_154,
    ("resnet44", "A"): 658_586,
    ("resnet56", "A"): 853_018,
    ("resnet110", "A"): 1_727_962,
    ("resnet1202", "A"): 19_421_274,
    ("resnet20", "B"): 272_474,
    ("resnet32", "B"): 466_906,
    ("resnet44", "B"): 661_338,
    ("resnet56", "B"): 855_770,
    ("resnet110", "B"): 1_730_714,
    ("resnet1202", "B"): 19_424_026,
    ("resnet110", "C"): 1_826_202,
    ("plain20", None): 269_722,
    ("plain32", None): 464_154,
    ("plain44", None): 658_586,
    ("plain56", None): 853_018,
    ("plain110", None): 1_727_962,
    # He et al. 2016
    ("preact_resnet20", "A"): 269_722,
    ("preact_resnet32", "A"): 464_154,
    ("preact_resnet44", "A"): 658_586,
    ("preact_resnet56", "A"): 853_018,
    ("preact_resnet110", "A"): 1_727_962,
    ("preact_resnet110", "B"): 1_730_522,
    ("preact_resnet110", "C"): 1_822_170,
    ("resnet164", "B"): 1_704_154,
    ("preact_resnet164", "B"): 1_703_258,
    ("resnet1001", "B"): 10_328_602,
    ("preact_resnet1001", "B"): 10_327_706,
}

IMAGENET = {
    ("plain18", None): 11_515_688,
    ("resnet18", "A"): 11_515_688,
    ("resnet18", "B"): 11_689_512,
    ("resnet18", "C"): 12_043_816,
    ("plain34", None): 21_623_848,
    ("resnet34", "A"): 21_623_848,
    ("resnet34", "B"): 21_797_672,
    ("resnet34", "C"): 22_716_840,
    ("resnet50", "B"): 25_557_032,
    ("resnet101", "B"): 44_549_160,
    ("resnet152", "B"): 60_192_808,
    ("resnet200", "B"): 64_673_832,
    ("preact_resnet18", "B"): 11_687_720,
    ("preact_resnet34", "B"): 21_795_880,
    ("preact_resnet50", "B"): 25_549_352,
    ("preact_resnet101", "B"): 44_541_480,
    ("preact_resnet152", "B"): 60_185_128,
    ("preact_resnet200", "B"): 64_666_152,
}

# convolutions + batch norms + linear
PARTS = {
    "plain18": (10_994_880, 7_808, 513_000),
    "resnet18": (11_166_912, 9_600, 513_000),
    "plain34": (21_095_616, 15_232, 513_000),
    "resnet34": (21_267_648, 17_024, 513_000),
    "resnet50": (23_454_912, 53_120, 2_049_000),
    "resnet101": (42_394_816, 105_344, 2_049_000),
    "resnet152": (57_992_384, 151_424, 2_049_000),
    "resnet200": (62_448_832, 176_000, 2_049_000),
}


@pytest.mark.parametrize(("name", "shortcut"), [*CIFAR, *IMAGENET])
def test_exact_count(name, shortcut):
    assert count(build(name, shortcut=shortcut)) == {**CIFAR, **IMAGENET}[name, shortcut]


def test_every_net_that_is_listed_is_counted_here_and_default_options_are_the_papers():
    defaults = {name for name, _ in CIFAR} | {name for name, _ in IMAGENET}
    assert set(models.names()) <= defaults
    for name, shortcut in [("resnet20", "A"), ("preact_resnet110", "A"), ("resnet164", "B"), ("resnet18", "B")]:
        assert count(build(name)) == {**CIFAR, **IMAGENET}[name, shortcut]


@pytest.mark.parametrize("n", [1, 2, 4, 6, 10])
def test_closed_forms_for_any_depth(n):
    for kind in ("plain", "resnet", "preact_resnet"):
        assert count(build(f"{kind}{6 * n + 2}")) == 97_216 * n - 21_926


@pytest.mark.parametrize("name", PARTS)
def test_convolutions_batch_norms_and_the_linear_layer(name):
    net = build(name)
    linear = count(net.fc)
    convolutions = sum(parameter.size for parameter in net.parameters() if parameter.ndim == 4)
    assert (convolutions, count(net) - convolutions - linear, linear) == PARTS[name]


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("resnet20", {"num_classes": 100}, 269_722 + 5_850),
        ("resnet110", {"num_classes": 100}, 1_733_812),
        ("preact_resnet110", {"num_classes": 100, "shortcut": "B"}, 1_736_372),
        ("resnet164", {"num_classes": 100}, 1_727_284),
        ("preact_resnet164", {"num_classes": 100}, 1_726_388),
        ("resnet1001", {"num_classes": 100}, 10_351_732),
        ("preact_resnet1001", {"num_classes": 100}, 10_350_836),
        ("resnet20", {"in_channels": 1}, 269_722 - 288),
        ("resnet50", {"stride_on_3x3": True}, 25_557_032),
    ],
)
def test_counts_with_options(name, options, expected):
    assert count(build(name, **options)) == expected


def test_depth_counts_the_convolutions_in_blocks_the_stem_and_the_linear_layer():
    for name in ("plain20", "resnet56", "preact_resnet110", "resnet164", "resnet18", "resnet50", "preact_resnet101"):
        convolutions = [
            path
            for path, module in build(name).named_modules()
            if isinstance(module, nn.Conv2d) and "downsample" not in path
        ]
        assert len(convolutions) + 1 == int("".join(filter(str.isdigit, name)))


@pytest.mark.parametrize(
    ("name", "shortcut", "projections"),
    [
        ("resnet34", "A", 0),
        ("resnet34", "B", 3),
        ("resnet34", "C", 16),
        ("resnet50", "B", 4),
        ("resnet20", "B", 2),
        ("resnet20", "C", 9),
        ("preact_resnet164", "B", 3),
        ("preact_resnet50", "B", 4),
    ],
)
def test_options_a_b_and_c_have_as_many_projections_as_the_papers_say(name, shortcut, projections):
    net = build(name, shortcut=shortcut)
    found = [module for path, module in net.named_modules() if path.endswith("downsample.0")]
    assert len(found) == projections
    assert all(projection.kernel_size == (1, 1) and projection.bias is None for projection in found)


def test_two_3x3_convolutions_and_a_bottleneck_cost_about_the_same():
    """Figure 5 of the 2015 paper: 73,728 weights against 69,632; a projection of 256 channels would double them."""
    options = {"rng": NoDraws(), "fan": "fan_in"}
    basic = models.BasicBlock(64, 64, 1, shortcut="A", **options)
    bottleneck = models.Bottleneck(256, 64, 1, shortcut="B", **options)
    projected = models.Bottleneck(256, 64, 1, shortcut="C", **options)
    weights = [sum(p.size for p in block.parameters() if p.ndim == 4) for block in (basic, bottleneck, projected)]
    assert weights == [73_728, 69_632, 69_632 + 65_536]


# ---- names and values ----------------------------------------------------------------------------


def torchvision_names(units, convolutions, first_projects):
    """The state_dict of torchvision's ResNets, written out from its documentation's naming scheme."""

    def norm(path):
        return [f"{path}.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]

    names = ["conv1.weight", *norm("bn1")]
    for stage, blocks in enumerate(units, start=1):
        for block in range(blocks):
            path = f"layer{stage}.{block}"
            for position in range(1, convolutions + 1):
                names += [f"{path}.conv{position}.weight", *norm(f"{path}.bn{position}")]
            if block == 0 and (stage > 1 or first_projects):
                names += [f"{path}.downsample.0.weight", *norm(f"{path}.downsample.1")]
    return [*names, "fc.weight", "fc.bias"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", torchvision_names((2, 2, 2, 2), 2, first_projects=False)),
        ("resnet34", torchvision_names((3, 4, 6, 3), 2, first_projects=False)),
        ("resnet50", torchvision_names((3, 4, 6, 3), 3, first_projects=True)),
    ],
)
def test_state_has_torchvision_s_names_in_torchvision_s_order(name, expected):
    assert list(build(name, widths=(64, 1, 1, 1)).state_dict()) == expected


def test_plain_and_residual_nets_share_one_state():
    plain, residual = models.create("plain20"), models.create("resnet20", rng=np.random.default_rng(5))
    plain.load_state_dict(residual.state_dict())
    assert list(plain.state_dict()) == list(residual.state_dict())


def test_initial_values_follow_the_generator_and_the_fan():
    same, again = (models.create("resnet8", rng=np.random.default_rng(1)).state_dict() for _ in range(2))
    other = models.create("resnet8", rng=np.random.default_rng(2)).state_dict()
    for name in same:
        np.testing.assert_array_equal(same[name], again[name])
    assert (same["conv1.weight"] != other["conv1.weight"]).any()
    out = models.create("resnet8", fan="fan_out").layer3[0].conv1.weight.data
    inwards = models.create("resnet8").layer3[0].conv1.weight.data
    assert inwards.std() == pytest.approx(0.08333, rel=0.05)
    assert out.std() == pytest.approx(0.05893, rel=0.05)


def test_everything_starts_in_float32_with_unit_batch_norms():
    net = models.create("preact_resnet8")
    for name, array in net.state_dict().items():
        assert array.dtype == (np.int64 if name.endswith("num_batches_tracked") else np.float32)
        if array.ndim == 1:
            assert (array == (name.endswith((".weight", "running_var")))).all(), name
