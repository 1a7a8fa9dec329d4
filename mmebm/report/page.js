'use strict';
const data = JSON.parse(document.getElementById('data').textContent);
const COLORS = 8;

// ---- elements

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function draw(parent, name, attributes, text) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

function short(value) {
  if (value === 0) return '0';
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e7) return String(value);
  return size >= 1e5 || size < 1e-3 ? value.toExponential(1) : String(Number(value.toPrecision(4)));
}

// ---- scales: from values to pixels

function ticks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) found.push(Math.abs(at) < step / 1e6 ? 0 : at);
  return found;
}

function scale(values, start, end, isLog) {
  let low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
  if (isLog) { low = Math.log10(low); high = Math.log10(high); }
  if (high - low < 1e-9 * Math.max(1, Math.abs(low))) { low -= 0.5; high += 0.5; }
  if (!isLog) { const margin = (high - low) * 0.04; low -= margin; high += margin; }
  const at = (value) => start + (end - start) * ((isLog ? Math.log10(value) : value) - low) / (high - low);
  const marks = ticks(low, high, 4).map((mark) => (isLog ? 10 ** mark : mark));
  return { at, marks, invert: (pixel) => low + (high - low) * (pixel - start) / (end - start) };
}

const BOX = { width: 380, height: 210, left: 50, right: 8, top: 8, bottom: 34 };

function frame(svg, x, y, label) {
  for (const mark of y.marks) {
    draw(svg, 'line', { x1: BOX.left, x2: BOX.width - BOX.right, y1: y.at(mark), y2: y.at(mark), class: 'grid' });
    draw(svg, 'text', { x: BOX.left - 5, y: y.at(mark) + 4, 'text-anchor': 'end' }, short(mark));
  }
  for (const mark of x.marks) draw(svg, 'text', { x: x.at(mark), y: BOX.height - 20, 'text-anchor': 'middle' }, short(mark));
  draw(svg, 'text', { x: BOX.width - BOX.right, y: BOX.height - 4, 'text-anchor': 'end' }, label);
}

// ---- curves

function chart(spec) {
  const isLog = spec.log && spec.series.every((line) => line.points.every((point) => point[1] > 0));
  const names = [...new Set(spec.series.map((line) => line.color))];
  const colorOf = (line) => `var(--c${names.indexOf(line.color) % COLORS})`;
  const hidden = new Set();
  const plot = make('div'), legend = make('div', { class: 'legend' }), readout = make('div', { class: 'readout' });
  const unit = [spec.unit, isLog ? 'log scale' : ''].filter(Boolean).join(', ');
  const figure = make('figure', {}, make('figcaption', {}, spec.title + (unit ? ` (${unit})` : '')), plot, readout, legend);
  if (spec.note) figure.append(make('div', { class: 'readout' }, spec.note));

  function redraw() {
    const shown = spec.series.filter((line) => !hidden.has(line));
    const points = shown.flatMap((line) => line.points);
    const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
    svg.setAttribute('viewBox', `0 0 ${BOX.width} ${BOX.height}`);
    plot.replaceChildren(svg);
    if (!points.length) return;
    const x = scale(points.map((point) => point[0]), BOX.left, BOX.width - BOX.right);
    const y = scale(points.map((point) => point[1]), BOX.height - BOX.bottom, BOX.top, isLog);
    frame(svg, x, y, spec.axis);
    for (const line of shown) {
      const style = { fill: 'none', stroke: colorOf(line), 'stroke-width': 1.8 };
      if (line.dashed) style['stroke-dasharray'] = '4 4';
      if (line.points.length === 1) {
        draw(svg, 'circle', { cx: x.at(line.points[0][0]), cy: y.at(line.points[0][1]), r: 3, fill: colorOf(line) });
      }
      draw(svg, 'polyline', { points: line.points.map((point) => `${x.at(point[0])},${y.at(point[1])}`).join(' '), ...style });
    }
    const cursor = draw(svg, 'line', { y1: BOX.top, y2: BOX.height - BOX.bottom, class: 'grid', visibility: 'hidden' });
    svg.addEventListener('pointermove', (event) => {
      const box = svg.getBoundingClientRect();
      const step = x.invert((event.clientX - box.left) * BOX.width / box.width);
      const nearest = (line) => line.points.reduce((a, b) => (Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a));
      const at = nearest(shown[0])[0];
      cursor.setAttribute('x1', x.at(at));
      cursor.setAttribute('x2', x.at(at));
      cursor.setAttribute('visibility', 'visible');
      const words = shown.map((line) => `${line.label}${line.dashed ? ' before' : ''} ${short(nearest(line)[1])}`);
      readout.textContent = `${spec.axis} ${short(at)}: ${words.join(', ')}`;
    });
    svg.addEventListener('pointerleave', () => { cursor.setAttribute('visibility', 'hidden'); readout.textContent = ''; });
  }

  for (const label of names) {
    const lines = spec.series.filter((line) => line.color === label);
    const swatch = make('span', { class: 'swatch', style: `background:${colorOf(lines[0])}` });
    const button = make('button', { type: 'button', 'aria-pressed': 'true' }, swatch, label);
    button.addEventListener('click', () => {
      const isShown = !hidden.has(lines[0]);
      for (const line of lines) isShown ? hidden.add(line) : hidden.delete(line);
      button.setAttribute('aria-pressed', String(!isShown));
      redraw();
    });
    legend.append(button);
  }
  redraw();
  return figure;
}

