import json
import threading

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from semiseg.errors import Refusal
from semiseg.networks import build, weights
from semiseg.networks.weights import IMAGENET, load_encoder, own_mean_std, reachable

torch.set_num_threads(1)
NAME = "linknet/mobilenetv3_small_100"


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(1)
    return {k.removeprefix("model."): v for k, v in build(NAME, 3, 1).backbone().state_dict().items()}


def saved(path, state, prefix=""):
    save_file({prefix + k: v.contiguous() for k, v in state.items()}, path)
    return str(path)


def encoder(net):
    return {k.removeprefix("model."): v for k, v in net.backbone().state_dict().items()}


@pytest.mark.parametrize("prefix", ["", "encoder.", "student.model.encoder.model."])
def test_any_prefix_and_further_keys(tmp_path, trained, prefix):
    extra = {"decoder.conv1.weight": torch.zeros(3, 3), "classifier.weight": torch.zeros(2, 2)}
    path = saved(tmp_path / "w.safetensors", {**trained, **extra}, prefix)
    net = build(NAME, 3, 1, pretrained=path)
    assert all(torch.equal(v, trained[k]) for k, v in encoder(net).items())
    wanted = sum(not k.endswith("num_batches_tracked") for k in trained)
    assert net.weights == f"{wanted} of {wanted} encoder tensors from w.safetensors"


def test_a_folder_with_its_own_mean_and_deviation(tmp_path, trained):
    saved(tmp_path / "model.safetensors", trained)
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [1, 2, 3]}}))
    net = build(NAME, 3, 1, pretrained=str(tmp_path))
    assert net.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert net.std.flatten().tolist() == [1, 2, 3]
    given = build(NAME, 3, 1, pretrained=str(tmp_path), mean=[0, 0, 0], std=[1, 1, 1])
    assert given.std.flatten().tolist() == [1, 1, 1]


