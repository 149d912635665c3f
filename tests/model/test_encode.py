"""Every way a tokenizer can come, made fit to score with: closing token, pad token, date, truncation."""

from __future__ import annotations

import pytest

from guerdon.model.encode import Encoder, prepare_tokenizer, template_hash
from guerdon.types import ConfigError, DataError

TALK = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "world"}]
CHATML = "{% for m in messages %}{{ '<s>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"


def test_plain_template_opens_and_closes_with_the_tokenizers_own_tokens(make_tokenizer):
    tokenizer = prepare_tokenizer(make_tokenizer(bos_token="<s>", eos_token="</s>", pad_token="<pad>"))
    assert Encoder(tokenizer, 64).render(TALK) == "<s>Human: hello\n\nAssistant: world</s>"


def test_encoder_tokenizer_closes_with_its_separator(make_tokenizer):
    tokenizer = prepare_tokenizer(make_tokenizer(cls_token="<s>", sep_token="</s>", pad_token="<pad>"))
    (encoded,) = Encoder(tokenizer, 64)([TALK])
    assert (encoded.ids[0], encoded.ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)


def test_ids_are_what_the_saved_template_renders(make_tokenizer, tmp_path):
    from transformers import AutoTokenizer

    prepare_tokenizer(make_tokenizer(bos_token="<s>", eos_token="</s>", pad_token="<pad>")).save_pretrained(tmp_path)
    reloaded = AutoTokenizer.from_pretrained(tmp_path)
    expected = reloaded.apply_chat_template(TALK, tokenize=True, return_dict=True)["input_ids"]
    assert list(Encoder(reloaded, 64)([TALK])[0].ids) == expected


def test_template_that_ends_a_turn_is_left_alone(make_tokenizer):
    tokenizer = make_tokenizer(eos_token="<|im_end|>", pad_token="<pad>")
    tokenizer.chat_template = CHATML
    prepare_tokenizer(tokenizer)
    assert tokenizer.chat_template == CHATML


def test_template_without_an_end_gets_one(make_tokenizer):
    tokenizer = make_tokenizer(eos_token="</s>", pad_token="<pad>")
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    assert Encoder(prepare_tokenizer(tokenizer), 64)([TALK])[0].ids[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("special", [{"eos_token": "</s>"}, {"eos_token": "</s>", "pad_token": "</s>"}])
def test_pad_token_is_never_the_closing_token(make_tokenizer, special):
    tokenizer = prepare_tokenizer(make_tokenizer(**special))
    assert tokenizer.pad_token == "<pad>"
    assert Encoder(tokenizer, 64)([TALK])[0].ids[-1] != tokenizer.pad_token_id


def test_preparing_twice_changes_nothing(make_tokenizer):
    tokenizer = prepare_tokenizer(make_tokenizer(eos_token="</s>"))
    before = template_hash(tokenizer), tokenizer.pad_token_id, len(tokenizer)
    prepare_tokenizer(tokenizer)
    assert (template_hash(tokenizer), tokenizer.pad_token_id, len(tokenizer)) == before


def test_a_template_that_asks_for_the_date_gets_a_fixed_one(make_tokenizer):
    tokenizer = make_tokenizer(eos_token="</s>", pad_token="<pad>")
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}{% for m in messages %}{{ m['content'] }}{% endfor %}</s>"
    assert Encoder(prepare_tokenizer(tokenizer), 64).render(TALK) == "26 Jul 2024helloworld</s>"


def test_several_templates_are_refused(make_tokenizer):
    tokenizer = make_tokenizer(eos_token="</s>", pad_token="<pad>")
    tokenizer.chat_template = {"default": "a", "tool_use": "b"}
    with pytest.raises(ConfigError, match="several chat templates"):
        prepare_tokenizer(tokenizer)


def test_truncation_keeps_both_ends_it_promises(make_tokenizer):
    tokenizer = prepare_tokenizer(make_tokenizer(bos_token="<s>", eos_token="</s>", pad_token="<pad>"))
    whole = Encoder(tokenizer, 999)([TALK])[0].ids
    left, right = (Encoder(tokenizer, 10, side)([TALK])[0] for side in ("left", "right"))
    assert left.ids == whole[:1] + whole[-9:]
    assert right.ids == whole[:9] + whole[-1:]
    assert (left.truncated, left.full_length, len(left.ids)) == (True, len(whole), 10)


def test_truncation_error_names_both_lengths(make_tokenizer):
    tokenizer = prepare_tokenizer(make_tokenizer(eos_token="</s>", pad_token="<pad>"))
    with pytest.raises(DataError, match=r"has \d+ tokens, more than the 5"):
        Encoder(tokenizer, 5, "error")([TALK])


def test_a_refusing_template_is_one_sentence_with_the_roles(make_tokenizer):
    tokenizer = make_tokenizer(eos_token="</s>", pad_token="<pad>")
    tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}x</s>"
    )
    prepare_tokenizer(tokenizer)
    with pytest.raises(DataError, match=r"refuses a conversation with roles \[system\]: no system"):
        Encoder(tokenizer, 64)([[{"role": "system", "content": "be kind"}]])