for (const section of ['progress', 'training', 'speed']) {
  const place = document.querySelector(`#${section} .charts`);
  const specs = data.charts.filter((spec) => spec.section === section);
  place.append(...specs.map(chart));
  if (!specs.length) place.append(make('p', { class: 'note' }, 'Nothing was logged.'));
}

// ---- gallery

function gallery() {
  const place = document.getElementById('gallery'), choice = document.getElementById('corruption');
  const time = document.getElementById('time'), split = document.getElementById('split');
  const names = [...new Set(data.galleries.map((shown) => shown.corruption))];
  if (!names.length) {
    document.querySelector('#restorations .controls').remove();
    place.append(make('p', { class: 'note' }, 'No pictures: see what the run lacks, under Summary.'));
    return;
  }
  choice.append(...names.map((name) => make('option', { value: name }, name)));
  const moveTo = (percent) => { split.value = percent; place.style.setProperty('--split', `${percent}%`); };
  const uri = (uris, share) => uris[Math.round(share * (uris.length - 1))];

  function picture(name, source) {
    return make('div', {}, make('img', { src: source, alt: name }), name);
  }

  function compare(image, share) {
    const box = make('div', { class: 'compare' },
      make('img', { src: uri(image.restored, share), alt: 'restored' }),
      make('img', { src: uri(image.corrupted, share), alt: 'corrupted', class: 'over' }));
    const follow = (event) => {
      if (event.pointerType === 'mouse' && !event.buttons) return;
      const bounds = box.getBoundingClientRect();
      moveTo(Math.max(0, Math.min(100, 100 * (event.clientX - bounds.left) / bounds.width)));
    };
    box.addEventListener('pointerdown', follow);
    box.addEventListener('pointermove', follow);
    box.addEventListener('dragstart', (event) => event.preventDefault());
    return box;
  }

  function redraw() {
    const shown = data.galleries.filter((one) => one.corruption === choice.value);
    time.max = Math.max(...shown.map((one) => one.steps.length)) - 1;
    const share = time.max > 0 ? time.value / time.max : 1;
    document.getElementById('time-at').textContent = shown.map((one) => `${uri(one.steps, share)}`).join(' / ') + ` ${shown[0].unit}s`;
    place.replaceChildren(...shown.flatMap((one) => [
      make('h3', {}, `${one.run}, after ${uri(one.steps, share)} ${one.unit}s; ${one.source}`),
      make('div', { class: 'images' }, ...one.images.map((image) => {
        const isPair = image.restored && image.corrupted;
        const others = Object.keys(image).filter((name) => !isPair || !['restored', 'corrupted'].includes(name));
        return make('div', { class: 'pictures' }, ...(isPair ? [compare(image, share)] : []),
          ...others.map((name) => picture(name, uri(image[name], share))));
      })),
    ]));
  }

  choice.addEventListener('change', redraw);
  time.addEventListener('input', redraw);
  split.addEventListener('input', () => moveTo(split.value));
  redraw();
  time.value = time.max;
  redraw();
}
gallery();

// ---- energies

