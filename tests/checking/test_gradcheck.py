"""gradcheck itself: what it accepts, what it refuses, what it says, and that it leaves everything as it was."""

import numpy as np
import pytest

import minires
from minires import Function, Tensor, functional, nn
from minires.checking.gradcheck import sample_elements
from minires.tensor import apply


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


class Square(Function):
    def forward(self, x):
        self.save_for_backward(x=x)
        return x * x

    def backward(self, grad_output):
        return (2 * self.saved.x * grad_output,)


class HalfSquare(Square):
    def backward(self, grad_output):
        return (self.saved.x * grad_output,)


class ReversedBatch(Function):
    """The identity whose backward reverses the batch: right for an upstream gradient of ones."""

    def forward(self, x):
        return x.copy()

    def backward(self, grad_output):
        return (grad_output[::-1].copy(),)


class SilentReLU(Function):
    """A ReLU that doesn't tell its choices."""

    def forward(self, x):
        self.save_for_backward(x=x)
        return np.maximum(x, 0)

    def backward(self, grad_output):
        return (grad_output * (self.saved.x > 0),)


class WrongAtZero(SilentReLU):
    def backward(self, grad_output):
        return (grad_output * np.where(self.saved.x == 0, 2.0, self.saved.x > 0),)


def test_a_right_function_passes():
    report = minires.gradcheck(Square, normal(3, 4))
    assert report
    assert report.comparisons[0].every_element


@pytest.mark.parametrize("wrong", [HalfSquare, ReversedBatch])
def test_a_wrong_function_fails(wrong):
    report = minires.gradcheck(wrong, normal(4, 3))
    assert not report
    assert len(report.comparisons[0].wrong) == 12
    assert "FAILED" in str(report)
    with pytest.raises(AssertionError, match="FAILED"):
        report.raise_if_wrong()


@pytest.mark.parametrize("wrong", [HalfSquare, ReversedBatch])
def test_a_wrong_function_fails_on_many_elements_too(wrong):
    report = minires.gradcheck(wrong, normal(6, 900))
    assert not report.comparisons[0].every_element
    assert not report


def test_one_wrong_element_of_many_is_found_by_the_random_directions():
    class OneWrong(Square):
        def backward(self, grad_output):
            grad = 2 * self.saved.x * grad_output
            grad[3, 333] *= 1.001
            return (grad,)

    assert minires.gradcheck(Square, normal(6, 900))
    assert not minires.gradcheck(OneWrong, normal(6, 900))


def test_kinks_at_the_very_point_are_excluded_counted_and_named():
    report = minires.gradcheck(functional.relu, np.array([0.0, 1.0, -1.0, 0.0, 1e-16]))
    assert report
    assert report.excluded == 3  # no step is small enough for 1e-16 and large enough to rise above rounding
    assert report.kinks == {"ReLU": 3}


def test_a_kink_nearby_makes_the_step_shrink():
    report = minires.gradcheck(functional.relu, np.array([1e-4, -1e-4, 1.0]))
    assert report
    assert not report.excluded
    assert report.comparisons[0].points[0].numeric.step < 2e-4


def test_a_kink_that_no_node_reports_is_recognised_by_its_slopes():
    report = minires.gradcheck(SilentReLU, np.array([0.0, 1.0, -1.0, 1e-4]))
    assert report
    assert report.excluded == 1


def test_a_wrong_value_at_a_kink_that_no_node_reports_fails():
    assert not minires.gradcheck(WrongAtZero, np.array([0.0, 1.0, -1.0]))


def test_directions_are_halved_around_kinks():
    x = normal(50, 60)
    x[7, 9] = x[30, 1] = 0.0
    report = minires.gradcheck(functional.relu, x, mode="fast")
    assert report
    assert 2 <= report.excluded < 30
    checked = sum(len(p.direction.elements) for p in report.comparisons[0].points if not p.numeric.excluded)
    assert checked > 5_000


