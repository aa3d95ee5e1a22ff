"""Models of Hugging Face's transformers, with random weights, converted by one line.

Catches: a dropout or an attention that stays torch's; a checkpoint that computes with other masks;
a class that save_pretrained, Trainer or an adapter does not take; an evaluation that changes.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dropout_ext

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")  # the library's
Inputs = dict[str, Tensor]
Made = tuple[nn.Module, Inputs]
SMALL = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96,
}  # fmt: skip


def ids(length: int = 16) -> Tensor:
    return torch.randint(3, 99, (2, length), generator=torch.Generator().manual_seed(1))


def bert() -> Made:
    config = transformers.BertConfig(vocab_size=99, **SMALL)
    return transformers.BertModel(config), {"input_ids": ids()}


def gpt2() -> Made:
    config = transformers.GPT2Config(
        vocab_size=99, n_embd=64, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2
    )
    return transformers.GPT2LMHeadModel(config), {"input_ids": ids(), "labels": ids()}


def vit() -> Made:
    config = transformers.ViTConfig(
        image_size=32, patch_size=8, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1,
        **SMALL,
    )  # fmt: skip
    return transformers.ViTModel(config), {"pixel_values": torch.ones(2, 3, 32, 32)}


def t5() -> Made:
    config = transformers.T5Config(
        vocab_size=99, d_model=64, d_kv=16, d_ff=96, num_layers=2, num_heads=4
    )
    return transformers.T5Model(config), {"input_ids": ids(), "decoder_input_ids": ids(8)}


def llama() -> Made:
    config = transformers.LlamaConfig(
        vocab_size=99, num_key_value_heads=2, attention_dropout=0.1, **SMALL
    )
    return transformers.LlamaModel(config), {"input_ids": ids()}


def wav2vec2() -> Made:
    config = transformers.Wav2Vec2Config(
        conv_dim=(16, 16), conv_stride=(5, 2), conv_kernel=(10, 3), num_feat_extract_layers=2,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, mask_time_prob=0.0,
        layerdrop=0.0, **SMALL,
    )  # fmt: skip
    return transformers.Wav2Vec2Model(config), {"input_values": torch.ones(2, 800)}


def whisper() -> Made:
    rates = dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), 0.1)
    config = transformers.WhisperConfig(
        vocab_size=99, d_model=64, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=96, decoder_ffn_dim=96, num_mel_bins=8,
        max_source_positions=20, max_target_positions=20, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=1, **rates,
    )  # fmt: skip
    inputs = {"input_features": torch.ones(2, 8, 40), "decoder_input_ids": ids(8)}
    return transformers.WhisperModel(config), inputs


MAKERS: list[Callable[[], Made]] = [bert, gpt2, vit, t5, llama, wav2vec2, whisper]
every_model = pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
every_attention = pytest.mark.parametrize("attention", ["eager", "sdpa", "dropout_ext"])


def made(make: Callable[[], Made], attention: str) -> Made:
    """Converted, in training."""
    torch.manual_seed(0)
    model, inputs = make()
    dropout_ext.convert_dropout(model, report=dropout_ext.ConversionReport())
    choice: Any = model
    choice.set_attn_implementation(attention)
    return model.train(), inputs


def output(model: Callable[..., Any], inputs: Inputs) -> Tensor:
    result: Tensor = model(**inputs)[0]
    return result


def step(model: Any, inputs: Inputs, seed: int = 3) -> list[Tensor]:
    model.zero_grad()
    torch.manual_seed(seed)
    y = output(model, inputs)
    y.square().sum().backward()
    return [y.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


def assert_equal(one: list[Tensor], other: list[Tensor]) -> None:
    """To rounding: sums of gradients come in another order. Another mask is far from it."""
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@every_attention
@every_model
def test_nothing_random_is_torchs(make: Callable[[], Made], attention: str) -> None:
    model, inputs = made(make, attention)
    assert dropout_ext.find_torch_dropout(model, **inputs) == {}
    dropout_ext.revert_dropout(model)
    if attention != "dropout_ext":
        assert dropout_ext.find_torch_dropout(model, **inputs)


@every_model
def test_evaluation_and_state_dict(make: Callable[[], Made]) -> None:
    model, inputs = make()
    expected, keys = output(model.eval(), inputs), list(model.state_dict())
    dropout_ext.convert_dropout(model, report=dropout_ext.ConversionReport())
    assert torch.equal(output(model, inputs), expected)
    assert list(model.state_dict()) == keys


@pytest.mark.thorough
@pytest.mark.parametrize("reentrant", [False, True])
@every_attention
@every_model
def test_gradient_checkpointing(make: Callable[[], Made], attention: str, reentrant: bool) -> None:
    """Gradients are those of the model without it."""
    model, inputs = made(make, attention)
    expected = step(model, inputs)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    assert_equal(expected, step(model, inputs))


@pytest.mark.thorough
@every_model
def test_compiled(make: Callable[[], Made]) -> None:
    """Eager's masks, and nothing is compiled again from the second step on."""
    torch._dynamo.reset()
    model, inputs = made(make, "sdpa")
    compiled: Any = torch.compile(model, backend="aot_eager")
    assert_equal(step(model, inputs)[:1], step(compiled, inputs)[:1])
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert_equal(step(model, inputs, 4)[:1], step(compiled, inputs, 4)[:1])
    torch._dynamo.reset()


