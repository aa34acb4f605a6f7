'use strict';

const find = (id) => document.getElementById(id);
const picture = find('picture');
const context = picture.getContext('2d');
const NUMBERS = ['motion_scale', 'trunc', 'speed'];
const GIVE_UP_WAITING = 5000;  // milliseconds between two tries to connect, at most
const HELD = 400;  // milliseconds for which a slider that was moved does not follow the server

let socket = null;
let choices = null;
let status = null;
let wait = 250;
let waiting = {};  // wishes of sliders, sent once a picture: the newest of each
let moved = {};  // when a slider was moved last
let drawn = [];  // moments at which frames were drawn

function say(text, wrong = false) {
  const message = find('message');
  message.textContent = text;
  message.classList.toggle('wrong', wrong);
}

function send(wish) {
  if (socket && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(wish));
}

function connect() {
  const scheme = location.protocol === 'https:' ? 'wss:' : 'ws:';
  socket = new WebSocket(`${scheme}//${location.host}/stream`);
  socket.binaryType = 'arraybuffer';
  let opened = false;
  socket.onopen = () => { opened = true; wait = 250; say(''); tellVisible(); };
  socket.onmessage = (event) => (typeof event.data === 'string' ? hear(JSON.parse(event.data)) : show(event.data));
  socket.onclose = (event) => {
    picture.classList.add('waiting');
    find('rate').textContent = 'not connected';
    if (event.code === 1001) say('The live view has ended. When it is started again, this page continues.');
    else say(opened ? 'The connection was lost; trying again.' : 'The server does not answer, or too many pages are open; trying again.', true);
    setTimeout(connect, wait);
    wait = Math.min(2 * wait, GIVE_UP_WAITING);
  };
}

async function show(data) {
  const number = new DataView(data).getUint32(0);
  const here = socket;
  let image;
  try {
    image = await createImageBitmap(new Blob([new Uint8Array(data, 4)], { type: 'image/jpeg' }));
  } catch (error) {
    return;  // not drawn, not told
  }
  if (picture.width !== image.width || picture.height !== image.height) {
    picture.width = image.width;
    picture.height = image.height;
  }
  context.drawImage(image, 0, 0);
  image.close();
  picture.classList.remove('waiting');
  picture.dataset.number = number;
  const now = performance.now();
  drawn.push(now);
  while (drawn[0] < now - 2000) drawn.shift();
  if (here === socket) send({ type: 'drawn', number });
}

function hear(words) {
  if (words.type === 'choices') offer(words);
  else if (words.type === 'status') follow(words);
  else if (words.type === 'error') say(words.text, true);
  else if (words.type === 'recorded') say(`Recorded ${words.name}.`);
  else if (words.type === 'saved') {
    say(`Saved ${words.name}.`);
    find('command').textContent = words.command;
    find('command-box').hidden = false;
  }
}

// What the page offers.

function slider(id, name) {
  const box = document.createElement('div');
  box.className = 'slider';
  const label = document.createElement('label');
  label.htmlFor = id;
  label.textContent = name;
  const output = document.createElement('output');
  output.htmlFor = id;
  const input = document.createElement('input');
  Object.assign(input, { id, type: 'range' });
  box.append(label, output, input);
  return box;
}

function setRange(input, low, high, step) {
  Object.assign(input, { min: low, max: high, step });
}

function offer(words) {
  choices = words;
  for (const name of NUMBERS) {
    const input = find(name);
    setRange(input, words.ranges[name][0], words.ranges[name][1], name === 'speed' ? 0.05 : 0.01);
  }
  const edits = find('edits');
  for (const old of edits.querySelectorAll('.slider')) old.remove();
  words.edits.forEach((name, index) => {
    const box = slider(`edit${index}`, name);
    const input = box.querySelector('input');
    setRange(input, words.edit_range[0], words.edit_range[1], 0.1);
    input.addEventListener('input', () => wish(input, { type: 'edit', index, value: Number(input.value) }));
    edits.append(box);
  });
  edits.hidden = words.edits.length === 0;
  offerSubjects('');
}

function offerSubjects(chosen) {
  const select = find('subject');
  const options = [['', 'as trained'], ...choices.subjects.map((each) => [each.key, each.name])];
  if (chosen && !options.some(([key]) => key === chosen)) options.push([chosen, `drawn (${chosen})`]);
  select.replaceChildren(...options.map(([key, name]) => new Option(name, key, false, key === chosen)));
}

// What holds.

function setSlider(id, value) {
  const input = find(id);
  if (!input) return;
  if (!(performance.now() - (moved[id] || -HELD) < HELD)) input.value = value;
  const shown = Number(input.value);
  input.parentElement.querySelector('output').textContent = id === 'speed' || id === 'motion_scale' ? `${shown.toFixed(2)}×` : shown.toFixed(2);
}

