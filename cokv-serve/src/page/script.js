// Whatever a model or a document says is put into the page as text, never as markup.

const at = (id) => document.getElementById(id);
const said = [];
let asking = null;
let model = null;
let documents = [];
let status = null;

const bytes = (count) => {
  if (count == null) return 'unknown';
  const units = ['B', 'KiB', 'MiB', 'GiB'];
  let unit = 0;
  while (count >= 1024 && unit < 3) { count /= 1024; unit += 1; }
  return `${unit ? count.toFixed(1) : count} ${units[unit]}`;
};

const call = async (path, options = {}) => {
  const headers = { ...options.headers };
  if (options.body) headers['Content-Type'] = 'application/json';
  if (at('key').value) headers.Authorization = `Bearer ${at('key').value}`;
  const response = await fetch(path, { ...options, headers });
  if (response.ok) return response;
  if (response.status === 401) at('key-box').open = true;
  const body = await response.json().catch(() => null);
  throw new Error(body?.error?.message ?? `the server says ${response.status}`);
};

// Events of a stream, each with its name and its JSON.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split('\n\n');
    rest = blocks.pop();
    for (const block of blocks) {
      if (block.startsWith(': ')) { yield { comment: block.slice(2) }; continue; }
      const name = /^event: (.*)$/m.exec(block)?.[1];
      const data = /^data: (.*)$/m.exec(block)?.[1];
      if (data === '[DONE]') return;
      if (data) {
        const json = JSON.parse(data);
        if (json.error) throw new Error(json.error.message);
        yield { name, json };
      }
    }
  }
}

const element = (kind, text, parent, kindOf) => {
  const made = document.createElement(kind);
  made.textContent = text;
  if (kindOf) made.className = kindOf;
  parent?.append(made);
  return made;
};

const show = (who, text, kind = '') => {
  const box = element('article', '', at('messages'), `message ${kind}`);
  element('h3', who, box);
  const words = element('p', text, box);
  at('messages').scrollTop = at('messages').scrollHeight;
  return { box, words };
};

const sampling = () => {
  const number = (id) => Number(at(id).value);
  const chosen = { temperature: number('temperature'), top_p: number('top_p'), top_k: number('top_k'), max_tokens: number('max_tokens') };
  if (at('seed').value) chosen.seed = number('seed');
  return chosen;
};

const asked = () => document.querySelector('input[name=about]:checked')?.value || null;

async function ask(question) {
  const turn = { role: 'user', content: question };
  said.push(turn);
  show('You', question);
  const { box, words } = show('Model', '');
  asking = new AbortController();
  at('send').disabled = true;
  at('stop').disabled = false;
  let answer = '';
  try {
    const about = asked();
    const body = { model: model.id, messages: said, stream: true, stream_options: { include_usage: true }, ...sampling() };
    if (about) body.cokv = { document: about };
    const response = await call('/v1/chat/completions', { method: 'POST', body: JSON.stringify(body), signal: asking.signal });
    for await (const { comment, json } of events(response)) {
      if (comment) { at('progress').textContent = comment; continue; }
      const text = json.choices[0]?.delta?.content;
      if (json.choices[0]?.finish_reason === 'length') element('small', 'as long as an answer may become: raise "Tokens of an answer at most" for more', box);
      if (text) {
        answer += text;
        words.textContent = answer;
        at('progress').textContent = '';
        at('messages').scrollTop = at('messages').scrollHeight;
      }
      if (json.usage) {
        const { prompt_tokens: prompt, completion_tokens: tokens, prompt_tokens_details: details } = json.usage;
        const { cache, decode_ms: time } = json.cokv;
        const speed = time ? `, ${(tokens * 1000 / time).toFixed(1)} tokens/s` : '';
        const kept = cache.state === 'compressed' ? `, ${(cache.kept_share * 100).toFixed(0)} % of the prompt kept` : '';
        element('small', `${prompt} prompt tokens (${details.cached_tokens} cached), ${tokens} answered${speed}${kept}`, box);
      }
    }
  } catch (error) {
    if (error.name === 'AbortError') element('small', 'stopped', box);
    else show('Error', error.message, 'error');
  } finally {
    // A new chat may have begun meanwhile.
    if (said.at(-1) === turn) {
      if (answer) said.push({ role: 'assistant', content: answer });
      else said.pop();
    }
    asking = null;
    at('send').disabled = false;
    at('stop').disabled = true;
    at('progress').textContent = '';
    refresh();
  }
}

async function read() {
  const bar = at('reading');
  const body = { text: at('text').value };
  if (at('name').value) body.id = at('name').value;
  body.compress = 'off';
  if (at('compress').checked) {
    body.compress = { mode: 'document' };
    if (at('method').value) body.compress.compressor = at('method').value;
    if (at('budget').value) body.compress.budget = at('budget').value;
  }
  bar.hidden = false;
  bar.removeAttribute('value');
  at('reading-text').textContent = 'queued';
  try {
    const headers = { Accept: 'text/event-stream' };
    const response = await call('/v1/cokv/documents', { method: 'POST', headers, body: JSON.stringify(body) });
    for await (const { name, json } of events(response)) {
      if (name === 'progress') {
        bar.value = json.tokens / json.of;
        at('reading-text').textContent = `${json.tokens} of ${json.of} tokens`;
      }
      if (name === 'done') {
        at('reading-text').textContent = `${json.id}: ${json.tokens} tokens, ${bytes(json.bytes)}`;
        at('read').reset();
        await refresh(json.id);
      }
    }
  } catch (error) {
    at('reading-text').textContent = error.message;
  } finally {
    bar.hidden = true;
  }
}

