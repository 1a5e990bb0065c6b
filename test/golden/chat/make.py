"""Writes chat.json: conversations as transformers' apply_chat_template renders and encodes them. Run from anywhere: python make.py

The templates are small ones of the shapes that LLaMA 2 chat, ChatML (Qwen), Mistral instruct and LLaMA 3.1 have.
"""

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

here = Path(__file__).parent
TEMPLATES = {
    "llama-2": """{%- if messages[0]['role'] == 'system' %}
    {%- set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set system = '' %}
    {%- set turns = messages %}
{%- endif %}
{%- for turn in turns %}
    {%- if (turn['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('roles must alternate, user first') }}
    {%- endif %}
    {%- if turn['role'] == 'user' %}
        {{- bos_token + '[INST] ' + (system if loop.first else '') + turn['content'].strip() + ' [/INST]' }}
    {%- else %}
        {{- ' ' + turn['content'].strip() + ' ' + eos_token }}
    {%- endif %}
{%- endfor %}""",
    "chatml": """{%- if messages[0].role != 'system' -%}
{{- '<|im_start|>system\\nYou are helpful.<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
{{- '<|im_start|>' ~ message.role + '\\n' + message.content + '<|im_end|>' + '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}""",
    "mistral": """{{ bos_token }}{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '[INST] ' ~ message['content'] ~ ' [/INST]' }}
{%- elif message['role'] == 'assistant' %}
{{ ' ' ~ message['content'] | trim ~ eos_token }}
{%- else %}
{{ raise_exception('only user and assistant roles are supported') }}
{%- endif %}
{%- endfor %}""",
    "llama-3": """{%- if not date is defined %}{% if strftime_now is defined %}{% set date = '26 Jul 2024' %}{% endif %}{% endif %}
{%- macro header(role) -%}
<|{{ role }}|>

{% endmacro %}
{%- set state = namespace(turns=0) %}
{{- bos_token }}
{%- if messages and messages[0].role == 'system' %}
    {%- set system = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = "" %}
{%- endif %}
{{- header('system') + 'Date: ' + date + '\\n' + system + eos_token }}
{%- for message in messages if message.role in ['user', 'assistant'] %}
    {%- set state.turns = state.turns + 1 %}
    {{- header(message.role) }}{{ message.content | trim + eos_token }}
{%- endfor %}
{{- '{"turns": ' ~ state.turns ~ ', "last": ' ~ messages[-1] | tojson ~ '}' }}
{%- if add_generation_prompt %}
    {{- header('assistant') }}
{%- endif %}""",
}
USER = {"role": "user", "content": " What is the tower's height?\n"}
CONVERSATIONS = {
    "user": [USER],
    "system and user": [{"role": "system", "content": "Answer in \u65e5\u672c\u8a9e. "}, USER],
    "three turns": [USER, {"role": "assistant", "content": "  324 metres </s> <b>\"tall\"</b>"}, {"role": "user", "content": "And <s> na\u00efve?"}],
    "answer first": [{"role": "assistant", "content": "Yes?"}, USER],
}
ADDED = ["<|im_start|>", "<|im_end|>"]

core = Tokenizer.from_file(str(here.parent / "text" / "word-tokenizer.json"))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken(token, normalized=False) for token in ADDED]})
cases = []
for name, template in TEMPLATES.items():
    for conversation, messages in CONVERSATIONS.items():
        case = {"template": name, "conversation": conversation}
        options = {"chat_template": template, "add_generation_prompt": True}
        try:
            case["text"] = tokenizer.apply_chat_template(messages, tokenize=False, **options)
            case["ids"] = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **options)
        except Exception as error:  # jinja2's TemplateError
            case["refusal"] = str(error)
        cases.append(case)
document = {
    "templates": TEMPLATES, "conversations": CONVERSATIONS,
    "added": {token: tokenizer.convert_tokens_to_ids(token) for token in ADDED}, "cases": cases,
}
(here / "chat.json").write_text(json.dumps(document, indent=1) + "\n")
for case in cases:
    print(case["template"], "|", case["conversation"], "|", repr(case.get("text", case.get("refusal"))), len(case.get("ids", [])))
