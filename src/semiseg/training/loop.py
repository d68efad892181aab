"""The loop: one member from fresh weights to a sealed folder, resumable at any step, the same on every try."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from semiseg import storage
from semiseg.batch import Clock, Labeled, Unlabeled, seed_of
from semiseg.data.sampler import Feed
from semiseg.ema import Average
from semiseg.errors import DIVERGED, USAGE, Problem, Refusal
from semiseg.methods import own
from semiseg.methods.base import Method
from semiseg.training import checkpoint
from semiseg.training.config import SELECTABLE, Config
from semiseg.training.distributed import average_norms, fabric_of, key_of
from semiseg.training.logs import Board, Log, steps_per_row
from semiseg.training.optimizer import make_optimizer, rate
from semiseg.training.origin import commit
from semiseg.training.signals import STOP, Stopped


@dataclass
class Job:
    """One member to train. key: (seed, generation, member), from which every draw of the training derives."""

    folder: Path
    key: tuple[int, int, int]
    title: str
    config: Config
    feed: Feed
    build: Callable[[], Method]
    evaluate: Callable[[nn.Module], dict[str, Any]] | None
    val_images: int
    log: Log
    shape: str = ""  # fingerprint of what decides the result; "" when a committee had a hand in it
    reuse: tuple[Path, ...] = ()  # the same member of other runs
    moments: tuple[int, ...] = ()  # steps after which the weights are kept, as snapshot-0, snapshot-1, …


def fit(job: Job) -> dict[str, Any]:
    """Train, or return the result of a member that is finished already. Raises Stopped after a signal, exit 5 on NaN."""
    final = job.folder / "final"
    if storage.is_sealed(final):
        _drop_checkpoints(job.folder)
        job.log.event("already finished", member=str(job.folder.name), folder=job.title)
        return storage.read_json(final / "result.json")
    if job.shape and any(_take_over(job, theirs / "final", final) for theirs in job.reuse):
        return storage.read_json(final / "result.json")
    seed, *_, index = job.key
    torch.manual_seed(seed_of(seed, index, "init"))  # without the generation: a student starts where labels only does
    fabric = fabric_of(job.config)
    method = job.build()
    wrapped, optimizer = fabric.setup(method.to(fabric.device), make_optimizer(method, job.config))
    wrapped.mark_forward_method("step")
    run = _Run(job, fabric, method, wrapped, optimizer)
    run.resume()
    run.train()
    return run.finish(final)


def _drop_checkpoints(folder: Path) -> None:
    """A sealed member needs none; one killed right after sealing still has them."""
    for old in folder.glob("step-????????"):
        storage.remove(old)


def _take_over(job: Job, theirs: Path, final: Path) -> bool:
    """Copy another run's member when everything that shaped it is the same; its log comes along."""
    if not storage.is_sealed(theirs) or storage.read_json(theirs / "result.json").get("shape") != job.shape:
        return False
    storage.write_bytes(job.folder / "metrics.csv", (theirs.parent / "metrics.csv").read_bytes())
    names = [f"snapshot-{i}/final" for i in range(len(job.moments))]
    for source, target in [*((theirs.parent / n, job.folder / n) for n in names), (theirs, final)]:  # its end last
        storage.verify(source)
        files = {p.name: p.read_bytes() for p in source.iterdir() if p.name != "manifest.json"}
        storage.save_folder(target, files, {"step": storage.read_json(source / "result.json")["steps"]})
    job.log.event("taken over", title=job.title, source=str(theirs.parent))
    return True