function histogram(one) {
  const all = one.steps.flatMap((step) => [...step.clean, ...step.corrupted]);
  const low = all.reduce((a, b) => Math.min(a, b)), high = all.reduce((a, b) => Math.max(a, b));
  const plot = make('div'), readout = make('div', { class: 'readout' });
  const time = make('input', { type: 'range', min: 0, max: one.steps.length - 1, value: one.steps.length - 1, 'aria-label': 'time' });
  const threshold = make('input', { type: 'range', min: 0, max: 1000, value: 500, 'aria-label': 'threshold' });
  const BINS = 40, width = (high - low || 1) / BINS;
  const countsOf = (values) => {
    const counts = new Array(BINS).fill(0);
    for (const value of values) counts[Math.min(BINS - 1, Math.floor((value - low) / width))] += 1 / values.length;
    return counts;
  };
  const share = (values, limit) => values.filter((value) => value > limit).length / values.length;
  function auroc(step) {
    let wins = 0;
    for (const b of step.corrupted) for (const a of step.clean) wins += b > a ? 1 : b === a ? 0.5 : 0;
    return wins / (step.clean.length * step.corrupted.length);
  }
  // The threshold at which the share of images told right, half of them clean, is largest.
  function best(step) {
    const right = (limit) => share(step.corrupted, limit) + 1 - share(step.clean, limit);
    return [...step.clean, ...step.corrupted].reduce((a, b) => (right(b) > right(a) ? b : a));
  }
  function redraw() {
    const step = one.steps[time.value], limit = low + (high - low) * threshold.value / 1000;
    const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
    svg.setAttribute('viewBox', `0 0 ${BOX.width} ${BOX.height}`);
    plot.replaceChildren(svg);
    const bars = { clean: countsOf(step.clean), corrupted: countsOf(step.corrupted) };
    const x = scale([low, high], BOX.left, BOX.width - BOX.right);
    const y = scale([0, ...bars.clean, ...bars.corrupted], BOX.height - BOX.bottom, BOX.top);
    frame(svg, x, y, 'energy');
    for (const [index, counts] of Object.values(bars).entries()) {
      counts.forEach((count, bin) => {
        if (!count) return;
        const left = x.at(low + bin * width);
        draw(svg, 'rect', { x: left, width: x.at(low + (bin + 1) * width) - left, y: y.at(count), height: y.at(0) - y.at(count), fill: `var(--c${index})`, opacity: 0.6 });
      });
    }
    draw(svg, 'line', { x1: x.at(limit), x2: x.at(limit), y1: BOX.top, y2: BOX.height - BOX.bottom, stroke: 'var(--ink)', 'stroke-width': 1.5 });
    readout.textContent = `After ${step.step} ${step.unit}s, AUROC ${auroc(step).toFixed(3)}. Threshold ${short(limit)}: ` +
      `${(100 * share(step.corrupted, limit)).toFixed(0)}% of the corrupted images are above it, and ` +
      `${(100 * share(step.clean, limit)).toFixed(0)}% of the clean ones, of ${step.clean.length} each.`;
  }
  const setBest = () => { threshold.value = high > low ? 1000 * (best(one.steps[time.value]) - low) / (high - low) : 500; redraw(); };
  time.addEventListener('input', redraw);
  threshold.addEventListener('input', redraw);
  setBest();
  const swatch = (index, name) => make('span', {}, make('span', { class: 'swatch', style: `background:var(--c${index})` }), name);
  return make('figure', {}, make('figcaption', {}, `${one.run}: ${one.corruption}`), plot,
    make('div', { class: 'legend' }, swatch(0, 'clean'), swatch(1, 'corrupted')),
    make('label', {}, 'Threshold', threshold), make('label', {}, 'Time', time), readout);
}

const histograms = document.getElementById('histograms');
histograms.append(...data.energies.map(histogram));
if (!data.energies.length) histograms.append(make('p', { class: 'note' }, 'No energies: see what the run lacks, under Summary.'));

// ---- light and dark

const prefersDark = matchMedia('(prefers-color-scheme: dark)');
const setDark = (isDark) => document.documentElement.classList.toggle('dark', isDark);
setDark(prefersDark.matches);
prefersDark.addEventListener('change', (event) => setDark(event.matches));
document.getElementById('theme').addEventListener('click', () => setDark(!document.documentElement.classList.contains('dark')));
