"""Every published layout loads to the same tensors, and a broken file is an error that says what is wrong."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from s3seg.errors import CheckpointError, CheckpointNotFoundError
from s3seg.sam3.config import Sam3Config, TextConfig
from s3seg.sam3.load import load
from tests.sam3.convert_layout import to_sam31, to_transformers, with_rotary_tables, with_wider_text
from tests.sam3.random_models import random_oracle, tiny_config, tiny_lite_text_config

_PATCHES = "backbone.vision_backbone.trunk.patch_embed.proj.weight"
FP32_IN_EVERY_PRECISION = (
    "scoring.",
    "decoder.reference_boxes",
    "decoder.box_head.",
    "decoder.box_position.",
    "decoder.bias_x.",
    "decoder.bias_y.",
    "decoder.presence_head.",
    "decoder.presence_norm.",
    "clicks.prompts.frequencies",
)


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """A folder as transformers saves it."""
    folder = tmp_path_factory.mktemp("published")
    with torch.inference_mode():
        random_oracle(tiny_config(), folder)
    return folder


@pytest.fixture
def folder(published, tmp_path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(published, tmp_path / "checkpoint"))


@pytest.fixture
def reference(golden, tmp_path):
    """The reference's weights by name, and a folder with their configuration."""
    folder = tmp_path / "reference"
    folder.mkdir()
    shutil.copy(golden / "config.json", folder)
    return load_file(golden / "reference_tiny.safetensors"), folder


