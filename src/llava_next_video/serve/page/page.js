// One page, one conversation about one medium. No framework: the server's API does the work.

const at = (id) => document.getElementById(id);
const state = { medium: null, messages: [], model: null, maxFrames: 64, running: null, looking: null };

const headers = () => {
  const key = at("key").value;
  return { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
};

const post = async (path, body, signal) => {
  const answer = await fetch(path, { method: "POST", headers: headers(), body: JSON.stringify(body), signal });
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => null);
  const error = new Error(told?.error?.message ?? `${answer.status} ${answer.statusText}`);
  error.code = told?.error?.code;
  throw error;
};

const complain = (error) => {
  at("error").textContent = error ? error.message ?? error : "";
  at("error").hidden = !error;
};

// What the model looks at --------------------------------------------------------------------------------

const sampling = () =>
  document.querySelector("[name=how]:checked").value === "fps"
    ? { fps: Number(at("fps").value) }
    : { num_frames: Number(at("frames").value) };

// Known media are named; whoever does not know the name (any more) is sent the file.
const part = (medium, whole) => ({
  type: `${medium.kind}_url`,
  ...(whole && { [`${medium.kind}_url`]: { url: medium.url } }),
  uuid: medium.uuid,
});

const named = async (send) => {
  try {
    return await send(false);
  } catch (error) {
    if (error.code !== "media_unknown") throw error;
    return send(true);
  }
};

const look = async () => {
  const medium = state.medium;
  if (!medium) return;
  state.looking?.abort();
  const { signal } = (state.looking = new AbortController());
  at("seen").textContent = "reading…";
  try {
    const answer = await named((whole) => {
      const { type, ...source } = part(medium, whole);
      if (!whole) source[type] = undefined;
      return post("v1/frames", { ...source, media_io_kwargs: { video: sampling() } }, signal);
    });
    show(await answer.json(), medium);
    complain();
  } catch (error) {
    if (error.name === "AbortError") return;
    at("seen").textContent = "";
    at("strip").replaceChildren();
    complain(error);
  }
};

const show = (told, medium) => {
  const many = told.data.length === 1 ? "1 frame" : `${told.data.length} frames`;
  const whole = told.kind === "video" ? ` of ${told.frame_count}` : "";
  at("seen").textContent = `${many}${whole}, ${told.visual_tokens} visual tokens`;
  at("strip").replaceChildren(
    ...told.data.map((frame) => {
      const item = document.createElement("li");
      const button = item.appendChild(document.createElement("button"));
      const time = `${frame.time_s.toFixed(2)} s`;
      button.type = "button";
      button.append(Object.assign(new Image(), { src: frame.url, alt: "" }), medium.kind === "video" ? time : "seen");
      button.setAttribute("aria-label", `Frame at ${time}`);
      button.onclick = () => { at("video").currentTime = frame.time_s; };
      return item;
    }),
  );
};

const take = async (file) => {
  if (!file) return;
  const kind = file.type.startsWith("image/") && file.type !== "image/gif" ? "image" : "video";
  const url = await new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(reader.error);
    reader.readAsDataURL(file);
  });
  const letters = Array.from(crypto.getRandomValues(new Uint8Array(16)), (n) => n.toString(16).padStart(2, "0"));
  state.medium = { kind, url, name: file.name, uuid: letters.join("") };
  const shown = URL.createObjectURL(file);
  const film = kind === "video" && file.type !== "image/gif";
  for (const [element, on] of [[at("video"), film], [at("picture"), !film]]) {
    element.hidden = !on;
    if (on) element.src = shown; else element.removeAttribute("src");
  }
  at("picture").alt = file.name;
  at("name").textContent = file.name;
  at("preview").hidden = false;
  at("sampling").disabled = kind === "image";
  startOver();
  await look();
};

// The conversation ---------------------------------------------------------------------------------------

const startOver = () => {
  state.running?.abort();
  state.messages = [];
  at("log").replaceChildren(at("hint"));
  at("hint").hidden = false;
  at("fresh").disabled = true;
  complain();
};

const say = (role, text) => {
  at("hint").hidden = true;
  const article = at("log").appendChild(document.createElement("article"));
  article.className = role;
  article.setAttribute("aria-label", role === "user" ? "You" : "Answer");
  const words = article.appendChild(document.createElement("div"));
  words.textContent = text;
  article.scrollIntoView({ block: "end" });
  return words;
};

const request = (messages, whole) => ({
  model: state.model,
  messages: messages.map(({ role, text, medium }) => ({
    role,
    content: medium ? [part(medium, whole), { type: "text", text }] : text,
  })),
  max_tokens: Number(at("tokens").value),
  temperature: Number(at("temperature").value),
  media_io_kwargs: { video: sampling() },
});