function follow(words) {
  const before = status;
  status = words;
  if (before && before.subject !== words.subject) say('');
  for (const name of NUMBERS) setSlider(name, words[name]);
  words.edits.forEach((value, index) => setSlider(`edit${index}`, value));
  if (document.activeElement !== find('seed')) find('seed').value = words.seed;
  if (choices && (!before || before.subject !== words.subject || find('subject').value !== words.subject)) offerSubjects(words.subject);
  find('pause').textContent = words.running ? 'Pause' : 'Play';
  find('where').textContent = `seed ${words.seed}, frame ${words.frame}`;
  find('looking').textContent = words.viewers > 1 ? `${words.viewers} pages look` : '';
  picture.setAttribute('aria-label', `Live video of seed ${words.seed}`);
  const recording = words.recording !== null;
  find('record').setAttribute('aria-pressed', String(recording));
  find('record-text').textContent = recording ? `Stop (${words.recording.toFixed(0)} s)` : 'Record';
  const files = find('files');
  if (files.childElementCount !== words.files.length) {
    files.replaceChildren(...words.files.map((name) => {
      const item = document.createElement('li');
      const link = document.createElement('a');
      link.href = `/files/${encodeURIComponent(name)}`;
      link.download = name;
      link.textContent = name;
      item.append(link);
      return item;
    }));
    find('saved').hidden = words.files.length === 0;
  }
  if (words.problem && (!before || before.problem !== words.problem)) say(words.problem, true);
  showRate();
}

function showRate() {
  if (!status || !socket || socket.readyState !== WebSocket.OPEN) return;
  const here = drawn.length > 2 ? (drawn.length - 1) / (drawn[drawn.length - 1] - drawn[0]) * 1000 : 0;
  let text = 'paused';
  if (status.running) {
    text = `${here.toFixed(1)} frames per second`;
    if (here < 0.8 * status.fps) text += ` of ${status.fps.toFixed(1)}`;
    else if (status.fps < 0.9 * choices.fps) text += ` (${choices.fps.toFixed(0)} wanted)`;
  }
  find('rate').textContent = text;
}

// Wishes.

function wish(input, words) {
  moved[input.id] = performance.now();
  setSlider(input.id, input.value);
  if (Object.keys(waiting).length === 0) {
    requestAnimationFrame(() => {
      for (const each of Object.values(waiting)) send(each);
      waiting = {};
    });
  }
  waiting[input.id] = words;
}

function random(below) {
  return crypto.getRandomValues(new Uint32Array(1))[0] % below;
}

const pause = () => send({ type: status && status.running ? 'pause' : 'play' });
const step = () => send({ type: 'step' });
const newSeed = () => send({ type: 'seed', seed: random(100000) });
const record = () => send({ type: 'record', on: !(status && status.recording !== null) });
const save = () => send({ type: 'save' });

for (const name of NUMBERS) {
  const input = find(name);
  input.addEventListener('input', () => wish(input, { type: 'set', name, value: Number(input.value) }));
}
find('pause').addEventListener('click', pause);
find('step').addEventListener('click', step);
find('new-seed').addEventListener('click', newSeed);
find('record').addEventListener('click', record);
find('save').addEventListener('click', save);
find('seed-form').addEventListener('submit', (event) => {
  event.preventDefault();
  const seed = find('seed');
  seed.blur();
  send({ type: 'seed', seed: Number(seed.value) });
});
find('subject-form').addEventListener('submit', (event) => event.preventDefault());
find('subject').addEventListener('change', () => send({ type: 'subject', key: find('subject').value }));
find('new-subject').addEventListener('click', () => {
  say('Drawing a new subject.');
  send({ type: 'subject', key: `seed:${random(100000)}` });
});
find('reset').addEventListener('click', () => {
  if (!choices) return;
  moved = {};
  for (const name of NUMBERS) send({ type: 'set', name, value: choices.begin[name] });
  choices.begin.edits.forEach((value, index) => send({ type: 'edit', index, value }));
  send({ type: 'subject', key: choices.subjects.length ? choices.subjects[0].key : '' });
});
find('copy').addEventListener('click', async () => {
  try {
    await navigator.clipboard.writeText(find('command').textContent);
    say('Copied.');
  } catch (error) {
    getSelection().selectAllChildren(find('command'));  // without permission, or without https: selected, to be copied by hand
  }
});

document.addEventListener('keydown', (event) => {
  const tag = event.target.tagName;
  if (event.ctrlKey || event.metaKey || event.altKey || tag === 'SELECT' || (tag === 'INPUT' && event.target.type === 'number')) return;
  if (event.key === ' ' && (tag === 'BUTTON' || tag === 'SUMMARY' || tag === 'A')) return;  // presses that
  const action = { ' ': pause, '.': step, n: newSeed, r: record, s: save }[event.key.toLowerCase()];
  if (action && !event.repeat) {
    event.preventDefault();
    action();
  } else if (action === step) action();
});

// A hidden page gets no pictures.

function tellVisible() {
  send({ type: 'visible', visible: !document.hidden });
}
document.addEventListener('visibilitychange', tellVisible);
setInterval(showRate, 500);
connect();
