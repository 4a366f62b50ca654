"""What a user is told when a checkpoint cannot be used, and what a fingerprint notices."""

import json
import shutil
import socket

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import LlavaOnevisionForConditionalGeneration

from streamvlm.errors import BadOption, ModelError
from streamvlm.models.llava_onevision import LlavaOneVision
from streamvlm.plugins import Recipe
from streamvlm.weights import open_checkpoint


def refuse(sentence, weights, **options):
    with pytest.raises(ModelError, match=sentence) as caught:
        LlavaOneVision(weights=str(weights), **options)
    assert "\n" not in str(caught.value)


def test_a_missing_folder(tmp_path):
    refuse("there is no folder .*/nowhere; check the weights' path", tmp_path / "nowhere")


def test_a_missing_relative_folder():
    refuse(r"there is no folder \./nowhere", "./nowhere")


def test_a_folder_without_a_checkpoint(tmp_path):
    refuse("no config.json in .*give the folder of a Hugging Face checkpoint", tmp_path)


def test_a_name_that_is_not_on_this_machine_without_leave_to_download():
    refuse("neither a folder nor on this machine; fetch it with `hf download", "nobody/nothing")


def test_an_impossible_name():
    refuse("neither a folder nor on this machine", "no such name!")


def test_a_failed_download(monkeypatch):
    def no_network(*_):
        raise OSError("network is unreachable")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    refuse("nobody/nothing could not be downloaded", "nobody/nothing", download=True)


def test_another_family(damaged):
    settings = json.loads((damaged / "config.json").read_text())
    (damaged / "config.json").write_text(json.dumps(settings | {"model_type": "qwen3_vl"}))
    refuse("family qwen3_vl, needed is llava_onevision; choose other weights", damaged)


def test_a_damaged_configuration(damaged):
    (damaged / "config.json").write_text("{")
    refuse(r"the config.json cannot be read .*fetch the checkpoint again", damaged)


def test_no_tokenizer(damaged):
    (damaged / "tokenizer.json").unlink()
    refuse("has no tokenizer.json; add the checkpoint's", damaged)


def test_a_damaged_tokenizer(damaged):
    (damaged / "tokenizer.json").write_text("{}")
    refuse("the tokenizer cannot be read .*fetch the checkpoint again", damaged)


def test_no_preprocessor(damaged):
    (damaged / "preprocessor_config.json").unlink()
    refuse(r"has no video_preprocessor_config.json, so it is unknown how", damaged)


def test_no_weights(damaged):
    (damaged / "model.safetensors").unlink()
    refuse("has no .safetensors file", damaged)


def test_truncated_weights(damaged):
    whole = (damaged / "model.safetensors").read_bytes()
    (damaged / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    refuse("the weights cannot be read .*fetch the checkpoint again", damaged)


def test_weights_that_lack_a_tensor(damaged, capfd):
    tensors = load_file(damaged / "model.safetensors")
    tensors.pop(next(name for name in tensors if "projector" in name))
    save_file(tensors, damaged / "model.safetensors", metadata={"format": "pt"})
    refuse("the weight files lack 1 tensors, .*projector", damaged)
    assert capfd.readouterr() == ("", "")


def test_a_preprocessor_for_another_tower(damaged):
    path = damaged / "preprocessor_config.json"
    settings = json.loads(path.read_text()) | {"size": {"height": 30, "width": 30}}
    path.write_text(json.dumps(settings))
    refuse(r"makes \(30, 30\) pictures, but the tower takes 20×20", damaged)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_cuda_device_that_is_not_there(folder):
    refuse("sees 0 CUDA devices; use `--set model.device=cpu", folder, device="cuda")


def test_an_unknown_device(folder):
    refuse("there is no device 'gpu'; use cpu, cuda or cuda:N", folder, device="gpu")


def test_loading_and_asking_reach_no_network(load, clip, evidence, question, monkeypatch):
    def no_network(*_):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(socket.socket, "connect", no_network)
    model, video = load(), clip()
    assert list(model.answer(question, [evidence(model.encode(video), video)]))
    refuse("not on this machine|neither a folder", "llava-hf/llava-onevision-qwen2-0.5b-ov-hf")


def test_loading_writes_nothing_to_the_terminal(folder, capfd):
    LlavaOneVision(weights=str(folder))
    assert capfd.readouterr() == ("", "")


def test_a_missing_option_value_is_refused_before_anything_loads():
    with pytest.raises(Exception, match="dtype must be"):
        Recipe("models", "llava_onevision", {"dtype": "int3"})


def test_the_template_of_an_older_checkpoint_is_read(damaged):
    template = (damaged / "chat_template.jinja").read_text()
    (damaged / "chat_template.jinja").unlink()
    refuse("has no chat template", damaged)
    (damaged / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    assert LlavaOneVision(weights=str(damaged)).model


def test_a_fingerprint_names_plugin_weights_precision_and_size(load):
    assert load().model.startswith("llava_onevision/tiny ")
    assert load().model.endswith(" float32 20px")


def test_a_copied_folder_of_the_same_name_has_the_same_fingerprint(load, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "elsewhere" / folder.name)
    assert LlavaOneVision(weights=f"{copy}/").model == load().model


def test_one_changed_number_changes_the_fingerprint(load, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / folder.name)
    tensors = load_file(copy / "model.safetensors")
    tensors["image_newline"][0] += 1
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    assert LlavaOneVision(weights=str(copy)).model != load().model


def test_other_preprocessing_changes_the_fingerprint(load, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / folder.name)
    path = copy / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"resample": 2}))
    assert LlavaOneVision(weights=str(copy)).model != load().model


