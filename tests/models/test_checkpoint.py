from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from edgepkd.errors import ModelError
from edgepkd.models.checkpoint import load_network, load_state, save_network
from tests.models.networks import small_network


def test_a_saved_network_comes_back_equal(tmp_path: Path) -> None:
    network = small_network("efficientnet_lite0", modality="residual", head_form="pool_first")
    written = save_network(network, tmp_path / "deep" / "net.v1", extra={"labels": ["a", "b"]})
    assert sorted(p.name for p in written.parent.iterdir()) == ["net.v1.json",
                                                                "net.v1.safetensors"]
    loaded, extra = load_network(written)
    assert extra == {"labels": ["a", "b"]}
    assert loaded.spec == network.spec
    assert not loaded.training
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(network(x), loaded(x), strict=True))


def test_a_failed_save_leaves_the_old_pair(tmp_path: Path) -> None:
    network = small_network()
    save_network(network, tmp_path / "net", extra={"epoch": 1})
    with pytest.raises(TypeError):
        save_network(network, tmp_path / "net", extra={"epoch": object()})
    assert load_network(tmp_path / "net")[1] == {"epoch": 1}


def test_a_mixed_pair_is_noticed(tmp_path: Path) -> None:
    network = small_network()
    save_network(network, tmp_path / "one")
    network.segments[0].head.fc.bias.data.add_(1)
    save_network(network, tmp_path / "two")
    (tmp_path / "two.json").replace(tmp_path / "one.json")
    with pytest.raises(ModelError, match=r"one\.safetensors.*SHA-256"):
        load_network(tmp_path / "one")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(schema_version=2), "schema_version 2; allowed: 1"),
        (lambda d: d["spec"].update(width=9.0), "width is 9.0"),
        (lambda d: d["spec"].update(colour="red"), "colour"),
        (lambda d: d.pop("spec"), "holds no valid network"),
        (lambda d: d["spec"].update(num_classes=6),
         r"wrong shape: segments\.0\.head\.fc\.weight is \(5, "),
        (lambda d: d["spec"].update(num_classes=5.0), r"num_classes is 5\.0"),
        (lambda d: d["spec"].update(num_classes=10**12), "num_classes is 1000000000000"),
        (lambda d: d.update(extra=["x"]), "holds no valid network"),
        (lambda d: d.update(extra=float("nan")), "is not valid JSON: it holds the number NaN"),
    ],
)
def test_a_damaged_description_is_refused(tmp_path: Path, change: object, message: str) -> None:
    path = save_network(small_network(), tmp_path / "net")
    document = json.loads(path.read_text())
    change(document)  # type: ignore[operator]
    path.write_text(json.dumps(document))
    with pytest.raises(ModelError, match=message):
        load_network(path)


@pytest.mark.parametrize("name", ["net.json", "net.safetensors"])
@pytest.mark.parametrize("damage", ["absent", "cut"])
def test_missing_and_cut_files_are_named(tmp_path: Path, name: str, damage: str) -> None:
    save_network(small_network(), tmp_path / "net")
    path = tmp_path / name
    content = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[:-20])
    with pytest.raises(ModelError, match=name.replace(".", r"\.")):
        load_network(tmp_path / "net")


def test_load_state_names_keys() -> None:
    network = small_network()
    state = network.state_dict()
    state.pop("segments.1.head.bn.bias")
    state["segments.7.trunk.x"] = torch.zeros(1)
    with pytest.raises(ModelError, match=r"missing: segments\.1\.head\.bn\.bias; unknown: segm"):
        load_state(network, state)


def test_a_network_of_stacked_fields_comes_back_and_older_files_are_what_they_were(
    tmp_path: Path
) -> None:
    stacked = save_network(small_network(frames_per_pass=3), tmp_path / "stacked")
    assert load_network(stacked)[0].spec.frames_per_pass == 3
    plain = json.loads(save_network(small_network(), tmp_path / "plain").read_text())
    assert set(plain["spec"]) == {"backbone", "modality", "num_classes", "width", "head_form",
                                  "dropout"}
    assert load_network(tmp_path / "plain")[0].spec.frames_per_pass == 1
