import { describe, expect, it } from "vitest";
import { memoryFolder } from "../files/memory.js";
import type { Tokenizer } from "../text/tokenizer.js";
import { type ChatMessage, openChatTemplate } from "./chat.js";

const HELLO: ChatMessage[] = [{ role: "user", content: "Hello" }];

const folder = (files: Record<string, unknown>) =>
  memoryFolder(
    "model",
    new Map(
      Object.entries(files).map(([name, content]) => [
        name,
        new TextEncoder().encode(typeof content === "string" ? content : JSON.stringify(content)),
      ]),
    ),
  );
const open = (files: Record<string, unknown>) => openChatTemplate(folder(files), () => new Date(2024, 6, 4, 9, 5, 7));
const render = async (template: string) => (await open({ "chat_template.jinja": template })).render(HELLO);

describe("where a chat template is found", () => {
  const settings = { chat_template: "settings", bos_token: "<s>" };

  it("takes chat_template.jinja before the others", async () => {
    const files = { "chat_template.jinja": "text", "chat_template.json": {}, "tokenizer_config.json": settings };
    expect((await open(files)).render(HELLO)).toBe("text");
  });
  it("takes chat_template.json before tokenizer_config.json", async () => {
    const files = { "chat_template.json": { chat_template: "{{ bos_token }}json" }, "tokenizer_config.json": settings };
    expect((await open(files)).render(HELLO)).toBe("<s>json");
  });
  it("passes over a chat_template.json without one", async () => {
    const chat = await open({ "chat_template.json": {}, "tokenizer_config.json": settings });
    expect([chat.source, chat.render(HELLO)]).toEqual(["tokenizer_config.json", "settings"]);
  });
  it("takes the default of a list, or the only one", async () => {
    const list = [
      { name: "tool_use", template: "tools" },
      { name: "default", template: "plain" },
    ];
    expect((await open({ "tokenizer_config.json": { chat_template: list } })).render(HELLO)).toBe("plain");
    const only = { chat_template: list.slice(0, 1) };
    expect((await open({ "tokenizer_config.json": only })).render(HELLO)).toBe("tools");
  });
  it("takes special tokens of special_tokens_map.json that tokenizer_config.json lacks", async () => {
    const files = {
      "chat_template.jinja": "{{ bos_token }}{{ eos_token }}",
      "special_tokens_map.json": { bos_token: "<old>", eos_token: { content: "</s>" } },
      "tokenizer_config.json": { bos_token: "<s>", add_bos_token: true },
    };
    expect((await open(files)).render(HELLO)).toBe("<s></s>");
  });
  it("ends answers where generation_config.json and the tokenizer say", async () => {
    const chat = await open({
      "chat_template.jinja": "",
      "generation_config.json": { eos_token_id: [7, 9] },
      "tokenizer_config.json": { eos_token: "<end>" },
    });
    const idOf = (token: string) => (token === "<end>" ? 9 : undefined);
    expect(chat.endTokens({ idOf } as Tokenizer)).toEqual([7, 9]);
  });

  it("says what is missing", async () => {
    await expect(open({ "tokenizer_config.json": {} })).rejects.toMatchObject({
      kind: "unsupported",
      message: expect.stringMatching(/no chat template/),
      remedy: expect.stringMatching(/--prompt/),
    });
    const list = ["a", "b"].map((name) => ({ name, template: name }));
    await expect(open({ "tokenizer_config.json": { chat_template: list } })).rejects.toThrow(/a, b.*"default"/);
    await expect(open({ "tokenizer_config.json": { chat_template: 3 } })).rejects.toThrow(/text or a list/);
    await expect(open({ "tokenizer_config.json": "[1]" })).rejects.toThrow(/JSON object/);
  });
});

describe("what a template may do", () => {
  it("asks for the time", async () => {
    expect(await render("{{ strftime_now('%d %b %Y, %A %B %H:%M:%S %% %q') }}")).toBe(
      "04 Jul 2024, Thursday July 09:05:07 % %q",
    );
  });
  it("counts", async () => {
    expect(await render("{{ range(3) | join(',') }} {{ range(5, 0, -2) | join(',') }}")).toBe("0,1,2 5,3,1");
  });
  it("refuses messages in its own words", async () => {
    await expect(render("{{ raise_exception('no system message') }}")).rejects.toMatchObject({
      kind: "usage",
      message: expect.stringMatching(/no system message/),
    });
  });

  const format = (template: string, message: RegExp) =>
    expect(render(template)).rejects.toMatchObject({ kind: "format", message: expect.stringMatching(message) });

  it("is not broken", async () => {
    await format("{% if %}", /not a Jinja template/);
    await format("{{ messages[0].content.lost() }}", /cannot be rendered/);
  });
  it("has bounded work and output", async () => {
    await format("x".repeat(2 ** 18 + 1), /more than the 262144/);
    await format("{{ range(1000000000) }}", /a range of more than/);
    const loop = "{% for i in range(999) %}";
    await format(`${loop}${loop}{{ i }}{% endfor %}{% endfor %}`, /steps/);
    await format(`{% for i in range(999) %}${"x".repeat(2000)}{% endfor %}`, /characters of its own/);
    await format("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}", /cannot be rendered/);
  });
  it("needs messages", async () => {
    const chat = await open({ "chat_template.jinja": "" });
    expect(() => chat.render([])).toThrow(/at least one message/);
  });
});