def test_a_branch_on_values_counts_as_a_kink():
    def huber(x):
        return x * x if float(x.data[0]) < 1 else 2 * x - 1

    assert minires.gradcheck(huber, np.array([1.0])).excluded == 1
    assert minires.gradcheck(huber, np.array([0.9999])).excluded == 0


def test_parameters_of_a_module_are_checked_and_everything_is_put_back():
    rng = np.random.default_rng(0)
    block = nn.Sequential(nn.Conv2d(2, 3, 3, rng=rng), nn.BatchNorm2d(3), nn.Dropout(0.5, rng=rng))
    parameters = {name: (p, p.data, p.data.copy(), p.grad) for name, p in block.named_parameters()}
    buffers = {name: (array, array.copy()) for name, array in block.named_buffers()}
    state = rng.bit_generator.state
    report = minires.gradcheck(block, normal(2, 2, 5, 4).astype(np.float32))
    assert report
    assert [c.name for c in report.comparisons] == ["x", "0.weight", "0.bias", "1.weight", "1.bias"]
    assert {str(c.dtype) for c in report.comparisons} == {"float32"}
    for name, parameter in block.named_parameters():
        original, data, values, grad = parameters[name]
        assert parameter is original
        assert parameter.data is data
        assert parameter.grad is grad
        np.testing.assert_array_equal(data, values)
    for name, array in block.named_buffers():
        assert array is buffers[name][0]
        np.testing.assert_array_equal(array, buffers[name][1])
    assert rng.bit_generator.state == state


def test_state_and_generators_in_containers_are_converted_reset_and_put_back():
    class Noisy(nn.Module):
        def __init__(self):
            self.parts = [{"rng": np.random.default_rng(0), "calls": np.zeros(1, np.float32)}]
            self.scales = [minires.Parameter(np.ones(3, np.float32))]

        def forward(self, x):
            self.parts[0]["calls"] += 1
            noise = minires.Tensor(self.parts[0]["rng"].standard_normal(3))
            return x * self.scales[0] * noise * minires.Tensor(self.parts[0]["calls"].copy())

    module = Noisy()
    parts, calls, state = module.parts, module.parts[0]["calls"], module.parts[0]["rng"].bit_generator.state
    report = minires.gradcheck(module, normal(2, 3))
    assert report
    assert [c.name for c in report.comparisons] == ["x", "scales.0"]
    assert module.parts is parts
    assert parts[0]["calls"] is calls
    assert calls == 0
    assert parts[0]["rng"].bit_generator.state == state


@pytest.mark.parametrize("kind", [list, lambda items: {"scale": items[0]}])
def test_parameters_of_a_closure_are_checked(kind):
    scale = minires.Parameter(np.ones(3, np.float32))
    report = minires.gradcheck(lambda x: x * scale, normal(2, 3), parameters=kind([scale]))
    assert report
    assert len(report.comparisons) == 2
    assert scale.dtype == np.float32


def test_a_module_within_a_closure_is_checked_with_its_state():
    norm = nn.BatchNorm2d(2)
    report = minires.gradcheck(lambda x: norm(x) * x, normal(3, 2, 2, 2), parameters=norm)
    assert report
    assert [c.name for c in report.comparisons] == ["x", "weight", "bias"]
    np.testing.assert_array_equal(norm.running_mean, np.zeros(2))


def test_everything_is_put_back_after_an_exception():
    layer = nn.Linear(3, 2, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="linear"):
        minires.gradcheck(layer, normal(2, 4))
    assert layer.weight.dtype == np.float32


def test_the_seed_makes_a_check_repeatable():
    one, two = (minires.gradcheck(HalfSquare, normal(3, 4), seed=5) for _ in range(2))
    assert one.to_dict() == two.to_dict()
    assert minires.gradcheck(HalfSquare, normal(3, 4), seed=6).to_dict() != one.to_dict()


