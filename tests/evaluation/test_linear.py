"""Linear classifiers on frozen conv layers, against plain PyTorch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import tiny
from torch import nn

from data.batch import Batch
from data.transforms import to_input
from evaluation import linear as probe
from evaluation.linear_results import History, best_epochs
from evaluation.linear_run import learning_rate_decay
from evaluation.metrics import top_k
from models import MODELS, untrained
from models.layers import nearest_grid, probe_pool
from system.device import select_compute
from system.errors import InputError

CPU = torch.device("cpu")
COMPUTE = select_compute("cpu", "fp32")


def batches(count: int, seed: int = 0) -> list[Batch]:
    """Random pixels, four images at a time."""
    random = torch.Generator().manual_seed(seed)
    return [
        Batch(
            torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8, generator=random),
            torch.arange(4 * i, 4 * i + 4),
            {},
        )
        for i in range(count)
    ]


def test_alexnet_has_the_papers_dimensions() -> None:
    heads = probe.Heads(untrained("alexnet", True, 2, 0).eval(), range(1, 6), 10, 224, seed=0)
    assert list(heads.dimensions.values()) == [9600, 9216, 9600, 9600, 9216]


@pytest.mark.parametrize("margin", [0, 1])
def test_vgg16_has_the_dimensions_of_deeperclusters_release(margin: int) -> None:
    with torch.device("meta"):
        model = MODELS["vgg16"](sobel=True).eval()
        model.margin = margin
        maps = dict(model.each_conv_features(torch.zeros(1, 3, 224, 224), range(1, 14)))
        dims = [probe_pool("vgg16", n, each)(each).numel() for n, each in maps.items()]
    assert dims == [9216] * 2 + [8192] * 2 + [9216] * 3 + [8192] * 6


@pytest.mark.parametrize(
    ("channels", "side"), [(64, 12), (128, 9), (256, 6), (512, 4), (1024, 3), (2048, 2)]
)
def test_other_networks_have_about_ten_thousand_dimensions(channels: int, side: int) -> None:
    """64·12² = 9216; 128·9² = 10368 is nearer to 10,000 than 128·8² = 8192 to 9,000; 512·4² = 8192
    nearer than 512·5² = 12800."""
    assert nearest_grid(channels) == side


def test_training_equals_sgd_by_hand() -> None:
    """v ← m·v + g + wd·w, w ← w − lr_t·v, with the paper's falling rate lr_t."""
    model = tiny().eval()
    heads = probe.Heads(model, [2], 3, 32, seed=5)
    linear = nn.Linear(heads.dimensions[2], 3)
    linear.load_state_dict(heads.linear["2"].state_dict())
    labels = torch.arange(12) % 3
    optimizer = torch.optim.SGD(heads.parameters(), 0.1, 0.9, weight_decay=0.5)
    losses = probe.train_epoch(
        model, heads, optimizer, batches(3), labels, COMPUTE,  # type: ignore[arg-type]
        set_rate=lambda batch: learning_rate_decay(optimizer, 7 + batch, 0.1),
        on_unreadable=lambda u: None, advance=lambda n: None,
    )  # fmt: skip

    velocity = [torch.zeros_like(p) for p in linear.parameters()]
    expected = []
    for t, batch in enumerate(batches(3), 7):
        with torch.no_grad():
            maps = model.conv_features(to_input(batch.pixels, CPU), 2)
            x = F.adaptive_avg_pool2d(maps, 24).flatten(1)  # 16·24² = 9216
        loss = F.cross_entropy(linear(x), labels[batch.index])
        expected.append(float(loss.detach()))
        gradients = torch.autograd.grad(loss, list(linear.parameters()))
        with torch.no_grad():
            for p, v, g in zip(linear.parameters(), velocity, gradients, strict=True):
                v.mul_(0.9).add_(g + 0.5 * p)
                p.sub_(v, alpha=0.1 / (1 + 0.1 * 0.5 * t) ** 0.5)
    assert losses[2] == pytest.approx(np.mean(expected), rel=1e-5)
    for own, other in zip(heads.parameters(), linear.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)