class TestForms:
    def test_a_folder_and_its_file_are_the_same(self, published):
        _assert_equal(load(published), load(published / "model.safetensors"))

    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
    def test_on_a_cpu_weights_of_the_right_precision_are_the_mapped_file_and_outlive_its_name(self, published, folder):
        model = load(folder)
        mapped = {name for name, tensor in model.state_dict().items() if _file_of(tensor) == "model.safetensors"}
        assert "vision.trunk.patch_embed.weight" in mapped
        assert len(mapped) > len(model.state_dict()) / 2
        shutil.rmtree(folder)
        _assert_equal(model, load(published))

    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
    def test_weights_of_another_precision_are_copies(self, folder):
        tensors = load(folder, dtype=torch.bfloat16).state_dict()
        copies = [tensor for tensor in tensors.values() if tensor.dtype == torch.bfloat16]
        assert copies
        assert {_file_of(tensor) for tensor in copies}.isdisjoint({"model.safetensors"})

    def test_shards_are_the_same_as_one_file(self, published, folder):
        tensors = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        _save_shards(folder, tensors, parts=4)
        _assert_equal(load(published), load(folder))

    def test_shards_saved_by_transformers_load(self, tmp_path):
        oracle = random_oracle(tiny_config(), tmp_path / "one")
        oracle.save_pretrained(tmp_path / "many", max_shard_size="200KB")
        assert len(list((tmp_path / "many").glob("*.safetensors"))) > 1
        _assert_equal(load(tmp_path / "one"), load(tmp_path / "many"))

    def test_a_prefix_and_the_tensors_of_the_tracker_are_ignored(self, published, folder):
        tensors = load_file(folder / "model.safetensors")
        prefixed = {f"detector_model.{name}": tensor for name, tensor in tensors.items()}
        tracker = {"tracker_model.memory": torch.ones(3), "tracker_neck.proj.weight": torch.ones(2, 2)}
        save_file(prefixed | tracker, folder / "model.safetensors")
        _assert_equal(load(published), load(folder))

    def test_a_configuration_of_the_video_model_holds_that_of_the_image_model(self, published, folder):
        image = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({"model_type": "sam3_video", "detector_config": image}))
        _assert_equal(load(published), load(folder))

    @pytest.mark.parametrize("prefix", ["", "detector."])
    @pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "wrapped"])
    def test_the_reference_layout_loads_from_a_pt_file(self, golden, reference, prefix, wrapped):
        tensors, folder = reference
        content = {prefix + name: tensor for name, tensor in tensors.items()}
        content |= {"tracker.maskmem_tpos_enc": torch.ones(7)}
        content |= {"detector.backbone.vision_backbone.sam2_convs.0.conv_1x1.weight": torch.ones(4)}
        torch.save({"model": content, "epoch": 3} if wrapped else content, folder / "sam3.pt")
        _assert_equal(load(golden / "reference_tiny.safetensors"), load(folder))

    @pytest.mark.parametrize("prefix", ["", "detector."])
    @pytest.mark.parametrize("file", ["model.safetensors", "sam3.safetensors", "any_name.safetensors", "shards"])
    def test_the_reference_layout_loads_from_safetensors(self, golden, reference, prefix, file):
        tensors, folder = reference
        content = {prefix + name: tensor for name, tensor in tensors.items()}
        content |= {"tracker.maskmem_tpos_enc": torch.ones(7)}
        if file == "shards":
            _save_shards(folder, content, parts=3)
        else:
            save_file(content, folder / file)
        _assert_equal(load(golden / "reference_tiny.safetensors"), load(folder))

    @pytest.mark.parametrize("file", ["sam3.1_multiplex.pt", "model.safetensors"])
    def test_the_detector_of_sam_3_1_loads_from_its_multiplex_checkpoint(self, golden, reference, file):
        tensors, folder = reference
        content = {f"detector.{name}": tensor for name, tensor in to_sam31(tensors).items()}
        content |= {"tracker.model.sam_mask_decoder.iou_token.weight": torch.ones(1, 8)}
        torch.save(content, folder / file) if file.endswith(".pt") else save_file(content, folder / file)
        _assert_equal(load(golden / "reference_tiny.safetensors"), load(folder))

    @pytest.mark.parametrize("scale_factors", [[4.0, 2.0, 1.0], [4.0, 2.0, 1.0, 0.5]])
    def test_the_detector_of_sam_3_1_loads_in_the_transformers_layout(self, golden, reference, scale_factors):
        tensors, folder = reference
        config = json.loads((folder / "config.json").read_text())
        config["vision_config"]["scale_factors"] = scale_factors
        (folder / "config.json").write_text(json.dumps(config))
        kept = {
            name: tensor
            for name, tensor in to_sam31(tensors).items()
            if "e_convs." not in name and "n_convs." not in name
        }
        assert not [name for name in kept if "convs.3" in name or "interactive" in name or "propagation" in name]
        save_file(to_transformers(kept), folder / "model.safetensors")
        _assert_equal(load(golden / "reference_tiny.safetensors"), load(folder))

    def test_a_configuration_of_another_kind_beside_a_reference_file_is_ignored(self, reference, tmp_path):
        tensors, folder = reference
        torch.save(with_wider_text(tensors, width=128, depth=3), folder / "sam3.pt")
        (folder / "config.json").rename(tmp_path / "config.json")
        alone = load(folder)
        (folder / "config.json").write_text('{"model_type": "sam3_multiplex", "anything": 1}')
        assert load(folder).config == alone.config

    def test_a_prefix_does_not_matter_with_a_light_text_encoder(self, tmp_path):
        random_oracle(tiny_lite_text_config(), tmp_path / "plain")
        shutil.copytree(tmp_path / "plain", tmp_path / "prefixed")
        tensors = load_file(tmp_path / "plain" / "model.safetensors")
        prefixed = {f"detector_model.{name}": tensor for name, tensor in tensors.items()}
        save_file(prefixed | {"tracker_neck.proj.weight": torch.ones(2, 2)}, tmp_path / "prefixed/model.safetensors")
        _assert_equal(load(tmp_path / "plain"), load(tmp_path / "prefixed"))

    def test_a_known_file_name_wins_over_others_in_the_folder(self, published, folder):
        (folder / "a_quantized_copy.safetensors").write_bytes(b"never read")
        _assert_equal(load(published), load(folder))

    def test_the_same_weights_in_both_layouts_are_the_same_tensors(self, golden, reference):
        tensors, folder = reference
        save_file(to_transformers(tensors), folder / "model.safetensors")
        _assert_equal(load(golden / "reference_tiny.safetensors"), load(folder))

    def test_the_converter_of_these_tests_turns_one_full_size_table_into_the_other(self, golden):
        def table(layout: str) -> dict[str, torch.Tensor]:
            rows = (line.split("\t") for line in (golden / f"keys_{layout}_full.tsv").read_text().splitlines()[1:])
            return {
                name.removeprefix("detector."): torch.empty([int(n) for n in shape.split(",")], device="meta")
                for name, shape, *_ in rows
            }

        converted, expected = to_transformers(table("reference")), table("transformers")
        assert {n: t.shape for n, t in converted.items()} == {n: t.shape for n, t in expected.items()}

    def test_the_configuration_of_a_reference_file_is_inferred(self, golden, reference, tmp_path):
        tensors, _ = reference
        tensors = with_rotary_tables(
            with_wider_text(tensors, width=128, depth=3), window=4, grid=8, heads=4, global_layers=(1, 3)
        )
        (tmp_path / "alone").mkdir()
        torch.save({"model": {f"detector.{n}": t for n, t in tensors.items()}}, tmp_path / "alone" / "sam3.pt")

        found = load(tmp_path / "alone" / "sam3.pt").config

        written = Sam3Config.from_file(golden / "config.json")
        assert (found.vision, found.encoder, found.decoder) == (
            written.vision,
            written.encoder,
            written.decoder,
        )
        assert (found.geometry, found.roi_size, found.queries) == (
            written.geometry,
            written.roi_size,
            written.queries,
        )
        assert found.text == TextConfig(300, 32, width=128, depth=3, heads=2, mlp_width=512)

    def test_a_checkpoint_says_whether_text_only_prompts_carry_the_cls_token(self, folder):
        assert load(folder).config.cls_on_text_prompts
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"s3seg": {"cls_on_text_prompts": False}}))
        assert not load(folder).config.cls_on_text_prompts

    def test_an_empty_list_of_global_layers_is_kept(self):
        assert Sam3Config.from_dict(tiny_config(global_layers=[])).vision.global_layers == ()
        assert Sam3Config.from_dict({}) == Sam3Config()