@pytest.mark.thorough
@pytest.mark.parametrize("make", [bert, gpt2], ids=lambda make: make.__name__)
def test_compiled_by_inductor(make: Callable[[], Made]) -> None:
    torch._dynamo.reset()
    model, inputs = made(make, "sdpa")
    compiled: Any = torch.compile(model)
    torch.testing.assert_close(
        step(model, inputs)[0], step(compiled, inputs)[0], rtol=1e-4, atol=1e-4
    )
    torch._dynamo.reset()


@every_model
def test_copies(make: Callable[[], Made], tmp_path: Any) -> None:
    """deepcopy, pickle, save_pretrained; a model from from_pretrained is one of transformers."""
    model, inputs = made(make, "sdpa")
    expected = step(model, inputs)
    assert_equal(expected, step(copy.deepcopy(model), inputs))
    if make is not wav2vec2:  # a parametrization of its own does not pickle
        assert_equal(expected, step(pickle.loads(pickle.dumps(model)), inputs))
    saved: Any = model
    saved.save_pretrained(tmp_path)
    cls = next(cls for cls in type(model).__mro__ if cls.__module__.startswith("transformers."))
    assert saved.config.architectures == [cls.__name__]
    loaded = getattr(transformers, cls.__name__).from_pretrained(tmp_path)
    assert dropout_ext.find_torch_dropout(loaded, **inputs), "convert after from_pretrained"


def test_layerdrop_is_in_the_report() -> None:
    torch.manual_seed(0)
    model, _ = whisper()
    report = dropout_ext.ConversionReport()
    dropout_ext.convert_dropout(model, report=report)
    assert report.not_understood["encoder"] == "WhisperEncoder calls rand of torch"


class Lines(torch.utils.data.Dataset[Inputs]):
    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> Inputs:
        line = ids()[0] if index % 2 else ids()[1]
        return {"input_ids": line, "labels": line}


@pytest.mark.thorough
@pytest.mark.parametrize("checkpointing", [False, True])
def test_trainer(tmp_path: Any, checkpointing: bool) -> None:
    pytest.importorskip("accelerate")
    model, inputs = made(gpt2, "sdpa")
    arguments = transformers.TrainingArguments(
        tmp_path, max_steps=5, per_device_train_batch_size=2, use_cpu=True, report_to=[],
        gradient_checkpointing=checkpointing, save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    before = copy.deepcopy(model.state_dict())
    transformers.Trainer(model, arguments, train_dataset=Lines()).train()
    assert not torch.equal(before["lm_head.weight"], model.state_dict()["lm_head.weight"])
    assert dropout_ext.find_torch_dropout(model, **inputs) == {}


@pytest.mark.thorough
def test_lora() -> None:
    """Its dropouts come with it: a conversion before does not know them, one afterwards does."""
    peft = pytest.importorskip("peft")
    model, inputs = made(gpt2, "sdpa")
    config = peft.LoraConfig(r=2, lora_dropout=0.1, fan_in_fan_out=True, target_modules=["c_fc"])
    adapted = peft.get_peft_model(model, config)
    found = dropout_ext.find_torch_dropout(adapted, **inputs)
    assert found and all("lora_dropout" in name for name in found)
    dropout_ext.convert_dropout(adapted, report=dropout_ext.ConversionReport())
    assert dropout_ext.find_torch_dropout(adapted, **inputs) == {}
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], 0.1)
    for _ in range(5):
        adapted(**inputs).loss.backward()
        optimizer.step()
    assert {name for name, p in adapted.named_parameters() if p.grad is not None}