def validate(heads: probe.Heads, loader: list[Batch], labels: torch.Tensor) -> dict[str, float]:
    model = tiny().eval()
    found = probe.validate(
        model, heads, loader, labels, COMPUTE,  # type: ignore[arg-type]
        on_unreadable=lambda u: None, advance=lambda n: None,
    )  # fmt: skip
    return found[2]


def test_validation_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unreadable image counts as an error."""
    torch.manual_seed(0)
    model = tiny().eval()
    heads, labels = probe.Heads(model, [2], 7, 32, seed=5), torch.arange(12) % 7
    nn.init.normal_(heads.get_parameter("linear.2.weight"))
    loader = batches(3)
    loader[1] = Batch(loader[1].pixels[:3], loader[1].index[:3], {7: "no image"})
    monkeypatch.setattr("data.labelled.MOST_UNREADABLE", 0.1)
    torch.manual_seed(0)
    found = validate(heads, loader, labels)

    logits = torch.cat([heads(heads.pooled(model, to_input(b.pixels, CPU)))[2] for b in loader])
    target = labels[torch.cat([batch.index for batch in loader])]
    for k in (1, 5):
        hits = top_k(logits.detach().numpy(), target.numpy(), k) * 11
        assert found[f"top{k}"] == pytest.approx(hits / 12)
    assert found["loss"] == pytest.approx(float(F.cross_entropy(logits.detach(), target)), rel=1e-5)


def test_ten_crops_give_the_mean_softmax_and_the_central_loss() -> None:
    torch.manual_seed(0)
    model = tiny().eval()
    heads, labels = probe.Heads(model, [2], 7, 32, seed=5), torch.arange(4)
    nn.init.normal_(heads.get_parameter("linear.2.weight"))
    pixels = torch.randint(256, (4, 10, 3, 32, 32), dtype=torch.uint8)
    torch.manual_seed(0)
    found = validate(heads, [Batch(pixels, torch.arange(4), {})], labels)
    logits = torch.stack(
        [heads(heads.pooled(model, to_input(crop, CPU)))[2] for crop in pixels.unbind(1)]
    )
    scores = logits.softmax(dim=2).mean(dim=0).detach().numpy()
    assert found["top1"] == pytest.approx(top_k(scores, labels.numpy(), 1))
    assert found["loss"] == pytest.approx(
        float(F.cross_entropy(logits[4].detach(), labels)), rel=1e-5
    )


def test_a_nan_loss_is_an_error() -> None:
    model = tiny().eval()
    heads = probe.Heads(model, [1], 3, 32, seed=0)
    nn.init.constant_(heads.get_parameter("linear.1.weight"), float("nan"))
    optimizer = torch.optim.SGD(heads.parameters(), 0.1)
    with pytest.raises(InputError, match=r"^the loss of conv1 became nan; try a lower --lr"):
        probe.train_epoch(
            model, heads, optimizer, batches(1), torch.zeros(4).long(), COMPUTE,  # type: ignore[arg-type]
            set_rate=lambda batch: None,
            on_unreadable=lambda u: None, advance=lambda n: None,
        )  # fmt: skip


def test_the_best_epoch_is_the_first_of_equals() -> None:
    history: History = [{3: {"top1": value}} for value in (0.1, 0.4, 0.3, 0.4)]
    assert best_epochs(history) == {3: 1}


def test_pooled_activations_do_not_depend_on_the_batch() -> None:
    model = tiny().eval()
    heads = probe.Heads(model, [1, 2], 3, 32, seed=0)
    x = to_input(batches(1)[0].pixels, CPU)
    for layer, pooled in heads.pooled(model, x).items():
        assert pooled.shape == (4, heads.dimensions[layer])
        alone = heads.pooled(model, x[2:3])[layer]
        torch.testing.assert_close(alone[0], pooled[2], rtol=1e-5, atol=1e-5)
