// The page of `fulgurite gamecraft play`: sends what is held and turned, shows frames at the film's pace.

const KEYS = {
  KeyW: "w", KeyA: "a", KeyS: "s", KeyD: "d",
  ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down",
};
const HEADER_BYTES = 20;
const FIRST = 1, RESTED = 2;
const CUSHION_MS = 60; // what a late frame may be late by, without a visible halt
const MOST_QUEUED = 8; // frames; beyond, the page has slept and catches up
const STALL_MS = 160;
const DEG_PER_PIXEL = 0.12;
const LOOK_EVERY_MS = 30;
const MAX_PICTURE_BYTES = 16 * 1024 * 1024 - 1024;

const $ = (id) => document.getElementById(id);
const stage = $("stage"), canvas = $("picture"), context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });

let socket = null;
let image = null; // ImageData of the model's size
let periodMs = 40;
let sequence = 0;
const held = new Set();
const pressedAt = new Map(); // input number -> when its key went down
const latencies = [];
let turnDeg = 0, upDeg = 0, lookTimer = 0;

// ---- the connection ---------------------------------------------------------------------------------------------

function connect() {
  $("ended").hidden = true;
  socket = new WebSocket(`ws://${location.host}/play`);
  socket.binaryType = "arraybuffer";
  socket.onmessage = ({ data }) => (typeof data === "string" ? hear(JSON.parse(data)) : queueFrame(data));
  socket.onclose = () => end("The connection is gone: the server has ended, or was restarted.");
}

function end(text) {
  if (!$("ended").hidden) return;
  letGo();
  $("ended-text").textContent = text;
  $("ended").hidden = false;
  $("hint").hidden = true;
  recording(false);
}

function say(message) {
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

const hearing = {
  hello({ height, width, fps, title, starts }) {
    canvas.width = width;
    canvas.height = height;
    image = context.createImageData(width, height);
    image.data.fill(255);
    periodMs = 1000 / fps;
    queue.length = 0;
    sequence = 0;
    pressedAt.clear();
    $("title").textContent = title;
    showStarts(starts);
    sendSpeed();
  },
  chunk({ number, chord, generation_ms, stalls }) {
    $("chord").textContent = chord;
    if (number) $("making").textContent = `${generation_ms} ms`;
    serverStalls = stalls;
    showStalls();
  },
  status({ fault, players, recording: on }) {
    if (fault) notice(`The model failed: ${fault}. Restart, or pick another start.`);
    $("players").hidden = players < 2;
    $("players").textContent = `${players} pages play; they take turns`;
    recording(on);
  },
  film({ url, frames, bytes }) {
    const link = document.createElement("a");
    link.href = url;
    link.download = "gamecraft.mp4";
    link.textContent = "Download film";
    $("film").replaceChildren(link, ` ${((frames * periodMs) / 1000).toFixed(1)} s, ${Math.ceil(bytes / 1000)} kB`);
    $("film").hidden = false;
    notice("The film is ready.");
  },
  notice({ text }) {
    notice(text);
  },
  full({ text }) {
    end(text);
  },
};

function hear(message) {
  hearing[message.type]?.(message);
}

function notice(text) {
  $("notice").textContent = text;
}

// ---- showing frames ---------------------------------------------------------------------------------------------

const queue = [];
const drawnAt = []; // of the last second
let due = 0, drewLast = 0, serverStalls = 0, pageStalls = 0;

function queueFrame(buffer) {
  const now = performance.now();
  if (!queue.length && now - due > periodMs) due = now + CUSHION_MS;
  queue.push(buffer);
}

function tick(now) {
  requestAnimationFrame(tick);
  while (queue.length > MOST_QUEUED) queue.shift();
  if (queue.length && now >= due) {
    draw(queue.shift(), now);
    due = Math.max(due + periodMs, now - periodMs);
  }
  while (drawnAt.length && drawnAt[0] < now - 1000) drawnAt.shift();
  if (image && Math.floor(now / 250) !== Math.floor((now - 17) / 250)) {
    $("fps").textContent = now - drewLast > 500 ? "resting" : drawnAt.length;
  }
}

function draw(buffer, now) {
  const header = new DataView(buffer);
  const answers = header.getUint32(8, true), flags = header.getUint32(12, true);
  const rgb = new Uint8Array(buffer, HEADER_BYTES), rgba = image.data;
  for (let from = 0, to = 0; from < rgb.length; from += 3, to += 4) {
    rgba[to] = rgb[from];
    rgba[to + 1] = rgb[from + 1];
    rgba[to + 2] = rgb[from + 2];
  }
  context.putImageData(image, 0, 0);
  if (drewLast && now - drewLast > STALL_MS && !(flags & FIRST && flags & RESTED) && !document.hidden) pageStalls += 1;
  drewLast = now;
  drawnAt.push(now);
  if (flags & FIRST) measure(answers, now);
  showStalls();
}

function measure(answers, now) {
  let newest = null;
  for (const [number, at] of pressedAt) {
    if (number > answers) continue;
    newest = now - at;
    latencies.push(newest);
    pressedAt.delete(number);
  }
  if (newest === null) return;
  latencies.splice(0, latencies.length - 100);
  const median = [...latencies].sort((a, b) => a - b)[latencies.length >> 1];
  $("latency").textContent = `${Math.round(newest)} ms (${Math.round(median)})`;
}

function showStalls() {
  $("stalls").textContent = Math.max(serverStalls, pageStalls);
}

// ---- keys, pad, mouse -------------------------------------------------------------------------------------------

function press(key) {
  if (held.has(key)) return;
  held.add(key);
  $("hint").hidden = true;
  sendKeys();
  pressedAt.set(sequence, performance.now());
}

function release(key) {
  if (held.delete(key)) sendKeys();
}

function letGo() {
  if (!held.size) return;
  held.clear();
  sendKeys();
}

function sendKeys() {
  sequence += 1;
  say({ type: "keys", held: [...held], seq: sequence });
  for (const button of document.querySelectorAll("#pad button")) {
    button.classList.toggle("held", held.has(button.dataset.key));
  }
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const key = KEYS[event.code];
  const inSlider = event.target instanceof HTMLInputElement && event.target.type === "range";
  if (key && !(inSlider && event.code.startsWith("Arrow"))) {
    event.preventDefault();
    press(key);
  } else if (event.code === "KeyR" && !event.repeat) {
    restart();
  } else if (event.code === "KeyV" && !event.repeat) {
    record();
  }
});
addEventListener("keyup", (event) => KEYS[event.code] && release(KEYS[event.code]));
addEventListener("blur", letGo);
document.addEventListener("visibilitychange", () => document.hidden && letGo());