class _Run:
    """The moving parts of `fit`."""

    def __init__(self, job: Job, fabric: Fabric, method: Method, wrapped: Any, optimizer: Any) -> None:
        self.job, self.fabric, self.method, self.wrapped, self.optimizer = job, fabric, method, wrapped, optimizer
        self.config = job.config
        average = self.config.average
        self.average = Average(method.predictor(), average).to(fabric.device) if average else None
        self.best = checkpoint.Best(self.predictor())
        self.modules: dict[str, nn.Module] = {"method": method, "best": self.best}
        if self.average is not None:
            self.modules["average"] = self.average
        for module in (m for owner in self.modules.values() for m in owner.modules() if isinstance(m, Average)):
            module.window = self.config.ema_window
        self.step, self.seconds, self.best_step = 0, 0.0, -1
        self.last: dict[str, Any] | None = None  # val metrics after the newest step, and of the best
        self.best_val: dict[str, Any] | None = None
        self.every = steps_per_row(self.config.steps)
        self.window: list[dict[str, Tensor]] = []
        self.bad = torch.full((), self.config.steps, device=fabric.device)  # first step whose loss was not finite

    def predictor(self) -> nn.Module:
        """The network that is evaluated."""
        return self.average.network if self.average is not None else self.method.predictor()

    def resume(self) -> None:
        """Go on from the newest whole checkpoint, if there is one; later log rows are taken back."""
        folder = self.job.folder
        path, note = storage.newest_checkpoint(folder)
        if note:
            self.job.log.say(f"Warning: {note}")
        if path is not None:
            state = checkpoint.load(path, self.modules, self.optimizer)
            self.step, self.seconds, self.best_step = state["step"], state["seconds"], state["best_step"]
            self.best_val = state["best_val"]
            if scale := state.get("scale"):  # of 16-mixed
                self.fabric.strategy.precision.load_state_dict(scale)
            device = self.fabric.device
            self.window = [{k: torch.tensor(v, device=device) for k, v in w.items()} for w in state["window"]]
        seen = storage.CsvLog.truncate(folder / "metrics.csv", self.step)
        self.job.log.event("member", title=self.job.title, resumed_at=self.step, rows_taken_back=seen)

    def train(self) -> None:
        """All remaining steps."""
        job, config = self.job, self.config
        fields = ["step", "split", "loss", "lr", "miou", "dice", "iou_per_image", "detail"]
        board = Board(job.folder, config.tensorboard, self.step, job.log)
        csv = storage.CsvLog(job.folder / "metrics.csv", fields)
        self.method.train()
        said = ""
        with job.log.bar(job.title, config.steps, self.step, stops=False) as bar:
            while self.step < config.steps:
                start = time.monotonic()
                self.one_step()
                if self.step % self.every == 0 or self.step == config.steps:
                    row = self.flush()
                    csv.row(row)
                    board.scalars({"loss": row["loss"], "lr": row["lr"]}, self.step)
                    said = f"loss {row['loss']:.3f}"
                    bar(self.step, said + self.score_note())
                if job.evaluate and (self.step % config.eval_every == 0 or self.step == config.steps):
                    csv.row(self.validate(job.evaluate))
                    bar(self.step, said + self.score_note())
                if self.step in job.moments:
                    self.snapshot(job.folder / f"snapshot-{job.moments.index(self.step)}" / "final")
                self.seconds += time.monotonic() - start
                due = self.step % config.checkpoint_every == 0 or bool(STOP.requested)
                if due and self.step < config.steps:
                    csv.sync()  # the log is on the disk before the state that goes on from it
                    self.save()
                if STOP.requested and self.step < config.steps:
                    raise Stopped(STOP.requested)
        csv.sync()
        csv.close()
        board.close()

    def one_step(self) -> None:
        """Draw, compute, move. No value leaves the device here."""
        config, key = self.config, key_of(self.job.key, self.fabric.global_rank)
        torch.manual_seed(seed_of(*key, "step", self.step))
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr * group["lr_scale"] * rate(self.step, config)
        clock = Clock(self.step, config.steps, key)
        labeled = self.job.feed.labeled(self.step)
        unlabeled = self.job.feed.unlabeled(self.step, self.method.views)
        losses = self.losses(labeled, unlabeled, clock)
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(losses["loss"])
        if config.clip:
            norm = self.fabric.clip_gradients(
                self.wrapped, self.optimizer, max_norm=config.clip, error_if_nonfinite=False
            )
            scaled = config.precision == "16-mixed"  # a scale that is too large leaves a step out and shrinks: no fault
            finite = torch.isfinite(losses["loss"] if scaled or not isinstance(norm, Tensor) else norm)
        else:
            finite = torch.isfinite(losses["loss"])
        self.bad = torch.where(finite, self.bad, self.bad.clamp(max=self.step))
        self.optimizer.step()
        average_norms(self.method)
        self.method.after_step(clock)
        if self.average is not None:
            self.average.update(self.method.predictor(), config.steps)
        self.window.append({k: v.detach() for k, v in losses.items()})
        self.step += 1

    def losses(self, labeled: Labeled, unlabeled: Unlabeled | None, clock: Clock) -> dict[str, Tensor]:
        """The method's step; the mistakes that only show here get their words."""
        try:
            with self.fabric.autocast():  # the wrapper does so for several processes only
                return own.stepped(self.method, self.wrapped.step(labeled, unlabeled, clock))
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            config, where, typed = self.config, "--batch", "--batch 2"
            if config.unlabeled_batch == 1 < config.batch:
                where, typed = "unlabeled_batch", "--set unlabeled_batch=2"
            found = (
                f"is {min(config.batch, config.unlabeled_batch)} at {config.size} px: batch normalisation is left with"
            )
            problem = Problem("C06", where, f"{found} a single value", f"use {typed} or more, or a larger --size")
            raise Refusal(problem, USAGE) from error

    def flush(self) -> dict[str, Any]:
        """One log row: means over the window. The only place where training waits for the device."""
        self.whole()
        means = {k: float(torch.stack([w[k].float() for w in self.window]).mean()) for k in self.window[0]}
        self.window = []
        detail = ";".join(f"{k}={v:.6g}" for k, v in means.items() if k != "loss")
        return {"step": self.step, "split": "train", "loss": means["loss"], "lr": self.optimizer.param_groups[0]["lr"],
                "detail": detail}  # fmt: skip

    def whole(self) -> None:
        """Exit 5, naming the step and the images that were in it, once a loss or gradient was not finite."""
        if (step := int(self.bad)) >= self.config.steps:
            return
        names = ", ".join(self.job.feed.names(step)[:6])
        found = f"has a loss or gradient that is not finite at step {step}; images in the batch: {names}"
        slower = f"--set lr={self.config.lr / 3:.1g}"
        fix = f"lower the learning rate ({slower}) or look at these images; the last checkpoint is whole"
        raise Refusal(Problem("R05", self.job.title, found, fix), DIVERGED)

    def validate(self, evaluate: Callable[[nn.Module], dict[str, Any]]) -> dict[str, Any]:
        """Score the predictor on val and remember it when it is the best so far."""
        self.last = evaluate(self.predictor())
        score = self.last["miou"]
        if score is not None and (self.best_val is None or score > self.best_val["miou"]):
            self.best_val, self.best_step = self.last, self.step
            self.best.keep(self.predictor())
        detail = ";".join(f"{k}={v['iou']:.6g}" for k, v in self.last["per_class"].items() if v["iou"] is not None)
        return {"step": self.step, "split": "val", "miou": score, "dice": self.last["dice"],
                "iou_per_image": self.last["iou_per_image"], "detail": detail}  # fmt: skip

    def score_note(self) -> str:
        """For the progress bar: the score of what would be kept, which below SELECTABLE val images is the last step."""
        best = self.job.val_images >= SELECTABLE
        score = ((self.best_val if best else self.last) or {}).get("miou")
        return "" if score is None else f" · {'best ' if best else ''}val {score:.3f}"

    def save(self) -> None:
        """Commit everything that the next step depends on."""
        self.whole()
        window = [{k: float(v) for k, v in w.items()} for w in self.window]
        state = {"seconds": self.seconds, "best_step": self.best_step, "best_val": self.best_val, "window": window,
                 "scale": self.fabric.strategy.precision.state_dict()}  # fmt: skip
        checkpoint.save(self.job.folder, self.step, self.modules, self.optimizer, state)
        self.job.log.event("checkpoint", title=self.job.title, step=self.step)

    def snapshot(self, final: Path) -> None:
        """Keep the weights of this moment, before any checkpoint that goes on from here. What they cost is the member's."""
        if not storage.is_sealed(final):
            self.whole()
            score = self.job.evaluate(self.predictor()) if self.job.evaluate else None
            about = {"seconds": 0.0, "images_forwarded": 0, "chosen": "snapshot", "best_step": None}
            self.seal(final, {**about, "val": score, "val_last": score})

    def seal(self, final: Path, about: dict[str, Any]) -> dict[str, Any]:
        """Write weights and result.json of the predictor as it is now."""
        network = self.predictor()
        weights = network.state_dict()
        result = {
            "title": self.job.title, "steps": self.step, **about, "network": self.config.network,
            "hash": storage.hash_tensors(weights), "parameters": sum(p.numel() for p in network.parameters()),
            "shape": self.job.shape, "first_batch": self.job.feed.first_batch_hash(), "commit": commit(),
        }  # fmt: skip
        storage.save_folder(
            final, {"weights.safetensors": weights, "result.json": json.dumps(result)}, {"step": self.step}
        )
        return result

    def finish(self, final: Path) -> dict[str, Any]:
        """Seal the member: the best weights when val can tell, the last otherwise. Checkpoints are then removed."""
        network = self.predictor()
        best = self.best_val is not None and self.job.val_images >= SELECTABLE
        evaluate = self.job.evaluate
        beside = {name: evaluate(net) for name, net in self.method.companions().items()} if evaluate else {}
        if best:
            network.load_state_dict(self.best.restore(network))
        images = self.method.images_per_step(self.config.batch, self.job.feed.drawn) * self.config.steps
        result = self.seal(final, {
            "seconds": round(self.seconds, 3), "images_forwarded": images, "chosen": "best" if best else "last",
            "best_step": self.best_step if best else None, "val": self.best_val if best else self.last,
            "val_last": self.last, "companions": beside,
        })  # fmt: skip
        _drop_checkpoints(self.job.folder)
        self.job.log.event("finished", title=self.job.title, hash=result["hash"])
        return result
