"""What training asks of the network."""

import pytest
import torch
from transformers import Trainer, TrainingArguments


@pytest.fixture
def inputs(make, pair):
    batch = make.prompt(pair[1], [[1, ("image", 40, 90), 5, 6], [1, 5, ("video", 3), 6, 8, 9]], side="right")
    batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    return batch


def gradients(model, inputs):
    model.zero_grad()
    model(**inputs).loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated:FutureWarning")
def test_recomputing_activations_gives_the_same_gradients(make, inputs, reentrant):
    model = make.ours(make.tiny()).train()
    expected = gradients(model, inputs)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    if reentrant:
        model.enable_input_require_grads()
    found = gradients(model, inputs)
    for name in expected.keys() if not reentrant else [name for name in expected if "vision" not in name]:
        torch.testing.assert_close(found[name], expected[name])


def test_the_ignored_label_is_the_one_of_the_config(make, inputs):
    model = make.ours(make.tiny())
    expected = model(**inputs).loss
    other = make.ours(make.tiny(ignore_index=-7))
    inputs["labels"] = inputs["labels"].masked_fill(inputs["labels"] == -100, -7)
    torch.testing.assert_close(other(**inputs).loss, expected)


def test_new_tokens_get_embeddings_and_logits(make, tmp_path, inputs):
    model = make.ours(make.tiny())
    model.resize_token_embeddings(130, mean_resizing=False)
    assert model(**inputs).logits.shape[-1] == 130
    assert model.config.text_config.vocab_size == 130
    model.save_pretrained(tmp_path)
    assert type(model).from_pretrained(tmp_path).lm_head.weight.shape == (130, 64)


def test_unused_vision_layers_get_no_gradient(make, inputs):
    found = gradients(make.ours(make.tiny()), inputs)
    assert not any("vision_tower.encoder.layers.2" in name or "post_layernorm" in name for name in found)
    assert "model.image_newline" in found
    assert "model.vision_tower.embeddings.class_embedding" in found


@pytest.mark.slow
def test_a_trainer_trains_saves_and_resumes(make, tmp_path, inputs):
    def train(model, resume):
        arguments = TrainingArguments(
            output_dir=str(tmp_path),
            report_to=[],
            save_steps=2,
            max_steps=4,
            learning_rate=1e-3,
            per_device_train_batch_size=1,
            use_cpu=True,
        )
        rows = [{"row": 0}] * 4
        Trainer(model=model, args=arguments, train_dataset=rows, data_collator=lambda _: dict(inputs)).train(
            resume_from_checkpoint=resume
        )
        return model.state_dict()

    whole = train(make.ours(make.tiny()), None)
    resumed = train(make.ours(make.tiny(), seed=3), str(tmp_path / "checkpoint-2"))
    for name, weight in whole.items():
        torch.testing.assert_close(resumed[name], weight, msg=name)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_adapters_train_merge_and_load(make, tmp_path, inputs):
    peft = pytest.importorskip("peft", reason="the train extra is not installed")
    base = make.ours(make.tiny())
    base.save_pretrained(tmp_path / "base")
    settings = peft.LoraConfig(
        r=2, target_modules=r".*language_model.*\.(q_proj|v_proj)", init_lora_weights=False
    )
    model = peft.get_peft_model(base, settings).eval()
    with torch.no_grad():
        expected = model(**inputs).logits
    model.save_pretrained(tmp_path / "adapter")
    again = peft.PeftModel.from_pretrained(
        type(base).from_pretrained(tmp_path / "base"), tmp_path / "adapter"
    ).eval()
    merged = again.merge_and_unload()
    with torch.no_grad():
        torch.testing.assert_close(merged(**inputs).logits, expected, atol=1e-5, rtol=1e-5)
    merged.save_pretrained(tmp_path / "merged")
    loaded = type(base).from_pretrained(tmp_path / "merged")
    with torch.no_grad():
        torch.testing.assert_close(loaded(**inputs).logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Attempting to save a model with offloaded modules:UserWarning")
def test_weights_on_disk_give_the_same_answer_and_can_be_saved(make, tmp_path, inputs):
    model = make.ours(make.tiny())
    model.save_pretrained(tmp_path / "saved")
    spread = type(model).from_pretrained(
        tmp_path / "saved",
        device_map={"model": "disk", "lm_head": "cpu"},
        offload_folder=str(tmp_path / "offloaded"),
    )
    with torch.no_grad():
        torch.testing.assert_close(spread(**inputs).logits, model(**inputs).logits)
    spread.save_pretrained(tmp_path / "again")
    again = type(model).from_pretrained(tmp_path / "again").state_dict()
    for name, weight in model.state_dict().items():
        assert torch.equal(again[name], weight), name