for (const button of document.querySelectorAll("#pad button")) {
  const key = button.dataset.key;
  button.addEventListener("pointerdown", (event) => {
    button.setPointerCapture(event.pointerId);
    press(key);
  });
  for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) {
    button.addEventListener(name, () => release(key));
  }
  button.addEventListener("keydown", (event) => ["Enter", "Space"].includes(event.code) && press(key));
  button.addEventListener("keyup", (event) => ["Enter", "Space"].includes(event.code) && release(key));
  button.addEventListener("blur", () => release(key));
}

stage.addEventListener("click", async (event) => {
  if (event.target.closest("#ended") || document.pointerLockElement) return;
  $("hint").hidden = true;
  stage.focus();
  try {
    await stage.requestPointerLock();
  } catch {
    notice("This browser does not lend the mouse; the arrow keys look around too.");
  }
});
document.addEventListener("pointerlockchange", () => {
  $("mouse-note").hidden = document.pointerLockElement !== stage;
});
document.addEventListener("mousemove", (event) => {
  if (document.pointerLockElement !== stage) return;
  turnDeg += event.movementX * DEG_PER_PIXEL;
  upDeg -= event.movementY * DEG_PER_PIXEL;
  lookTimer ||= setTimeout(sendLook, LOOK_EVERY_MS);
});

function sendLook() {
  lookTimer = 0;
  sequence += 1;
  say({ type: "look", turn: turnDeg, up: upDeg, seq: sequence });
  turnDeg = upDeg = 0;
}

// ---- the panel --------------------------------------------------------------------------------------------------

function sendSpeed() {
  for (const name of ["walk", "turn"]) $(`${name}-out`).textContent = `${$(name).value} %`;
  say({ type: "speed", walk: $("walk").value / 100, turn: $("turn").value / 100 });
}
$("walk").addEventListener("input", sendSpeed);
$("turn").addEventListener("input", sendSpeed);

function showStarts(names) {
  const buttons = names.map((name, place) => {
    const button = document.createElement("button"), picture = document.createElement("img");
    button.type = "button";
    button.title = name;
    button.setAttribute("aria-pressed", place === 0);
    picture.src = `/starts/${place}`;
    picture.alt = `Start from ${name}`;
    button.append(picture);
    button.addEventListener("click", () => {
      choose(button);
      say({ type: "start", name });
      stage.focus();
    });
    return button;
  });
  $("starts").replaceChildren(...buttons);
}

function choose(chosen) {
  for (const button of $("starts").children) button.setAttribute("aria-pressed", button === chosen);
  notice("");
}

async function startFrom(file) {
  if (!file) return;
  if (file.size > MAX_PICTURE_BYTES) {
    notice("That picture has more than 16 MB.");
    return;
  }
  choose(null);
  socket.send(await file.arrayBuffer());
}
$("upload").addEventListener("change", (event) => {
  startFrom(event.target.files[0]);
  event.target.value = "";
  stage.focus();
});
stage.addEventListener("dragover", (event) => event.preventDefault());
stage.addEventListener("drop", (event) => {
  event.preventDefault();
  startFrom(event.dataTransfer.files[0]);
});
addEventListener("paste", (event) => startFrom(event.clipboardData.files[0]));

function restart() {
  notice("");
  say({ type: "restart" });
}
$("restart").addEventListener("click", () => {
  restart();
  stage.focus();
});

function record() {
  const on = $("record").getAttribute("aria-pressed") !== "true";
  recording(on);
  say({ type: "record", on });
}

function recording(on) {
  $("record").setAttribute("aria-pressed", on);
  $("record-text").textContent = on ? "Stop" : "Record";
  $("recording-note").hidden = !on;
}
$("record").addEventListener("click", record);

$("smooth").addEventListener("change", (event) => canvas.classList.toggle("sharp", !event.target.checked));
$("again").addEventListener("click", connect);

connect();
stage.focus();
requestAnimationFrame(tick);