class TestPrecision:
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_boxes_scores_and_presence_stay_fp32(self, published, dtype):
        full, found = load(published).state_dict(), load(published, dtype=dtype).state_dict()
        kept = {name for name, tensor in found.items() if tensor.dtype == torch.float32}
        assert kept == {name for name in full if name.startswith(FP32_IN_EVERY_PRECISION)}
        for name, tensor in full.items():
            torch.testing.assert_close(found[name], tensor if name in kept else tensor.to(dtype), atol=0, rtol=0)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("layout", ["transformers", "reference", "reference .pt"])
    def test_a_checkpoint_in_half_precision_can_run_in_full(self, reference, layout, dtype):
        tensors, folder = reference
        lower = {name: tensor.to(dtype) for name, tensor in tensors.items()}
        if layout == "reference .pt":
            torch.save(lower, folder / "sam3.pt")
        else:
            save_file(lower if layout == "reference" else to_transformers(lower), folder / "model.safetensors")
        found = load(folder).state_dict()
        save_file(tensors, folder / "model.safetensors")
        for name, tensor in load(folder / "model.safetensors").state_dict().items():
            torch.testing.assert_close(found[name], tensor.to(dtype).float(), atol=0, rtol=0)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_a_light_text_encoder_in_half_precision_can_run_in_full(self, tmp_path, dtype):
        oracle = random_oracle(tiny_lite_text_config(), tmp_path / "half")
        oracle.to(dtype).save_pretrained(tmp_path / "half")
        oracle.float().save_pretrained(tmp_path / "full")  # of the same, rounded values
        assert {tensor.dtype for tensor in load_file(tmp_path / "half/model.safetensors").values()} == {
            dtype,
            torch.int64,  # counters of the batch norms
        }
        _assert_equal(load(tmp_path / "full"), load(tmp_path / "half"))

    def test_a_loaded_model_is_ready_for_inference(self, published):
        model = load(published)
        assert not model.training
        assert not any(parameter.requires_grad for parameter in model.parameters())


