"""Pretrained encoders: .safetensors only, from a path, the local cache or the hub, and never a long wait."""

from __future__ import annotations

import json
import socket
import urllib.request
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import timm
from segmentation_models_pytorch.encoders import encoders as smp_encoders
from torch import Tensor, no_grad

from semiseg.errors import Refusal, usage
from semiseg.networks.base import Network

FILE = "model.safetensors"
ENOUGH = 0.9
PROBE_SECONDS = 1.5
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
DPN = ((124 / 255, 117 / 255, 104 / 255), (1 / (0.0167 * 255),) * 3)
SMP_OWN = {"inception": HALF, "xception": HALF, "dpn": DPN}
"""Encoders of smp that were not trained with the mean and deviation of ImageNet, by the start of their names."""


def find_weights(encoder: str, pretrained: str | bool) -> Path:
    """The .safetensors file that `pretrained` (True, "imagenet" or a path) means for an encoder as smp names it.

    Raises Refusal (exit 2): no such file, another format, no public weights, or no way to reach them.
    """
    if pretrained is not True and pretrained != "imagenet":
        return local_weights(str(pretrained))
    if encoder.startswith("tu-"):
        cfg = timm.get_pretrained_cfg(encoder[3:]) if timm.is_model_pretrained(encoder[3:]) else None
        repo, _, revision = (cfg.hf_hub_id if cfg and cfg.hf_hub_id else "").partition("@")
        file = ((cfg.hf_hub_filename if cfg else None) or FILE).replace("pytorch_model.bin", FILE)
    else:
        settings = smp_encoders[encoder]["pretrained_settings"]
        chosen: dict[str, str] = settings.get("imagenet") or next(iter(settings.values()), {})
        repo, revision, file = chosen.get("repo_id", ""), chosen.get("revision", ""), FILE
    if not repo or not file.endswith(".safetensors"):
        raise usage(f"encoder {encoder}", "has no public weights in safetensors", "give a path, or pretrained none")
    return hub_weights(encoder, repo, revision or None, file)


def local_weights(path: str) -> Path:
    """A .safetensors file, or model.safetensors in a folder."""
    file = Path(path)
    file = file / FILE if file.is_dir() else file
    if not file.is_file():
        raise usage(f"weights {path}", "does not exist", f"give a .safetensors file, or a folder with {FILE}")
    if file.suffix != ".safetensors":
        fix = "read it once with PyTorch if you trust it, and write safetensors.torch.save_file(state, 'x.safetensors')"
        raise usage(f"weights {path}", "is not a .safetensors file; other formats can run code", fix)
    return file


def hub_weights(encoder: str, repo: str, revision: str | None, file: str) -> Path:
    """From the local cache, or downloaded after a short look whether the hub answers at all."""
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

    cached = try_to_load_from_cache(repo, file, revision=revision)
    if isinstance(cached, str):
        return Path(cached)
    fix = "give the weights by path (--weights PATH), or train from scratch (pretrained none)"
    if constants.HF_HUB_OFFLINE or not reachable(constants.ENDPOINT):
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "there is no network"
        raise usage(f"pretrained {encoder}", f"is not in the local cache ({repo}), and {why}", fix)
    try:
        return Path(hf_hub_download(repo, file, revision=revision))
    except Exception as error:  # the hub's client raises its own, httpx's and the system's errors
        found = f"could not be downloaded from {repo} ({type(error).__name__})"
        raise usage(f"pretrained {encoder}", found, fix) from error