async function forget(id) {
  try {
    await call(`/v1/cokv/documents/${encodeURIComponent(id)}`, { method: 'DELETE' });
  } catch (error) {
    show('Error', error.message, 'error');
  }
  refresh();
}

const choice = (value, text, chosen) => {
  const row = document.createElement('li');
  const label = element('label', '', row);
  const button = document.createElement('input');
  Object.assign(button, { type: 'radio', name: 'about', value, checked: value === (chosen ?? '') });
  button.addEventListener('change', clear);
  label.append(button, ` ${text}`);
  return row;
};

function list(chosen) {
  const rows = [choice('', 'nothing but the chat', chosen)];
  for (const { id, tokens, kept_tokens: kept, bytes: size, method, budget, hits } of documents) {
    const row = choice(id, id, chosen);
    const made = method ? `${method} ${budget}, ${Math.round(kept)} of ${tokens} tokens` : `${tokens} tokens`;
    element('small', `${made}, ${bytes(size)}, asked ${hits === 1 ? 'once' : `${hits} times`}`, row);
    const button = element('button', 'Forget', row);
    button.type = 'button';
    button.setAttribute('aria-label', `Forget ${id}`);
    button.addEventListener('click', () => forget(id));
    rows.push(row);
  }
  at('documents').replaceChildren(...rows);
}

// What a heat map may be of: documents and idle prefixes that are in memory.
function entries() {
  const named = (entry, index) => [entry.document ?? `conversation ${index + 1} (${entry.tokens} tokens)`, entry];
  const select = at('shown');
  const before = select.value;
  const all = status.entries.map(named);
  select.replaceChildren(...all.map(([name]) => element('option', name)));
  if (all.some(([name]) => name === before)) select.value = before;
  return new Map(all);
}

function draw() {
  const entry = entries().get(at('shown').value);
  const canvas = at('map');
  canvas.hidden = !entry;
  at('map-text').textContent = 'Nothing is in memory.';
  if (!entry) return;
  const rows = entry.kept_by_head;
  const cell = 12;
  canvas.width = rows[0].length * cell * 2;
  canvas.height = rows.length * cell;
  canvas.style.maxWidth = `${canvas.width * 2}px`;
  const context = canvas.getContext('2d');
  rows.forEach((heads, layer) => heads.forEach((kept, head) => {
    const share = entry.tokens ? kept / entry.tokens : 0;
    context.fillStyle = `hsl(${220 - 180 * share} 75% ${20 + 45 * share}%)`;
    context.fillRect(head * cell * 2, layer * cell, cell * 2 - 1, cell - 1);
  }));
  const all = rows.flat();
  const text = `${rows.length} layers (down) of ${rows[0].length} heads (across): from ${Math.min(...all)} to ${Math.max(...all)} of ${entry.tokens} tokens; bright keeps much.`;
  at('map-text').textContent = text;
  canvas.setAttribute('aria-label', text);
  canvas.onmousemove = ({ offsetX, offsetY }) => {
    const layer = Math.min(rows.length - 1, Math.floor(offsetY / canvas.clientHeight * rows.length));
    const head = Math.min(rows[0].length - 1, Math.floor(offsetX / canvas.clientWidth * rows[0].length));
    at('map-text').textContent = `layer ${layer}, head ${head}: ${rows[layer]?.[head]} of ${entry.tokens} tokens`;
  };
}

async function refresh(chosen) {
  try {
    const before = chosen ?? asked();
    const get = async (path) => (await call(path)).json();
    model ??= (await get('/v1/models')).data[0];
    at('model').textContent = `${model.id}, ${model.meta.context} tokens of context`;
    at('send').disabled = asking !== null;
    [{ data: documents }, status] = await Promise.all([get('/v1/cokv/documents'), get('/v1/cokv/status')]);
    const { held, limit } = status.bytes;
    at('memory').max = limit ?? Math.max(held, 1);
    at('memory').value = held;
    at('memory-text').textContent = `${bytes(held)} of ${bytes(limit)}, ${status.running} running, ${status.waiting} waiting`;
    list(before);
    draw();
  } catch (error) {
    at('model').textContent = error.message;
  }
}

function clear() {
  asking?.abort();
  said.length = 0;
  at('messages').replaceChildren();
}

function submit(event) {
  event.preventDefault();
  const question = at('question').value.trim();
  if (!question || asking || !model) return;
  at('question').value = '';
  ask(question);
}

at('ask').addEventListener('submit', submit);
at('question').addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) submit(event);
});
at('stop').addEventListener('click', () => asking?.abort());
at('clear').addEventListener('click', () => { clear(); at('question').focus(); });
at('read').addEventListener('submit', (event) => { event.preventDefault(); read(); });
at('file').addEventListener('change', async () => {
  const [file] = at('file').files;
  if (!file) return;
  at('text').value = await file.text();
  if (!at('name').value) at('name').value = file.name.replace(/[^A-Za-z0-9._-]/g, '-').replace(/^[^A-Za-z0-9]+/, '').slice(0, 64);
});
// Whoever says how to compress wants to.
for (const id of ['method', 'budget']) {
  at(id).addEventListener('input', () => { at('compress').checked = true; });
}
at('shown').addEventListener('change', draw);
for (const id of ['temperature', 'top_p']) {
  const tell = () => { at(`${id}-text`).textContent = at(id).value; };
  at(id).addEventListener('input', tell);
  tell();
}
at('key').value = sessionStorage.getItem('cokv-key') ?? '';
at('key').addEventListener('change', () => {
  sessionStorage.setItem('cokv-key', at('key').value);
  refresh();
});
refresh();
setInterval(() => { if (!document.hidden && !asking) refresh(); }, 5000);
