"""Which parameters move, and how fast: optimisers, the head's learning rate, a frozen encoder, epochs."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import tiny
from semiseg import losses, storage
from semiseg.batch import Clock
from semiseg.errors import Refusal
from semiseg.methods.base import Method
from semiseg.methods.supervised import Supervised
from semiseg.networks import build
from semiseg.programs.train import configure
from semiseg.training.config import Config, differences
from semiseg.training.optimizer import make_optimizer

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("optimizer")
    return tiny.write_folder(root / "data", "binary"), root


def supervised(**changes):
    torch.manual_seed(0)
    task = tiny.task_of("binary")
    return Supervised(tiny.make_of(task), task), tiny.config(lr=0.1, weight_decay=0.0, **changes)


def one_step(method, optimizer, config):
    for group in optimizer.param_groups:
        group["lr"] = config.lr * group["lr_scale"]
    optimizer.zero_grad()
    method.step(tiny.labeled("binary"), None, Clock(0, 8))["loss"].backward()
    grads = {k: p.grad.clone() for k, p in method.named_parameters()}
    before = {k: p.detach().clone() for k, p in method.named_parameters()}
    optimizer.step()
    return grads, {k: p.detach() - before[k] for k, p in method.named_parameters()}


def test_the_default_moves_as_one_group_of_adamw_did():
    (mine, config), (theirs, _) = supervised(), supervised()
    plain = torch.optim.AdamW(theirs.parameters(), lr=config.lr, weight_decay=0.0, foreach=True)
    plain.param_groups[0]["lr_scale"] = 1.0
    optimizer = make_optimizer(mine, config)
    for _ in range(3):
        one_step(mine, optimizer, config)
        one_step(theirs, plain, config)
    assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), theirs.parameters(), strict=True))


def test_sgd_has_momentum_without_a_look_ahead():
    method, config = supervised(optimizer="sgd")
    optimizer = make_optimizer(method, config)
    first, moved = one_step(method, optimizer, config)
    assert all(torch.allclose(moved[k], -0.1 * g, atol=1e-7) for k, g in first.items())
    second, moved = one_step(method, optimizer, config)
    assert all(torch.allclose(moved[k], -0.1 * (0.9 * first[k] + g), atol=1e-6) for k, g in second.items())


def test_adam_adds_its_decay_to_the_gradient():
    method, config = supervised(optimizer="adam")
    config.weight_decay = 1e4  # next to it the gradient is nothing: every parameter moves by lr towards 0
    weights = {k: p.detach().clone() for k, p in method.named_parameters() if p.ndim == 4}
    _, moved = one_step(method, make_optimizer(method, config), config)
    assert all(torch.allclose(moved[k], -0.1 * w.sign(), atol=1e-3) for k, w in weights.items())


def test_the_head_has_its_own_learning_rate():
    method, config = supervised(optimizer="sgd", head_lr=40.0)
    encoder = {k for k, _ in method.named_parameters() if k.startswith("student.encoder.")}
    grads, moved = one_step(method, make_optimizer(method, config), config)
    assert encoder and encoder != set(grads)
    for name, grad in grads.items():
        scale = 1.0 if name in encoder else 40.0
        assert torch.allclose(moved[name], -0.1 * scale * grad, atol=1e-6), name


class Both(Method):
    """Two networks, a projector of its own, and a judge that names its learning rate."""

    def __init__(self, make, task):
        super().__init__(make, task)
        self.second, self.project, self.judge = make("second"), nn.Linear(2, 2), nn.Linear(2, 1)
        self.teacher = make("teacher").requires_grad_(False)

    def groups(self):
        judge = list(self.judge.parameters())
        rest = [{**g, "params": [p for p in g["params"] if not any(p is q for q in judge)]} for g in super().groups()]
        return [*rest, {"name": "judge", "params": judge, "lr_scale": 0.1}]


def test_new_parts_of_a_method_are_head_unless_they_say_otherwise():
    task = tiny.task_of("binary")
    method = Both(tiny.make_of(task), task)
    optimizer = make_optimizer(method, tiny.config(head_lr=10.0))
    scale = {id(p): g["lr_scale"] for g in optimizer.param_groups for p in g["params"]}
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(scale)
    for part, wanted in ((method.student.encoder, 1.0), (method.second.encoder, 1.0), (method.second.ups, 10.0),
                         (method.student.last, 10.0), (method.project, 10.0), (method.judge, 0.1)):  # fmt: skip
        assert {scale[id(p)] for p in part.parameters()} == {wanted}
    assert not {id(p) for p in method.teacher.parameters()} & set(scale)


@pytest.mark.parametrize("method", ["supervised", "mean_teacher"])
def test_a_frozen_encoder_is_what_was_loaded(data, method, tmp_path):
    torch.manual_seed(3)
    encoder = {f"encoder.{k}": v for k, v in build("unet1x1:0.25", 1, 1).encoder.state_dict().items()}
    save_file(encoder, tmp_path / "encoder.safetensors")
    changes = {"method": method, "weights": str(tmp_path / "encoder.safetensors"), "freeze": True, "steps": 4}
    prepared = tiny.prepare(data[0], tmp_path / "cache", **changes)
    session = tiny.session(tmp_path / "run", prepared)
    folder = session.train(0, 0, "member").folder
    found = storage.read_tensors(tmp_path / "run" / folder / "final" / "weights.safetensors")
    assert all(torch.equal(found[k], v) for k, v in encoder.items())
    fresh = prepared.make().state_dict()
    assert any(not torch.equal(found[k], v) for k, v in fresh.items() if k.startswith("ups."))


def test_freezing_without_weights_is_refused():
    with pytest.raises(Refusal, match=r"freeze keeps the encoder as it is.*--weights imagenet"):
        configure({"data": "x", "method": "supervised"}, ["freeze=yes"], None, {})
    assert configure({"data": "x", "method": "supervised", "weights": "a"}, ["freeze=yes"], None, {}).freeze


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"method": "fixmatch", "epochs": 3}, 3 * (5 // 2)),
        ({"method": "fixmatch", "epochs": 3, "unlabeled_batch": 5}, 3),
        ({"method": "fixmatch", "epochs": 3, "unlabeled_batch": 50}, 3),
        ({"method": "supervised", "epochs": 3}, 3 * (6 // 2)),
        ({"method": "supervised", "program": "im", "epochs": 3}, 3 * (5 // 2)),
        ({"method": "fixmatch", "epochs": 3, "steps": 7}, 7),
        ({"method": "fixmatch"}, 2000),
    ],
)
def test_epochs_become_steps(data, tmp_path, changes, steps):
    prepared = tiny.prepare(data[0], tmp_path / "cache", **{"steps": 0, **changes})
    assert prepared.config.steps == steps


def test_epochs_say_the_same_as_their_steps():
    a, b = (tiny.config(epochs=n).shape((0,), "supervised", "hash") for n in (0, 3))
    assert a == b != tiny.config(optimizer="sgd").shape((0,), "supervised", "hash")


def test_default_rates_follow_the_optimizer(data, tmp_path):
    chosen = [tiny.prepare(data[0], tmp_path / str(i), lr=0.0, **c).config.lr for i, c in
              enumerate(({}, {"optimizer": "sgd"}, {"optimizer": "adam"}))]  # fmt: skip
    assert chosen == [3e-3, 1e-2, 3e-3]


def test_a_run_of_before_these_keys_can_go_on():
    new = Config(data="d").to_json()
    old = {k: v for k, v in new.items() if k not in ("optimizer", "head_lr", "freeze", "epochs")}
    assert differences(old, new) == []
    assert differences(old, {**new, "optimizer": "sgd"}) == ["optimizer: 'adamw' → 'sgd'"]
    assert differences({**new, "head_lr": 10.0}, new) == ["head_lr: 10.0 → 1.0"]


def test_ohem_never_asks_the_device():
    """Meta tensors have no values: anything that waited for one would fail."""
    logits = torch.empty(2, 3, 8, 8, device="meta", requires_grad=True)
    label = torch.empty(2, 8, 8, dtype=torch.long, device="meta")
    losses.ohem(losses.cross_entropy_map(logits, label), (label != 255).unsqueeze(1)).backward()
    assert logits.grad.shape == logits.shape


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_ohem_as_the_loss_of_a_task(kind):
    task = tiny.task_of(kind, "ohem")
    batch = tiny.labeled(kind, n=2, size=16)
    logits = torch.randn(2, task.channels, 16, 16, requires_grad=True, generator=torch.Generator().manual_seed(0))
    loss = task.supervised(logits, batch)
    loss.backward()
    per = task.loss_map(logits, batch.mask)
    prob, least = torch.exp(-per.detach()).flatten(), round(losses.OHEM_KEPT * per.numel())
    hard = prob <= max(0.7, prob.sort().values[least - 1].item())
    assert loss.item() == pytest.approx(per.flatten()[hard].mean().item(), abs=1e-6)
    assert 0 < hard.sum() < hard.numel()
    easy = (~hard).view(per.shape).expand_as(logits) if not task.multilabel else (~hard).view(per.shape)
    assert (logits.grad[easy] == 0).all()
