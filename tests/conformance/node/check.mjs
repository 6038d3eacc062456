// Asks an OpenAI-compatible server with the official Node SDK and prints what came of it as one line of JSON.

import OpenAI from 'openai';

const { BASE_URL, API_KEY, MODEL } = process.env;
const client = new OpenAI({ baseURL: BASE_URL, apiKey: API_KEY, maxRetries: 0 });
const messages = [{ role: 'user', content: 'Say hello.' }];
const options = { model: MODEL, messages, max_tokens: 12, temperature: 0 };

async function readStream() {
  const stream = await client.chat.completions.create({
    ...options,
    stream: true,
    stream_options: { include_usage: true },
  });
  const seen = { text: '', role: null, finish: null, usage: null, ids: new Set() };
  for await (const chunk of stream) {
    seen.ids.add(chunk.id);
    seen.usage = chunk.usage ?? seen.usage;
    for (const choice of chunk.choices) {
      seen.text += choice.delta.content ?? '';
      seen.role = choice.delta.role ?? seen.role;
      seen.finish = choice.finish_reason ?? seen.finish;
    }
  }
  return { ...seen, ids: seen.ids.size };
}

async function readWhole() {
  const answer = await client.chat.completions.create(options);
  return { text: answer.choices[0].message.content, usage: answer.usage };
}

async function errorOf(change) {
  try {
    await client.chat.completions.create({ ...options, ...change });
  } catch (error) {
    return { name: error.constructor.name, status: error.status, code: error.code };
  }
  return null;
}

const models = [];
for await (const model of client.models.list()) models.push(model.id);

console.log(
  JSON.stringify({
    stream: await readStream(),
    whole: await readWhole(),
    models,
    unknownModel: await errorOf({ model: 'no-such-model' }),
    wrongType: await errorOf({ messages: 'hello' }),
  }),
);
