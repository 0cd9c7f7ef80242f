/** The page: reads the form, asks the worker, shows what it says. */
const $ = (id) => document.getElementById(id);
const form = $('settings');
const worker = new Worker('worker.js', { type: 'module' });
const NUMBERS = ['steps', 'width', 'height', 'guidanceScale'];
let drawing; // the settings of the picture in the making

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;

function readSettings() {
  const settings = Object.fromEntries(new FormData(form));
  for (const name of NUMBERS) {
    settings[name] = settings[name] === '' ? undefined : Number(settings[name]);
  }
  return settings;
}

function writeSettings(settings) {
  for (const [name, value] of Object.entries(settings)) {
    form.elements[name].value = value ?? '';
  }
}

/** Files of the chosen directory with their places in it; undefined when none is chosen. */
function chosenFiles() {
  const files = [...$('directory').files].map((file) => ({ file, path: file.webkitRelativePath }));
  return files.length > 0 ? files : undefined;
}

function say(text, done) {
  $('status').textContent = text;
  if (done === undefined) {
    $('bar').removeAttribute('value');
  } else {
    $('bar').value = done;
  }
}

function show({ width, height, data }) {
  const rgba = new Uint8ClampedArray(width * height * 4).fill(255);
  for (let i = 0; i < width * height; i++) {
    rgba.set(data.subarray(3 * i, 3 * i + 3), 4 * i);
  }
  const canvas = $('preview');
  canvas.width = width;
  canvas.height = height;
  canvas.getContext('2d').putImageData(new ImageData(rgba, width, height), 0, 0);
}

async function showFile(blob) {
  const bitmap = await createImageBitmap(blob);
  const canvas = $('preview');
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  canvas.getContext('2d').drawImage(bitmap, 0, 0);
}

function setDrawing(settings) {
  drawing = settings;
  $('draw').disabled = settings !== undefined;
  $('cancel').hidden = settings === undefined;
  $('stage').ariaBusy = String(settings !== undefined);
}

function addToGallery(url, settings) {
  const entry = $('entry').content.cloneNode(true);
  const image = entry.querySelector('img');
  image.src = url;
  image.alt = settings.prompt;
  entry.querySelector('p').textContent = `${settings.prompt} · seed ${settings.seed} · ${settings.steps} steps`;
  entry.querySelector('button').onclick = () => writeSettings(settings);
  const link = entry.querySelector('a');
  link.href = url;
  link.download = `${settings.seed}.png`;
  $('gallery').prepend(entry);
}

function listModels(models) {
  const rows = models.map(({ id, bytes }) => {
    const row = document.createElement('li');
    const remove = document.createElement('button');
    remove.type = 'button';
    remove.textContent = 'Delete';
    remove.ariaLabel = `Delete ${id}`;
    remove.onclick = () => worker.postMessage({ type: 'forget', id });
    row.append(`${id} (${megabytes(bytes)})`, remove);
    return row;
  });
  $('kept').replaceChildren(...rows);
  if (models.length === 0) {
    $('kept').textContent = 'None yet.';
  }
}

const LOADING = {
  download: ({ overallLoaded, overallTotal }) => [
    `Downloading: ${megabytes(overallLoaded)} of ${megabytes(overallTotal)}`,
    overallLoaded / overallTotal,
  ],
  load: ({ component, loaded, total }) => [`Loading ${component}`, total > 0 ? loaded / total : undefined],
};

const HANDLERS = {
  ready: ({ schedulers }) => {
    form.elements.scheduler.append(...schedulers.map((name) => new Option(name)));
    worker.postMessage({ type: 'models' });
    $('draw').disabled = false;
  },
  loading: ({ progress }) => say(...(LOADING[progress.stage]?.(progress) ?? ['Loading'])),
  step: ({ step, total, seconds, preview }) => {
    say(`Step ${step} of ${total}, ${seconds.toFixed(2)} s each`, step / total);
    if (preview) {
      show(preview);
    }
  },
  drawn: async ({ png, seed, seconds }) => {
    const blob = new Blob([png], { type: 'image/png' });
    addToGallery(URL.createObjectURL(blob), { ...drawing, seed });
    setDrawing();
    await showFile(blob);
    say(`Drawn in ${seconds.toFixed(1)} s with seed ${seed}.`, 1);
    worker.postMessage({ type: 'models' });
  },
  cancelled: () => {
    setDrawing();
    say('Cancelled.', 0);
  },
  failed: ({ message }) => {
    setDrawing();
    say('Not drawn.', 0);
    $('error').textContent = message;
    $('error').hidden = false;
  },
  models: ({ models }) => listModels(models),
};

worker.onmessage = ({ data }) => HANDLERS[data.type](data);
worker.onerror = ({ message }) => HANDLERS.failed({ message: `the worker failed: ${message}` });

form.onsubmit = (event) => {
  event.preventDefault();
  $('error').hidden = true;
  const settings = readSettings();
  setDrawing(settings);
  say('Loading the model');
  worker.postMessage({ type: 'draw', settings, files: chosenFiles() });
};
$('cancel').onclick = () => worker.postMessage({ type: 'cancel' });
$('draw').disabled = true;