def test_inputs_are_not_changed():
    x = normal(3, 4)
    kept = x.copy()
    tensor = Tensor(x, requires_grad=True)
    assert minires.gradcheck(Square, tensor)
    np.testing.assert_array_equal(x, kept)
    assert tensor.grad is None


def test_any_layout_is_accepted():
    assert minires.gradcheck(Square, normal(4, 3).T)
    assert minires.gradcheck(Square, np.broadcast_to(normal(3), (2, 3)))
    assert minires.gradcheck(Square, normal(8, 3)[::-2])


def test_integers_and_other_arguments_are_passed_on():
    target = np.array([0, 2])
    report = minires.gradcheck(lambda logits, target: functional.cross_entropy(logits, target), normal(2, 3), target)
    assert report
    assert len(report.comparisons) == 1


def test_an_input_that_is_not_used_has_a_zero_gradient():
    report = minires.gradcheck(lambda x, y: x * x, normal(3), normal(2))
    assert report
    assert report.comparisons[1].analytic is None


def test_a_detached_path_fails():
    report = minires.gradcheck(lambda x: x * x.detach(), normal(3))
    assert not report


def test_the_identity_and_empty_arrays_pass():
    assert minires.gradcheck(lambda x: x, normal(3))
    assert minires.gradcheck(Square, np.empty((0, 3)))


def test_small_and_large_values_get_steps_of_their_size():
    assert minires.gradcheck(lambda x: x.log(), np.array([1e-6, 3e-6]))
    assert minires.gradcheck(lambda x: x.log(), np.array([1e6, 3e6]))
    assert minires.gradcheck(lambda x: x.log(), np.array([1e-3, 1.0, 100.0]))


# ---------------------------------------------------------------- one sentence before any numbers


class WritesInput(Function):
    def forward(self, x):
        x += 1
        return x * 2

    def backward(self, grad_output):
        return (2 * grad_output,)


class WritesUpstream(Function):
    def forward(self, x):
        return x * 2

    def backward(self, grad_output):
        grad_output *= 2
        return (grad_output.copy(),)


class WritesSaved(Square):
    def backward(self, grad_output):
        x = self.saved.x
        return (self._scaled(x) * grad_output,)

    def _scaled(self, x):
        self.saved.x = x * 2
        return 2 * x


@pytest.mark.parametrize(
    ("fn", "sentence"),
    [
        (WritesInput, "forward changes its input"),
        (WritesUpstream, "writes into its upstream gradient"),
        (WritesSaved, "a second backward through the same graph"),
        (lambda x: x.log(), "forward returns nan"),
        (lambda x: x / 0.0, "forward returns"),
    ],
)
def test_misbehaviour_is_said_in_a_sentence(fn, sentence):
    with np.errstate(all="ignore"):
        report = minires.gradcheck(fn, -np.abs(normal(3)))
    assert not report
    assert sentence in str(report)
    assert not report.comparisons


def test_randomness_is_said_in_a_sentence():
    rng = np.random.default_rng(0)
    report = minires.gradcheck(lambda x: functional.dropout(x, 0.5, training=True, rng=rng), normal(30))
    assert not report
    assert "different values" in report.problem


def test_a_changing_shape_is_said_in_a_sentence():
    lengths = iter(range(2, 9))
    report = minires.gradcheck(lambda x: x[: next(lengths)], normal(9))
    assert not report
    assert "shapes (2,) and (3,)" in report.problem