class TestBrokenFiles:
    def test_missing_unexpected_and_wrongly_shaped_tensors_are_listed(self, folder):
        file = folder / "model.safetensors"
        tensors = load_file(file)
        del tensors["detr_decoder.presence_head.layer2.bias"]
        tensors["text_projection.bias"] = torch.zeros(5)
        tensors["detr_decoder.presence_head.layer9.bias"] = torch.zeros(5)
        save_file(tensors, file)
        message = _refusal(folder, names=file)
        assert "3 tensors" in message
        assert "missing detr_decoder.presence_head.layer2.bias [32]" in message
        assert "text_projection.bias has shape [5], not [32]" in message
        assert "unexpected detr_decoder.presence_head.layer9.bias" in message

    def test_a_configuration_of_another_size_is_an_error_that_says_so(self, folder):
        config = json.loads((folder / "config.json").read_text())
        config["detr_encoder_config"]["num_layers"] = 3
        (folder / "config.json").write_text(json.dumps(config))
        assert "does not fit its configuration" in _refusal(folder, names=folder / "model.safetensors")

    @pytest.mark.parametrize("keep", [0, 4, 1000, -1])
    def test_a_truncated_safetensors_file(self, folder, keep):
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:keep])
        assert "not a complete safetensors file" in _refusal(folder, names=file)

    @pytest.mark.parametrize("keep", [0, 1, 3000, -1])
    def test_a_truncated_pt_file(self, reference, keep):
        tensors, folder = reference
        file = folder / "sam3.pt"
        torch.save(tensors, file)
        file.write_bytes(file.read_bytes()[:keep])
        assert "not a complete PyTorch checkpoint" in _refusal(folder, names=file)

    @pytest.mark.parametrize("name", ["model.safetensors", "sam3.pt"])
    def test_a_file_that_only_starts_like_a_zip(self, folder, name):
        (folder / "model.safetensors").unlink()
        (folder / name).write_bytes(b"PK\x03\x04 not a zip")
        assert "not a complete" in _refusal(folder, names=folder / name)

    def test_a_safetensors_file_of_another_model(self, folder):
        save_file({"bert.embeddings.weight": torch.zeros(3)}, folder / "model.safetensors")
        message = _refusal(folder, names=folder / "model.safetensors")
        assert "is not a SAM 3" in message
        assert "bert.embeddings.weight" in message

    def test_a_safetensors_file_without_tensors(self, folder):
        save_file({}, folder / "model.safetensors")
        assert "is not a SAM 3: none of its 0 tensors" in _refusal(folder, names=folder / "model.safetensors")

    @pytest.mark.parametrize("content", [[1, 2], {"model": {"a": 3}}, torch.zeros(2), {"a": {"b": 1}}])
    def test_a_pt_file_that_holds_no_tensors_by_name(self, reference, content):
        _, folder = reference
        torch.save(content, folder / "sam3.pt")
        assert "not a dictionary of tensors by name" in _refusal(folder, names=folder / "sam3.pt")

    @pytest.mark.parametrize("save", [torch.save, lambda content, file: file.write_bytes(pickle.dumps(content))])
    def test_a_pickle_that_would_run_code_is_refused_and_not_run(self, reference, save):
        tensors, folder = reference
        marker = folder / "executed"
        save({"model": tensors, "hook": _Touch(marker)}, folder / "sam3.pt")
        _refusal(folder, names=folder / "sam3.pt")
        assert not marker.exists()

    def test_a_configuration_that_is_not_json(self, folder):
        (folder / "config.json").write_text("{")
        assert "cannot be read as JSON" in _refusal(folder, names=folder / "config.json")

    @pytest.mark.parametrize(
        "config",
        [
            [],
            {"model_type": "bert"},
            {"vision_config": {"backbone_config": {"image_size": "big"}}},
            {"vision_config": {"backbone_config": {"image_size": 1000}}},
            {"vision_config": {"scale_factors": [2.0, 1.0]}},
            {"vision_config": {"backbone_config": {"patch_size": 0}}},
            {"text_config": {"hidden_act": "quick_gelu"}},
            {"detr_encoder_config": {"num_layers": 0}},
            {"detr_decoder_config": {"num_layers": "six"}},
        ],
    )
    def test_a_configuration_of_something_else(self, folder, config):
        (folder / "config.json").write_text(json.dumps(config))
        _refusal(folder, names=folder / "config.json")

    @pytest.mark.parametrize("weights", ["light", "plain"])
    def test_a_configuration_with_the_other_text_encoder(self, folder, tmp_path, weights):
        random_oracle(tiny_lite_text_config(), tmp_path / "light")
        one, other = (tmp_path / "light", folder) if weights == "light" else (folder, tmp_path / "light")
        shutil.copy(other / "config.json", one / "config.json")
        message = _refusal(one, names=one / "config.json")
        assert str(one / "model.safetensors") in message
        assert "do not belong together" in message

    @pytest.mark.parametrize("width", ["wide", -8, 1.5, None])
    def test_an_invalid_size_in_the_configuration(self, folder, width):
        config = json.loads((folder / "config.json").read_text())
        config["text_config"]["hidden_size"] = width
        (folder / "config.json").write_text(json.dumps(config))
        assert "does not describe a valid network" in _refusal(folder, names=folder)

    @pytest.mark.parametrize(
        ("damage", "problem"),
        [
            (lambda tensors: tensors.pop("transformer.decoder.query_embed.weight"), "query_embed.weight"),
            (lambda tensors: tensors.update({_PATCHES: torch.zeros(3)}), "by the shapes of its tensors"),
            (lambda tensors: tensors.update({_PATCHES: torch.zeros(64, 3, 0, 0)}), "by the shapes of its tensors"),
        ],
        ids=["a missing tensor", "no patches", "empty patches"],
    )
    def test_a_reference_file_whose_configuration_cannot_be_inferred(self, reference, tmp_path, damage, problem):
        tensors, _ = reference
        damage(tensors)
        torch.save(tensors, tmp_path / "sam3.pt")
        assert problem in _refusal(tmp_path, names=tmp_path / "sam3.pt")