async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    const whole = held.split("\n\n");
    held = whole.pop();
    for (const one of whole) {
      const data = one.replace(/^data: /, "");
      if (data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

const ask = async (text) => {
  complain();
  const first = state.messages.length === 0;
  const messages = [...state.messages, { role: "user", text, medium: first ? state.medium : null }];
  const question = say("user", text).parentElement;
  const words = say("assistant", "");
  words.className = "writing";
  const control = (state.running = new AbortController());
  at("send").hidden = true;
  at("stop").hidden = false;
  const began = performance.now();
  let firstWord = 0;
  let usage = null;
  let stopped = false;
  try {
    const answer = await named((whole) => {
      const body = { ...request(messages, whole), stream: true, stream_options: { include_usage: true } };
      return post("v1/chat/completions", body, control.signal);
    });
    for await (const one of events(answer)) {
      if (one.error) throw new Error(one.error.message);
      const piece = one.choices[0]?.delta?.content;
      if (piece) {
        firstWord ||= performance.now() - began;
        words.textContent += piece;
        words.scrollIntoView({ block: "end" });
      }
      usage = one.usage ?? usage;
    }
  } catch (error) {
    stopped = error.name === "AbortError";
    if (!stopped) complain(error);
  } finally {
    if (state.running === control) state.running = null;
    words.className = "";
    at("send").hidden = false;
    at("stop").hidden = true;
  }
  if (!words.textContent && !usage) {
    words.parentElement.remove();
    question.remove();
    at("hint").hidden = state.messages.length > 0;
    at("question").value ||= text;
    return;
  }
  state.messages = [...messages, { role: "assistant", text: words.textContent }];
  at("fresh").disabled = false;
  const footer = words.parentElement.appendChild(document.createElement("footer"));
  footer.textContent = stopped ? "stopped" : cost(usage, firstWord, performance.now() - began);
};

const cost = (usage, firstWord, whole) => {
  if (!usage) return "broken off";
  const cached = usage.prompt_tokens_details.cached_tokens;
  const share = Math.round((100 * cached) / usage.prompt_tokens);
  const rate = usage.completion_tokens / Math.max((whole - firstWord) / 1000, 0.001);
  return [
    `${usage.completion_tokens} token${usage.completion_tokens === 1 ? "" : "s"}`,
    `${rate.toFixed(0)} a second`,
    `first word after ${(firstWord / 1000).toFixed(2)} s`,
    cached ? `${share} % of the prompt was cached` : "read for the first time",
  ].join(" · ");
};

// The same as code ---------------------------------------------------------------------------------------

const snippets = () => {
  const text = at("question").value || state.messages.findLast((one) => one.role === "user")?.text || "What happens?";
  const file = state.medium?.name ?? "clip.mp4";
  const kind = state.medium?.kind ?? "video";
  const type = (state.medium?.url ?? "data:video/mp4;").slice(5).split(";")[0];
  const body = request([{ role: "user", text, medium: null }]);
  const content = (url) => [{ type: `${kind}_url`, [`${kind}_url`]: { url } }, { type: "text", text }];
  const origin = location.origin;
  const shell = JSON.stringify({ ...body, messages: [{ role: "user", content: content("@URL@") }] }, null, 1);
  const quoted = shell.replaceAll("'", "'\\''").replace("@URL@", `data:${type};base64,'"$(base64 -w0 '${file}')"'`);
  const extra = JSON.stringify({ media_io_kwargs: body.media_io_kwargs });
  at("curl").textContent = `printf '%s' '${quoted}' |
curl ${origin}/v1/chat/completions -H 'Content-Type: application/json' -H "Authorization: Bearer $API_KEY" -d @-`;
  at("python").textContent = `import base64, os
from openai import OpenAI

client = OpenAI(base_url="${origin}/v1", api_key=os.environ.get("API_KEY", "none"))
url = "data:${type};base64," + base64.b64encode(open(${JSON.stringify(file)}, "rb").read()).decode()
content = ${JSON.stringify(content("@URL@")).replace('"@URL@"', "url")}
answer = client.chat.completions.create(
    model=${JSON.stringify(state.model)}, messages=[{"role": "user", "content": content}],
    max_tokens=${body.max_tokens}, temperature=${body.temperature}, extra_body=${extra},
)
print(answer.choices[0].message.content)`;
  at("snippet").showModal();
};

const copy = async (button) => {
  const code = at(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(code);
    button.textContent = "Selected: copy it with your keyboard";
  }
};

// Wiring -------------------------------------------------------------------------------------------------

const greet = async () => {
  try {
    const answer = await fetch("v1/models", { headers: headers() });
    if (answer.status === 401) throw new Error("This server needs an API key: see Settings.");
    const [model] = (await answer.json()).data;
    Object.assign(state, { model: model.id, maxFrames: model.max_frames });
    at("frames").max = model.max_frames;
    at("frames").value = model.default_frames;
    at("tokens").max = model.max_model_len;
    at("model").textContent = model.id;
    complain();
  } catch (error) {
    at("model").textContent = "not connected";
    complain(error);
  }
};

at("file").onchange = () => take(at("file").files[0]).catch(complain);
at("key").onchange = greet;
at("fresh").onclick = startOver;
at("stop").onclick = () => { state.running?.abort(); at("question").focus(); };
at("code").onclick = snippets;
at("sampling").onchange = look;
for (const button of document.querySelectorAll("[data-copy]")) button.onclick = () => copy(button);

at("ask").onsubmit = (event) => {
  event.preventDefault();
  const text = at("question").value.trim();
  if (!text || state.running) return;
  at("question").value = "";
  ask(text);
};
at("question").onkeydown = (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    at("ask").requestSubmit();
  }
};

addEventListener("dragover", (event) => { event.preventDefault(); at("drop").classList.add("over"); });
addEventListener("dragleave", () => at("drop").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  take(event.dataTransfer.files[0]).catch(complain);
});

greet();
