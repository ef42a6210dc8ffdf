"""What the benchmarks compute of what a GPU did; no GPU is needed."""

import pytest
from bench import gpu


@pytest.mark.parametrize(
    ("intervals", "length"),
    [
        ([], 0),
        ([(1, 3)], 2),
        ([(1, 3), (5, 6)], 3),
        ([(5, 6), (1, 3)], 3),
        ([(1, 3), (2, 4)], 3),
        ([(1, 9), (2, 4), (8, 10)], 9),
        ([(1, 3), (3, 4)], 3),
        ([(1, 3), (1, 3), (2, 2)], 2),
    ],
    ids=["none", "one", "apart", "unordered", "overlapping", "one within", "touching", "twice and empty"],
)
def test_what_several_kernels_cover_counts_once(intervals, length):
    assert gpu.covered(intervals) == length


def test_what_no_kernel_covers_is_idle():
    assert gpu.idle_share([(10, 40), (30, 60), (90, 100)], 100) == pytest.approx(0.4)
    assert gpu.idle_share([(0, 100.5)], 100) == 0  # two clocks


def test_a_profile_without_a_kernel_says_nothing():
    assert gpu.idle_share([], 100) is None


def test_achieved_is_pictures_times_their_operations():
    assert gpu.against_matmul(3000, 105e9, 700e12) == {"tflops": 700, "achieved": 315, "fraction": 0.45}


def test_a_pictures_operations_are_those_of_its_matrix_products():
    width, tokens, layers, classes = 768, 197, 12, 4
    layer = tokens * (3 + 1 + 4 + 4) * width**2 + 2 * tokens**2 * width
    patches = (tokens - 1) * 3 * 16**2 * width
    forward = 2 * (layers * layer + patches + width * classes)
    # Backward is twice as much, but nobody asks for the gradient of the picture.
    assert gpu.flops("vit_b_16", classes, 224) == pytest.approx(3 * forward - 2 * patches)


def test_convolutions_count_too():
    assert gpu.flops("resnet18", 4, 224) == pytest.approx(3 * 2 * 1.81e9, rel=0.03)