class TestShards:
    @pytest.fixture
    def shards(self, folder) -> Path:
        tensors = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        _save_shards(folder, tensors, parts=3)
        return folder

    @pytest.fixture
    def index(self, shards) -> Path:
        return shards / "model.safetensors.index.json"

    def test_a_missing_shard_is_named(self, shards, index):
        (shards / "model-2.safetensors").unlink()
        message = _refusal(shards, names=index)
        assert "model-2.safetensors" in message
        assert "model-1.safetensors" not in message

    def test_a_truncated_shard_is_named(self, shards):
        shard = shards / "model-1.safetensors"
        shard.write_bytes(shard.read_bytes()[:-1])
        assert "not a complete safetensors file" in _refusal(shards, names=shard)

    @pytest.mark.parametrize("absolute", [False, True])
    def test_a_path_outside_the_folder_is_refused_though_the_file_is_there(self, shards, index, absolute):
        outside = shards.parent / "outside.safetensors"
        shutil.copy(shards / "model-0.safetensors", outside)
        content = json.loads(index.read_text())
        replacement = str(outside) if absolute else "../outside.safetensors"
        for name, shard in content["weight_map"].items():
            content["weight_map"][name] = replacement if shard == "model-0.safetensors" else shard
        index.write_text(json.dumps(content))
        assert "not in its folder" in _refusal(shards, names=index)

    def test_a_tensor_that_its_shard_does_not_hold_is_named(self, shards, index):
        content = json.loads(index.read_text())
        content["weight_map"]["text_projection.weight"] = "model-0.safetensors"
        content["weight_map"]["no_such.tensor"] = "model-0.safetensors"
        index.write_text(json.dumps(content))
        assert "no_such.tensor" in _refusal(shards, names=index)

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}'])
    def test_an_index_that_is_not_one(self, shards, index, content):
        index.write_text(content)
        _refusal(shards, names=index)


class TestAbsentFiles:
    def test_no_such_folder(self, tmp_path):
        _refusal(tmp_path / "nowhere", names=tmp_path / "nowhere", error=CheckpointNotFoundError)

    def test_a_folder_without_weights_says_what_it_looked_for(self, tmp_path):
        message = _refusal(tmp_path, names=tmp_path, error=CheckpointNotFoundError)
        assert "model.safetensors" in message
        assert "sam3.pt" in message

    def test_several_files_of_unknown_names_are_listed(self, tmp_path):
        for name in ("b.safetensors", "a.safetensors"):
            (tmp_path / name).write_bytes(b"")
        message = _refusal(tmp_path, names=tmp_path, error=CheckpointNotFoundError)
        assert "a.safetensors, b.safetensors. Give the path of one of them" in message

    def test_the_transformers_layout_needs_its_configuration(self, folder):
        (folder / "config.json").unlink()
        message = _refusal(folder, names=folder / "model.safetensors", error=CheckpointNotFoundError)
        assert str(folder / "config.json") in message


