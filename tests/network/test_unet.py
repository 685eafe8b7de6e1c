import re

import pytest
import torch

from octkit.network.unet import InstanceNorm, ResidualBlock, UNet, weight_shapes

FEATURES, STRIDES, KERNELS = (4, 8, 8), ((1, 1), (2, 2), (2, 1)), ((3, 3), (3, 3), (3, 1))


@pytest.mark.parametrize("size", [(8, 8), (16, 24), (8, 2)])
def test_logits_have_the_sizes_of_the_decoder_stages(size):
    outputs = UNet(1, 4, FEATURES, STRIDES, KERNELS)(torch.zeros(2, 1, *size))
    assert [tuple(o.shape) for o in outputs] == [(2, 4, *size), (2, 4, size[0] // 2, size[1] // 2)]


def test_without_deep_supervision_the_full_resolution_logits_are_the_same():
    network = UNet(1, 4, FEATURES, STRIDES, KERNELS)
    image = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    deep = network(image)[0]
    network.deep_supervision = False
    assert torch.equal(network(image), deep)


def test_same_code_makes_a_3d_network():
    network = UNet(2, 3, (2, 4), ((1, 1, 1), (1, 2, 2)), ((1, 3, 3), (3, 3, 3)), deep_supervision=False)
    assert network(torch.zeros(1, 2, 3, 4, 6)).shape == (1, 3, 3, 4, 6)


def test_parameters_counted_by_hand():
    # encoder: 1->2 (3x3: 18 weights + 2), norm 4, 2->2 (36 + 2), norm 4; 2->4 (72 + 4), 8, 4->4 (144 + 4), 8
    # up 4->2 (2x2: 32 + 2); decoder 4->2 (72 + 2), 4, 2->2 (36 + 2), 4; scores 2->3 (6 + 3)
    network = UNet(1, 3, (2, 4), ((1, 1), (2, 2)), ((3, 3), (3, 3)))
    assert sum(p.numel() for p in network.parameters()) == (66 + 240) + 34 + 120 + 9


def test_residual_parameters_counted_by_hand():
    # stem 1->2 (18 + 2), 4; one block 2->2: 2 x (36 + 2 + 4); one 2->4: 72 + 4 + 8, 144 + 4 + 8, beside it 2->4 (8), 8;
    # one more 4->4: 2 x (144 + 4 + 8); up 32 + 2; decoder 4->2 (72 + 2), 4; scores 6 + 3
    network = UNet(1, 3, (2, 4), ((1, 1), (2, 2)), ((3, 3), (3, 3)), (1, 2))
    assert sum(p.numel() for p in network.parameters()) == 24 + 84 + (84 + 156 + 16) + 312 + 34 + 78 + 9


def test_an_untrained_residual_block_passes_on_what_came_in():
    image = torch.tensor([[[[1.0, 3.0], [5.0, -7.0]]]])
    kept = ResidualBlock(1, 1, (3, 3), (1, 1))(image)
    torch.testing.assert_close(kept, torch.tensor([[[[1.0, 3.0], [5.0, -0.07]]]]))  # leaky: -7 x 0.01
    assert ResidualBlock(1, 1, (3, 3), (2, 1))(image).tolist() == [[[[3.0, pytest.approx(-0.02)]]]]  # means of columns


def test_size_error_names_the_size_that_works():
    with pytest.raises(ValueError, match=r"\(10, 8\).*not divisible by \(4, 2\).*pad it to \(12, 8\)"):
        UNet(1, 2, FEATURES, STRIDES, KERNELS)(torch.zeros(1, 1, 10, 8))
    for blocks, found in (((), "got 2, 1 and 2 (and 0)"), ((1,), "got 2, 1 and 2 (and 1)")):
        with pytest.raises(ValueError, match=re.escape(found)):
            UNet(1, 2, (4, 8), ((1, 1),), ((3, 3), (3, 3)), blocks)


def test_an_instance_normed_network_does_not_care_for_the_image_scale():
    network = UNet(1, 3, FEATURES, STRIDES, KERNELS, deep_supervision=False).eval()
    image = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(1)) * 100
    torch.testing.assert_close(network(image), network(3 * image), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("blocks", [(), (1, 3, 2)])
@pytest.mark.parametrize(("features", "strides", "kernels"), [
    ((4, 8, 8), ((1, 1), (2, 2), (1, 2)), ((3, 3), (1, 3), (5, 3))),
    ((4, 6), ((1, 1, 1), (1, 2, 2)), ((1, 3, 3), (3, 3, 3)))])
def test_shapes_of_weights_without_a_network(features, strides, kernels, blocks):
    blocks = blocks[:len(features)]
    state = UNet(2, 4, features, strides, kernels, blocks).state_dict()
    assert list(weight_shapes(2, 4, features, strides, kernels, blocks).items()) == [
        (name, tuple(tensor.shape)) for name, tensor in state.items()]


LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}


@pytest.mark.parametrize(("features", "strides", "kernels", "size"), [
    (FEATURES, STRIDES, KERNELS, (48, 64)),
    ((4, 6), ((1, 1, 1), (1, 2, 2)), ((1, 3, 3), (3, 3, 3)), (5, 24, 32))])
@pytest.mark.parametrize(("deviation", "blocks"), [(1.0, ()), (0.003, ()), (0.003, (1, 2, 1))])
@torch.no_grad()
def test_prediction_computes_what_training_does(features, strides, kernels, size, deviation, blocks):
    """By other functions, with other sums: also in a window that is nearly constant, as one above the retina."""
    torch.manual_seed(4)
    network = UNet(1, 3, features, strides, kernels, blocks[:len(features)], deep_supervision=False)
    for weights in network.parameters():
        weights += 0.1 * torch.randn_like(weights)
    image = deviation * torch.randn(2, 1, *size) - 1.66
    expected = network.double()(image.double())
    network.float().eval()
    for layout, allowed in ((torch.contiguous_format, 1e-3), (LAYOUTS[len(size)], 2e-2)):
        logits = network.to(memory_format=layout)(image.contiguous(memory_format=layout))
        assert (logits - expected).abs().max() < allowed * expected.std()


@torch.no_grad()
def test_the_norm_by_hand():
    norm = InstanceNorm(1)
    norm.weight[:], norm.bias[:] = 2, 1
    image = torch.tensor([[[[1.0, 3.0]]], [[[10.0, 30.0]]]])  # mean 2, deviation 1; mean 20, deviation 10
    for training in (True, False):
        found = norm.train(training)(image)
        torch.testing.assert_close(found, torch.tensor([[[[-1.0, 3.0]]], [[[-1.0, 3.0]]]]), rtol=1e-4, atol=0)