def test_a_gradient_that_is_not_finite_is_said_in_a_sentence():
    with np.errstate(all="ignore"):
        report = minires.gradcheck(lambda x: x.sqrt(), np.zeros(2))
    assert "gradient of" in report.problem
    assert "inf" in report.problem


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (lambda grad: None, "must return a tuple of 1 gradients"),
        (lambda grad: [grad], "but returned list"),
        (lambda grad: (grad, grad), "but returned 2 gradients"),
        (lambda grad: (2.0,), "but returned float None None for input 0"),
        (lambda grad: (grad[:2] * 2,), "but returned ndarray (2,) float64 for input 0, which is (3,) float64"),
        (lambda grad: (grad.astype(np.float32),), "but returned ndarray (3,) float32"),
    ],
)
@pytest.mark.parametrize("behind", [0, 1])  # nodes between it and the input
def test_what_the_engine_refuses_is_a_finding(returned, words, behind):
    class Refused(Square):
        def backward(self, grad_output):
            return returned(grad_output)

    report = minires.gradcheck(lambda x: apply(Refused(), x * 2 if behind else x), normal(3))
    assert not report
    assert report.cause == "shape"
    assert f"Refused.backward {words.partition('but')[0] or 'must return'}" in report.problem
    assert words in report.problem


@pytest.mark.parametrize("error", [RuntimeError, ValueError, ZeroDivisionError])
def test_an_exception_of_the_checked_code_is_not_turned_into_a_finding(error):
    class Raises(Square):
        def __init__(self, phase):
            self.phase = phase

        def forward(self, x):
            if self.phase == "forward":
                raise error("of its own")
            return super().forward(x)

        def backward(self, grad_output):
            raise error("of its own")

    with pytest.raises(error) as caught:
        minires.gradcheck(lambda x: apply(Raises("backward"), x), normal(3))
    assert str(caught.value) == "of its own"
    (note,) = caught.value.__notes__
    assert note.startswith("in the backward pass of Raises(phase=backward) (")
    assert "test_gradcheck.py:" in note
    with pytest.raises(error, match="of its own"):
        minires.gradcheck(lambda x: apply(Raises("forward"), x), normal(3))


@pytest.mark.parametrize(
    ("fn", "inputs", "error", "words"),
    [
        (lambda x: None, (normal(3),), TypeError, "must return one Tensor, got NoneType"),
        (lambda x: (x, x), (normal(3),), TypeError, "got tuple"),
        (lambda x: Tensor(np.arange(3)), (normal(3),), TypeError, "int64"),
        (Square, (np.arange(3),), TypeError, "nothing to check"),
        (Square, (normal(3) + 1j,), TypeError, "complex128"),
        (Square, (np.array([1.0, np.nan]),), ValueError, r"x\[1\] is nan"),
    ],
)
def test_what_cannot_be_checked_raises(fn, inputs, error, words):
    with pytest.raises(error, match=words):
        minires.gradcheck(fn, *inputs)


def test_options_are_checked():
    with pytest.raises(ValueError, match="mode must be"):
        minires.gradcheck(Square, normal(3), mode="quick")
    with pytest.raises(TypeError, match="requires a gradient"):
        minires.gradcheck(Square, normal(3), parameters=[Tensor(normal(3))])


def test_the_report_knows_the_source_line_and_fits_into_json():
    import json

    report = minires.gradcheck(HalfSquare, normal(3, 4))
    assert report.source.rpartition(":")[0].endswith("test_gradcheck.py")
    comparison = json.loads(json.dumps(report.to_dict()))["comparisons"][0]
    assert comparison["wrong"] == 12
    assert (comparison["cosine"], comparison["relative_error"]) == pytest.approx(report.comparisons[0].agreement())
    assert "FAILED" in report._repr_html_()


def test_apply_in_a_lambda_is_checked_like_the_class():
    assert minires.gradcheck(lambda x: apply(Square(), x), normal(2))


@pytest.mark.parametrize(("shape", "count"), [((5,), 4), ((2, 3), 5), ((3, 4, 5), 59), ((7, 9), 12), ((), 3)])
def test_a_sample_has_distinct_elements_and_both_ends(shape, count):
    chosen = sample_elements(shape, count, np.random.default_rng(0))
    size = int(np.prod(shape, dtype=int))
    assert len(set(chosen)) == len(chosen) == min(count, size)
    assert {0, size - 1} <= set(chosen)