class TestCost:
    def test_loading_draws_no_random_numbers(self, published):
        before = torch.random.get_rng_state()
        load(published)
        assert torch.equal(before, torch.random.get_rng_state())

    def test_loading_imports_no_compiler_and_no_other_heavy_library(self, published):
        heavy = ("torch._dynamo", "torch._inductor", "triton", "sympy", "transformers", "torchvision")
        assert (
            _run(
                f"""
            import sys
            from s3seg.sam3.load import load
            load({str(published)!r})
            print([name for name in {heavy!r} if name in sys.modules])
            """
            )
            == "[]"
        )

    @pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="counts memory in Linux's /proc")
    @pytest.mark.parametrize("file", ["model.safetensors", "sam3.pt"])
    def test_loading_never_holds_the_weights_twice(self, reference, file):
        tensors, folder = reference
        config = json.loads((folder / "config.json").read_text())
        config["text_config"] |= {
            "hidden_size": 512,
            "num_hidden_layers": 8,
            "num_attention_heads": 8,
            "intermediate_size": 2048,
        }
        (folder / "config.json").write_text(json.dumps(config))
        tensors = with_wider_text(tensors, width=512, depth=8)
        if file == "sam3.pt":
            torch.save(tensors, folder / file)
        else:
            save_file(to_transformers(tensors), folder / file)
        size = (folder / file).stat().st_size

        grown = int(_run(_PEAK_OF_ANONYMOUS_MEMORY.format(folder=str(folder))))

        assert size > 100e6
        copies = size / 2  # in half the precision of the file
        assert 0.9 * copies < grown < 1.3 * copies  # the largest tensor is 4 % of all


def _file_of(tensor: torch.Tensor) -> str:
    """Return the name of the file that the memory of a tensor is mapped from; empty if it is none."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, *_, name = line.split(maxsplit=5) if line.count(" ") > 5 else (line.split()[0], "")
        start, end = (int(address, 16) for address in addresses.split("-"))
        if start <= tensor.data_ptr() < end:
            return Path(name.strip()).name
    return ""


_PEAK_OF_ANONYMOUS_MEMORY = """
    import pathlib, threading
    import torch
    from s3seg.sam3.load import load

    def anonymous():  # what the file's own pages, mapped and given back at will, do not count to
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

    def watch():
        while not done.wait(0.001):
            seen.append(anonymous())

    done, before = threading.Event(), anonymous()
    seen = [before]
    watcher = threading.Thread(target=watch)
    watcher.start()
    model = load({folder!r}, dtype=torch.bfloat16)
    done.set()
    watcher.join()
    print(max(*seen, anonymous()) - before)
    """


class _Touch:
    """Unpickled without care, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def _save_shards(folder: Path, tensors: dict[str, torch.Tensor], *, parts: int) -> None:
    names = sorted(tensors)
    weight_map = {name: f"model-{i % parts}.safetensors" for i, name in enumerate(names)}
    for shard in set(weight_map.values()):
        save_file({name: tensors[name] for name in names if weight_map[name] == shard}, folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def _refusal(path: Path, *, names: Path, error: type[CheckpointError] = CheckpointError) -> str:
    """The message with which loading is refused; it must name a file."""
    with pytest.raises(error) as caught:
        load(path)
    assert str(names) in str(caught.value)
    return str(caught.value)


def _assert_equal(one: torch.nn.Module, other: torch.nn.Module) -> None:
    a, b = one.state_dict(), other.state_dict()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a), [n for n in a if not torch.equal(a[n], b[n])]


def _run(program: str) -> str:
    lines = program.strip("\n").splitlines()
    indent = len(lines[0]) - len(lines[0].lstrip())
    source = Path(__file__).parents[2] / "src"
    return subprocess.run(
        [sys.executable, "-c", "\n".join(line[indent:] for line in lines)],
        env=os.environ | {"PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
