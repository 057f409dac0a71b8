// npm's `openai` and `@ai-sdk/openai-compatible` with `ai`: an answer and a stream of each. node openai_client.mjs http://127.0.0.1:8080
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText } from "ai";
import OpenAI from "openai";

const baseURL = `${process.argv[2]}/v1`;
const same = (name, whole, streamed) => {
  if (!whole || whole !== streamed) throw new Error(`${name}: ${whole} is not ${streamed}`);
  console.log(name, "is content");
};

const client = new OpenAI({ baseURL, apiKey: "any" });
const asked = { model: "cokv", messages: [{ role: "user", content: "Say hello." }], max_tokens: 8, temperature: 0 };
let streamed = "";
for await (const chunk of await client.chat.completions.create({ ...asked, stream: true })) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
}
same("openai", (await client.chat.completions.create(asked)).choices[0].message.content, streamed);

const model = createOpenAICompatible({ name: "cokv", baseURL })("cokv");
const said = { model, prompt: "Say hello.", maxOutputTokens: 8, temperature: 0 };
streamed = "";
for await (const piece of streamText(said).textStream) streamed += piece;
same("ai", (await generateText(said)).text, streamed);
