// A clip's waveform, its genres over time below, and a playhead over both that follows the player and moves it.
//
// Gradio runs this once for each component: `element` is where it draws, `props.value` what `genres_page.pictures.curve`
// returns, `props.player` the id of the audio component, and `watch` calls back when the value has changed.
// Names are set as text, never as HTML.
const SVG = "http://www.w3.org/2000/svg";
const root = element.querySelector(".curve");
let head, plot, said, clip = null;

function add(parent, name, text = "") {
  const made = document.createElement(name);
  made.textContent = text;
  parent.append(made);
  return made;
}

function picture(parent, name) {
  const drawn = document.createElementNS(SVG, "svg");
  drawn.setAttribute("viewBox", "0 0 1 1");
  drawn.setAttribute("preserveAspectRatio", "none");
  drawn.setAttribute("class", name);
  drawn.setAttribute("aria-hidden", "true");
  parent.append(drawn);
  return drawn;
}

function area(parent, points, colour) {
  const drawn = document.createElementNS(SVG, "polygon");
  drawn.setAttribute("points", points.map((point) => point.join(",")).join(" "));
  drawn.setAttribute("fill", colour);
  parent.append(drawn);
}

function audio() {
  return document.querySelector(`#${props.player} audio`);
}

function draw() {
  clip = props.value;
  root.replaceChildren();
  root.hidden = !clip;
  if (!clip) return;
  plot = add(root, "div");
  plot.className = "plot";
  plot.tabIndex = 0;
  plot.setAttribute("role", "slider");
  plot.setAttribute("aria-label", "Position in the clip");
  plot.setAttribute("aria-valuemin", "0");
  plot.setAttribute("aria-valuemax", clip.seconds.toFixed(1));
  const wave = picture(plot, "wave");
  const width = 1 / clip.peaks.length;
  const upper = clip.peaks.map((peak, place) => [(place + 0.5) * width, (100 - peak) / 200]);
  area(wave, [...upper, ...upper.map(([x, y]) => [x, 1 - y]).reverse()], "currentColor");
  if (clip.over_time) drawGenres(clip.over_time);
  head = add(plot, "div");
  head.className = "head";
  const axis = add(root, "div");
  axis.className = "axis";
  axis.setAttribute("aria-hidden", "true");
  for (const part of [0, 0.25, 0.5, 0.75, 1]) add(axis, "span", `${(clip.seconds * part).toFixed(1)} s`);
  said = add(root, "p");
  said.className = "said";
  if (clip.over_time) drawLegend(clip.over_time);
  plot.addEventListener("pointerdown", (event) => {
    plot.setPointerCapture(event.pointerId);
    seekTo(event);
  });
  plot.addEventListener("pointermove", (event) => {
    if (event.buttons) seekTo(event);
  });
  plot.addEventListener("keydown", byKey);
  move(audio()?.currentTime || 0);
}

function drawGenres(curve) {
  const drawn = picture(plot, "genres");
  const windows = curve.probabilities;
  // The last window ends with the clip, or with itself where the clip goes on.
  const at = (place) => Math.min((curve.start_s + place * curve.hop_s) / clip.seconds, 1);
  const below = windows.map(() => 0);
  curve.genres.forEach((_, genre) => {
    const lower = [], upper = [];
    windows.forEach((window, place) => {
      const from = below[place];
      below[place] = Math.min(from + window[genre], 1);
      for (const x of [at(place), at(place + 1)]) {
        lower.push([x, 1 - from]);
        upper.push([x, 1 - below[place]]);
      }
    });
    area(drawn, [...upper, ...lower.reverse()], clip.colours[genre]);
  });
}

function drawLegend(curve) {
  add(root, "p", `Below the waveform: probability of each genre, 0 to 1, in windows of ${curve.window_s.toFixed(0)} s`);
  const list = add(root, "ul");
  list.className = "legend";
  curve.genres.forEach((genre, place) => {
    const line = add(list, "li");
    add(line, "i").style.background = clip.colours[place];
    add(line, "span", genre);
  });
}

function heard(seconds) {
  const curve = clip.over_time;
  if (!curve) return "";
  const place = Math.min(Math.floor((seconds - curve.start_s) / curve.hop_s), curve.probabilities.length - 1);
  const window = curve.probabilities[Math.max(place, 0)];
  const order = window.map((_, genre) => genre).sort((one, other) => window[other] - window[one]);
  return order.slice(0, 3).map((genre) => `${curve.genres[genre]} ${window[genre].toFixed(2)}`).join(", ");
}

function move(seconds) {
  const now = Math.min(Math.max(seconds, 0), clip.seconds);
  const text = [`${now.toFixed(1)} s`, heard(now)].filter(Boolean).join(": ");
  head.style.left = `${(100 * now) / clip.seconds}%`;
  said.textContent = text;
  plot.setAttribute("aria-valuenow", now.toFixed(1));
  plot.setAttribute("aria-valuetext", text);
}

function seek(seconds) {
  const now = Math.min(Math.max(seconds, 0), clip.seconds);
  const player = audio();
  if (player) player.currentTime = now;
  move(now);
}

function seekTo(event) {
  const box = plot.getBoundingClientRect();
  seek(((event.clientX - box.left) / box.width) * clip.seconds);
}

function byKey(event) {
  const player = audio();
  const now = Number(plot.getAttribute("aria-valuenow"));
  const places = {
    ArrowLeft: now - 1, ArrowDown: now - 1, ArrowRight: now + 1, ArrowUp: now + 1,
    PageDown: now - 10, PageUp: now + 10, Home: 0, End: clip.seconds,
  };
  if (event.key in places) seek(places[event.key]);
  else if (event.key === " " && player) player.paused ? player.play() : player.pause();
  else return;
  event.preventDefault();
}

// The player is another component, which may be made again: its events are caught on their way down to it.
function follow(event) {
  if (!element.isConnected) {
    for (const name of followed) document.removeEventListener(name, follow, true);
  } else if (clip && event.target === audio()) {
    move(event.target.currentTime);
    if (event.type === "playing") frame();
  }
}

function frame() {
  const player = audio();
  if (!clip || !element.isConnected || !player || player.paused) return;
  move(player.currentTime);
  requestAnimationFrame(frame);
}

const followed = ["playing", "seeking", "timeupdate"];
for (const name of followed) document.addEventListener(name, follow, true);
watch("value", draw);
draw();