def reachable(url: str) -> bool:
    """Whether a connection to the host of `url`, or to the proxy in front of it, opens within 1.5 seconds.

    In a thread that is left to itself after that: no timeout of a socket bounds the look-up of a name.
    """
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        parts = urlsplit(proxy if "//" in proxy else f"//{proxy}", scheme="http")
    opened = []

    def probe() -> None:
        with suppress(OSError, ValueError):
            port = parts.port or (443 if parts.scheme == "https" else 80)
            with socket.create_connection((parts.hostname or "", port), timeout=PROBE_SECONDS):
                opened.append(port)

    thread = Thread(target=probe, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return bool(opened)


def own_mean_std(encoder: str, weights: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What an encoder was trained with: a config.json beside the weights, else what timm or smp say about its name."""
    config = weights.parent / "config.json"
    if config.is_file():
        try:
            found: Any = json.loads(config.read_text(encoding="utf-8"))
            found = found.get("pretrained_cfg", found)
            mean, std = tuple(map(float, found["mean"])), tuple(map(float, found["std"]))
            if len(mean) == len(std) == 3:
                return mean, std
        except (ValueError, KeyError, TypeError, AttributeError):
            pass  # some other config.json
    if encoder.startswith("tu-"):
        cfg = timm.get_pretrained_cfg(encoder[3:], allow_unregistered=True)
        return (tuple(cfg.mean), tuple(cfg.std)) if cfg else IMAGENET
    return next((own for start, own in SMP_OWN.items() if encoder.startswith(start)), IMAGENET)


def load_encoder(net: Network, path: str | Path) -> str:
    """Load a .safetensors file into the encoder of `net`; says how many tensors matched, also in `net.weights`.

    Keys may carry any common prefix (`encoder.`, `model.`, …); what the encoder does not have (classifiers, decoders)
    is left out; the first convolution is summed or repeated to the channels of `net`, by the rule of smp and timm.
    Raises Refusal (exit 2) when fewer than 90 % of the encoder's tensors match, or a shape differs.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        given = {_canon(key): value for key, value in load_file(local_weights(str(path))).items()}
    except (SafetensorError, OSError) as error:
        raise usage(f"weights {path}", f"cannot be read ({error})", "copy or download it again") from error
    own = net.backbone().state_dict()
    names = {key: _canon(key.removeprefix("model.")) for key in own}
    prefix = _prefix(list(names.values()), given)
    found = {key: given[prefix + name] for key, name in names.items() if prefix + name in given}
    found = {key: _channels(value, own[key], net.channels) for key, value in found.items()}
    wanted = [key for key in own if not key.endswith("num_batches_tracked")]  # many files lack the counters
    missing = [key for key in wanted if key not in found]
    wrong = [f"{k} {tuple(v.shape)} not {tuple(own[k].shape)}" for k, v in found.items() if v.shape != own[k].shape]
    summary = f"{len(wanted) - len(missing)} of {len(wanted)} encoder tensors from {Path(path).name}"
    if wrong or len(missing) > (1 - ENOUGH) * len(wanted):
        raise _mismatch(path, summary, wrong or missing, "other shapes" if wrong else "missing")
    with no_grad():
        for key, value in found.items():
            own[key].copy_(value)
    net.weights = summary
    return summary


def _mismatch(path: str | Path, summary: str, keys: list[str], what: str) -> Refusal:
    listed = ", ".join(keys[:5]) + (", …" if len(keys) > 5 else "")
    fix = "give the weights of this encoder, or choose the network they were made for"
    return usage(f"weights {path}", f"does not fit: {summary}; {len(keys)} {what}: {listed}", fix)


def _canon(key: str) -> str:
    return key.replace(".", "_")  # timm flattens stages.0 into stages_0 when it takes features only


def _prefix(names: list[str], given: dict[str, Tensor]) -> str:
    """The prefix under which most of the encoder's names are in the file."""
    tails = names[:: max(1, len(names) // 8)]
    prefixes = {key[: -len(name)] for name in tails for key in given if key.endswith(name)}
    best = sorted(prefixes, key=lambda p: (-sum(p + name in given for name in names), len(p), p))
    return best[0] if best else ""


def _channels(value: Tensor, own: Tensor, channels: int) -> Tensor:
    """A first convolution of other input channels: summed to one, else repeated in turn at the same total."""
    same = value.ndim == own.ndim == 4 and value.shape[0] == own.shape[0] and value.shape[2:] == own.shape[2:]
    if not same or own.shape[1] != channels or value.shape[1] == channels:
        return value
    if channels == 1:
        return value.sum(1, keepdim=True)
    turns = [i % value.shape[1] for i in range(channels)]
    return value[:, turns] * (value.shape[1] / channels)