def test_mean_and_deviation_by_name(tmp_path):
    file = tmp_path / "w.safetensors"
    assert own_mean_std("resnet18", file) == IMAGENET == own_mean_std("tu-vit_small_patch14_dinov2", file)
    for encoder in ("inceptionv4", "tu-tf_efficientnet_lite0"):
        assert own_mean_std(encoder, file) == ((0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_other_channels_keep_the_total_of_the_first_convolution(tmp_path, trained, channels):
    path = saved(tmp_path / "w.safetensors", trained)
    net = build(NAME, channels, 1, pretrained=path)
    first, given = encoder(net)["conv_stem.weight"], trained["conv_stem.weight"]
    if channels == 1:
        expected = given.sum(1, keepdim=True)
    else:
        expected = torch.stack([given[:, i % 3] for i in range(channels)], 1) * 3 / channels
    assert torch.allclose(first, expected)
    assert torch.equal(net.mean, torch.zeros(1, channels, 1, 1))


def test_names_flattened_by_timm_match(tmp_path):
    torch.manual_seed(2)
    state = encoder(build("pspnet/convnext_atto", 3, 1))
    assert any("stages_0." in k for k in state)
    path = saved(tmp_path / "w.safetensors", {k.replace("stages_", "stages."): v for k, v in state.items()})
    loaded = encoder(build("pspnet/convnext_atto", 3, 1, pretrained=path))
    assert all(torch.equal(v, state[k]) for k, v in loaded.items())


def test_ninety_percent(tmp_path, trained):
    keys = [k for k in trained if not k.endswith("num_batches_tracked")]
    few = {k: trained[k] for k in keys[: int(0.92 * len(keys))]}
    net = build(NAME, 3, 1)
    assert load_encoder(net, saved(tmp_path / "a.safetensors", few)).startswith(f"{len(few)} of {len(keys)}")
    before = {k: v.clone() for k, v in encoder(net).items()}
    fewer = {k: torch.ones_like(trained[k]) for k in keys[: int(0.88 * len(keys))]}
    with pytest.raises(Refusal, match=r"does not fit: .* missing: [^,]*(, [^,]*){4}, …\. Fix") as caught:
        load_encoder(net, saved(tmp_path / "b.safetensors", fewer))
    assert caught.value.exit == 2
    assert all(torch.equal(v, before[k]) for k, v in encoder(net).items())  # all or nothing


def test_other_shapes_are_refused(tmp_path, trained):
    wrong = {**trained, "conv_stem.weight": torch.zeros(8, 3, 3, 3)}
    with pytest.raises(Refusal, match=r"other shapes: model.conv_stem.weight \(8, 3, 3, 3\) not \(16, 3, 3, 3\)"):
        build(NAME, 3, 1, pretrained=saved(tmp_path / "w.safetensors", wrong))


def test_files_that_are_none(tmp_path):
    for name, message in [("none.safetensors", "does not exist"), ("w.pth", "is not a .safetensors file.*save_file")]:
        if name.endswith("pth"):
            (tmp_path / name).write_bytes(b"x")
        with pytest.raises(Refusal, match=message) as caught:
            build(NAME, 3, 1, pretrained=str(tmp_path / name))
        assert caught.value.exit == 2
    (tmp_path / "cut.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0garbage")
    with pytest.raises(Refusal, match="cannot be read"):
        build(NAME, 3, 1, pretrained=str(tmp_path / "cut.safetensors"))


def test_weights_of_unet1x1(tmp_path):
    torch.manual_seed(0)
    old = build("unet1x1", 3, 1)
    path = saved(tmp_path / "w.safetensors", old.state_dict())
    new = build("unet1x1", 3, 4, pretrained=path)
    assert all(torch.equal(v, old.encoder.state_dict()[k]) for k, v in new.encoder.state_dict().items())


@pytest.fixture
def no_download(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    def forbidden(*args, **kwargs):
        raise AssertionError("a download was tried")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", forbidden)


@pytest.mark.parametrize(
    ("name", "repo"),
    [("unet/resnet18", "smp-hub/resnet18.imagenet"), ("unet/tu-resnet18", "timm/resnet18.a1_in1k")],
)
def test_no_network_is_said_at_once(monkeypatch, no_download, name, repo):
    # a closed port of this machine: refused for real, wherever the test runs
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    for pretrained in (True, "imagenet"):
        with pytest.raises(Refusal) as caught:
            build(name, 3, 1, pretrained=pretrained)
        text = str(caught.value)
        assert caught.value.exit == 2 and "\n" not in text
        assert f"is not in the local cache ({repo}), and there is no network" in text
        assert "--weights PATH" in text and "pretrained none" in text


def test_offline_by_choice_asks_nobody(monkeypatch, no_download):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(weights, "reachable", lambda url: pytest.fail("asked the network"))
    with pytest.raises(Refusal, match="HF_HUB_OFFLINE is set"):
        build("unet/resnet18", 3, 1, pretrained=True)


def test_cache_first_then_download(monkeypatch, no_download, tmp_path, trained):
    path = saved(tmp_path / "model.safetensors", trained)
    monkeypatch.setattr(weights, "reachable", lambda url: True)
    asked = []
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *a, **k: asked.append((a, k)) or path)
    net = build(NAME, 3, 1, pretrained=True)
    assert len(asked) == 1 and asked[0][0][0].startswith("timm/mobilenetv3_small_100")
    assert all(torch.equal(v, trained[k]) for k, v in encoder(net).items())
    assert net.mean.flatten().tolist() == pytest.approx(IMAGENET[0])
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *a, **k: path)
    build(NAME, 3, 1, pretrained=True)
    assert len(asked) == 1


def test_a_failing_download_is_one_line(monkeypatch, no_download):
    monkeypatch.setattr(weights, "reachable", lambda url: True)
    with pytest.raises(Refusal, match=r"could not be downloaded from smp-hub/resnet18.imagenet \(AssertionError\)"):
        build("unet/resnet18", 3, 1, pretrained=True)


def test_an_encoder_without_public_weights():
    with pytest.raises(Refusal, match="encoder tu-darknet17 has no public weights in safetensors"):
        build("unet/darknet17", 3, 1, pretrained="imagenet")


def test_a_proxy_is_asked_instead_of_the_host(monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    tried = []

    def connect(address, timeout):
        tried.append((address, timeout))
        raise ConnectionRefusedError

    monkeypatch.setattr(weights.socket, "create_connection", connect)
    assert not reachable("https://hub.example")
    assert tried == [(("127.0.0.1", 9), weights.PROBE_SECONDS)]


def test_a_name_that_is_looked_up_for_ever_is_waited_for_no_longer_than_a_host(monkeypatch):
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(weights, "PROBE_SECONDS", 0.01)
    answer, answered = threading.Event(), threading.Event()

    def look_up(*args, **kwargs):
        answer.wait(20)
        answered.set()
        raise OSError("no such host")

    monkeypatch.setattr(weights.socket, "getaddrinfo", look_up)
    assert not reachable("https://hub.example")
    assert not answered.is_set(), "the look-up was waited for"
    answer.set()
    assert answered.wait(20)


def test_a_host_that_answers_is_reachable(monkeypatch):
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with weights.socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert reachable(f"http://127.0.0.1:{port}")
    assert not reachable(f"http://127.0.0.1:{port}")
    assert not reachable("http://127.0.0.1:99999")