def test_a_large_file_is_told_from_a_fine_tuned_one_by_samples(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("streamvlm.weights._WHOLE", 0)
    monkeypatch.setattr("streamvlm.weights._BLOCK", 64)
    prints = []
    for step in (0.0, 0.0, 1e-3):
        copy = shutil.copytree(folder, tmp_path / str(len(prints)) / folder.name)
        tensors = {name: t + step for name, t in load_file(copy / "model.safetensors").items()}
        save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
        prints.append(LlavaOneVision(weights=str(copy)).model)
    assert prints[0] == prints[1] != prints[2]


def test_a_checkpoint_knows_its_family(folder):
    found = open_checkpoint(
        str(folder), "answerer", ("llava_onevision",), device="cpu", dtype="float32", download=False
    )
    assert (found.family, found.folder) == ("llava_onevision", folder)


def test_a_kernel_that_is_not_installed(folder):
    refuse(
        "flash_attention_2 needs a CUDA GPU and the package flash-attn.*or set attention: sdpa",
        folder,
        attention="flash_attention_2",
        positions="compact",
    )


def test_another_kernel_gives_the_same_tokens_and_words(load, clip, evidence, question):
    video, said = clip(), []
    for attention in ("sdpa", "eager"):
        model = load(attention=attention)
        assert model.network.config.text_config._attn_implementation == attention
        tokens = model.encode(video)
        said.append([str(word) for word in model.answer(question, [evidence(tokens, video)])])
    assert said[0] == said[1]
    torch.testing.assert_close(tokens.features, load().encode(video).features, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"attention": "eager", "with_cues": ("keys",)},
            "cues are read from sdpa .* set attention",
        ),
        ({"attention": "flash_attention_2"}, "holes in the positions .* set positions: .compact"),
    ],
)
def test_options_that_exclude_one_another_are_refused_before_anything_loads(options, sentence):
    with pytest.raises(BadOption, match=sentence):
        Recipe("models", "llava_onevision", {"weights": "/nowhere", **options}).build()


@pytest.mark.parametrize("quantisation", ["bnb_8bit", "bnb_4bit", "torchao_int8"])
def test_a_library_for_rounding_that_is_not_installed(folder, quantisation):
    refuse(
        f"quantisation {quantisation} needs .*; run `pip install .*, or leave quantisation empty",
        folder,
        quantisation=quantisation,
    )


def test_transformers_too_old_to_take_stored_tokens_back(folder, monkeypatch):
    class Older(LlavaOnevisionForConditionalGeneration):
        def forward(self, input_ids, inputs_embeds=None):
            raise AssertionError("never run")

    monkeypatch.setattr(transformers, "LlavaOnevisionForConditionalGeneration", Older)
    refuse("takes no stored tokens .*install transformers 5.23 or newer", folder)


def test_a_device_that_is_full_while_the_weights_are_read_is_not_blamed_on_the_files(
    folder, monkeypatch
):
    class Large(LlavaOnevisionForConditionalGeneration):
        @classmethod
        def from_pretrained(cls, *_, **__):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr(transformers, "LlavaOnevisionForConditionalGeneration", Large)
    refuse("^loading .* ran out of memory on the device; choose a smaller checkpoint", folder)


def test_lists_from_a_configuration_file_are_taken(folder):
    options = {"weights": str(folder), "with_cues": ["attention"], "stop": ["END"]}
    model = Recipe("models", "llava_onevision", options).build()
    assert (model.with_cues, model.stop) == (("attention",), ("END",))
