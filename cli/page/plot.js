/* The script of the page that pagoda plot makes. The trace is in #data: columns of equal length, one entry a moment,
 * and rows of events [seconds, what, pages, tokens, words]. Charts are uPlot's. */
(function () {
  'use strict';
  const trace = JSON.parse(document.getElementById('data').textContent);
  const columns = trace.columns, run = trace.run, seconds = columns.t;
  const last = seconds.length - 1;
  const color = name => getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim();

  // ---- words ----

  const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  function bytes(n) {
    let unit = 0;
    while (n >= 1024 && unit < UNITS.length - 1) { n /= 1024; unit++; }
    return (unit === 0 || n >= 100 ? n.toFixed(0) : n.toPrecision(3)) + ' ' + UNITS[unit];
  }
  const number = n => (n >= 100 || Number.isInteger(n) ? Math.round(n).toLocaleString('en') : n.toPrecision(3));
  const time = s => (s >= 60 ? Math.floor(s / 60) + ':' + String(Math.floor(s % 60)).padStart(2, '0') : s.toFixed(2) + ' s');
  const words = name => name.replace(/_/g, ' ').replace(/\bkv\b/, 'KV');
  const most = list => list.reduce((a, b) => Math.max(a, b), 0);

  function element(parent, tag, text) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    parent.appendChild(made);
    return made;
  }

  // ---- the head ----

  function tellRun() {
    const model = run.model || {}, flags = run.flags || {};
    const title = document.getElementById('title');
    title.textContent = (model.name || 'a model') + ' in ' + bytes(columns.budget_bytes[last]);
    document.title = 'pagoda: ' + title.textContent;
    document.getElementById('about').textContent =
      'pagoda ' + run.command + (run.started ? ', ' + run.started.replace('T', ' ').replace('Z', ' UTC') : '') +
      '; when full: ' + flags.on_full + (flags.on_full === 'evict' ? ' by ' + flags.policy : '') +
      '; codec ' + flags.kv_codec + '.' +
      (trace.has_end ? '' : ' The trace does not say how the run ended: it went on, or was killed.');
    const list = document.getElementById('facts');
    const facts = [
      ['time', time(seconds[last])],
      ['tokens', number(columns.tokens.total[last])],
      ['KV peak', bytes(columns.peak_bytes[last])],
      ['of the budget', (100 * columns.peak_bytes[last] / columns.budget_bytes[last]).toFixed(1) + ' %'],
      ['in smaller pages', number(columns.tokens.quantized[last])],
      ['dropped', number(columns.tokens.dropped[last])],
      ['process, most', bytes(most(columns.rss_bytes))],
      ['weights', bytes(model.weights_bytes || 0)],
    ];
    for (const [name, value] of facts) {
      const card = element(list, 'div');
      element(card, 'dt', name);
      element(card, 'dd', value);
    }
    document.getElementById('foot').textContent =
      'pagoda ' + run.pagoda + '; ' + number(trace.lines) + ' moments' +
      (trace.lines > seconds.length ? ', of which ' + number(seconds.length) + ' are drawn' : '') +
      '; model file ' + (model.file || 'unknown') + '.';
  }

  // ---- events ----

  const KINDS = {'re-encoded': 'quantized', dropped: 'soft', spilled: 'spilled', collapsed: 'collapsed',
    budget: 'budget', refused: 'budget', pinned: 'exact', 'taken back': 'digests', end: 'ink'};
  const kindColor = what => color(KINDS[what] || 'soft');

  // Events of a kind that follow each other closely are one entry from first to last.
  function groupEvents() {
    const near = Math.max(0.5, seconds[last] / 50);
    const open = {}, groups = [];
    for (const [at, what, pages, tokens, text] of trace.events) {
      let group = open[what];
      if (!group || at - group.to > near) {
        group = open[what] = {what, from: at, to: at, times: 0, pages: 0, tokens: 0, text};
        groups.push(group);
      }
      group.to = at;
      group.times++;
      group.pages += pages;
      group.tokens += tokens;
    }
    return groups;
  }

  function eventWords(group) {
    if (group.times === 1) return group.text;
    const parts = [];
    if (group.pages) parts.push(number(group.pages) + ' pages');
    if (group.tokens) parts.push(number(group.tokens) + ' tokens');
    return group.times + ' times until ' + time(group.to) + (parts.length ? ': ' + parts.join(', ') : '');
  }

  const groups = groupEvents();

  function listEvents() {
    const table = document.getElementById('events');
    if (groups.length === 0) {
      document.getElementById('event_help').textContent = 'Nothing had to leave and nothing was made smaller.';
      return;
    }
    const head = element(element(table, 'thead'), 'tr');
    for (const name of ['when', 'what', '']) element(head, 'th', name);
    const body = element(table, 'tbody');
    for (const group of groups) {
      const row = element(body, 'tr');
      element(row, 'td', time(group.from));
      const what = element(row, 'td');
      what.className = 'what';
      element(what, 'i').style.background = kindColor(group.what);
      what.append(group.what);
      element(row, 'td', eventWords(group));
      row.tabIndex = 0;
      row.onclick = () => zoom(group);
      row.onkeydown = key => { if (key.key === 'Enter') zoom(group); };
    }
  }

  // ---- charts ----

  let charts = [];
  const all = document.getElementById('all');

  function zoom(group) {
    const margin = Math.max(seconds[last] / 20, 0.2);
    for (const chart of charts) {
      chart.setScale('x', {min: Math.max(0, group.from - margin), max: Math.min(seconds[last], group.to + margin)});
    }
    all.hidden = false;
    document.getElementById('memory').scrollIntoView({block: 'nearest'});
  }

  all.onclick = () => {
    for (const chart of charts) chart.setScale('x', {min: seconds[0], max: seconds[last]});
    all.hidden = true;
  };

  // Events as marks along the upper edge and faint bands below them.
  function markEvents(chart) {
    const {ctx, bbox} = chart, pixel = devicePixelRatio || 1;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    for (const group of groups) {
      const from = chart.valToPos(group.from, 'x', true);
      const width = Math.max(2 * pixel, chart.valToPos(group.to, 'x', true) - from);
      ctx.fillStyle = kindColor(group.what);
      ctx.globalAlpha = 0.12;
      ctx.fillRect(from, bbox.top, width, bbox.height);
      ctx.globalAlpha = 1;
      ctx.fillRect(from, bbox.top, width, 5 * pixel);
    }
    ctx.restore();
  }

  const POWERS = Array.from({length: 50}, (_, i) => Math.pow(2, i));

  function options(host, height, unit) {
    const axis = {stroke: color('soft'), grid: {stroke: color('grid'), width: 1}, ticks: {stroke: color('grid')},
      font: '12px system-ui, sans-serif'};
    return {
      width: host.clientWidth, height,
      scales: {x: {time: false}, y: {range: (_, low, high) => [0, Math.max(high * 1.06, 1)]}},
      axes: [
        {...axis, values: (_, at) => at.map(s => (s >= 60 && s % 1 === 0 ? time(s) : +s.toFixed(3) + ' s'))},
        {...axis, size: 72, incrs: unit === bytes ? POWERS : undefined, values: (_, at) => at.map(unit)},
      ],
      series: [{label: 'time', value: (_, s) => (s == null ? '' : time(s))}],
      cursor: {sync: {key: 'trace'}, drag: {x: true, y: false}, points: {size: 6}},
      hooks: {setScale: [(chart, key) => {
        if (key === 'x' && (chart.scales.x.min > seconds[0] || chart.scales.x.max < seconds[last])) all.hidden = false;
      }]},
    };
  }

  // The value under the cursor, or the last one that there is.
  function shown(column, unit) {
    const latest = column.findLast(value => value != null);
    return (_, value, series, index) => {
      const at = index == null ? latest : column[index];
      return at == null ? '' : unit(at);
    };
  }

  // Columns on top of each other, the first at the bottom; then lines. Columns that are always 0 are left out.
  function stacked(id, parts, lines, unit) {
    const host = document.getElementById(id), wanted = options(host, 300, unit), data = [seconds];
    const used = parts.filter(part => most(part.column) > 0);
    const sums = new Array(seconds.length).fill(0);
    const layers = used.map(part => {
      part.column.forEach((value, i) => { sums[i] += value; });
      return {...part, top: sums.slice()};
    });
    wanted.bands = [];
    layers.reverse().forEach((layer, i) => {
      const stroke = color(layer.color);
      wanted.series.push({label: layer.label, stroke, fill: stroke + 'b0', width: 1, points: {show: false},
        value: shown(layer.column, unit)});
      data.push(layer.top);
      if (i + 1 < layers.length) wanted.bands.push({series: [i + 1, i + 2], fill: stroke + 'b0'});
    });
    for (const line of lines) {
      wanted.series.push({label: line.label, stroke: color(line.color), width: 2, dash: line.dash, points: {show: false},
        value: shown(line.column, unit)});
      data.push(line.column);
    }
    wanted.hooks.draw = [markEvents];
    charts.push(new uPlot(wanted, data, host));
  }

  function single(id, label, column, unit) {
    const host = document.getElementById(id), wanted = options(host, 200, unit), stroke = color('line');
    wanted.series.push({label, stroke, fill: stroke + '22', width: 2, points: {show: seconds.length < 3},
      value: shown(column, unit)});
    charts.push(new uPlot(wanted, [seconds, column], host));
  }

  const CATEGORY_COLORS = {kv_exact: 'exact', kv_quantized: 'quantized'};

  function draw() {
    for (const chart of charts) chart.destroy();
    charts = [];
    const tokens = columns.tokens;
    stacked('memory', Object.keys(columns.bytes).map(name => (
      {label: words(name), column: columns.bytes[name], color: CATEGORY_COLORS[name] || name})), [
      {label: 'budget', column: columns.budget_bytes, color: 'budget'},
    ], bytes);
    stacked('tokens', [
      {label: 'exact', column: tokens.ram, color: 'exact'},
      {label: 'smaller pages', column: tokens.quantized, color: 'quantized'},
      {label: 'on flash, read', column: tokens.spilled.map((n, i) => n - tokens.unread[i]), color: 'spilled'},
      {label: 'on flash, not read', column: tokens.unread, color: 'unread'},
      {label: 'only a summary', column: tokens.collapsed, color: 'collapsed'},
      {label: 'dropped', column: tokens.dropped, color: 'dropped'},
    ], [{label: 'pinned', column: tokens.pinned, color: 'pinned', dash: [4, 4]}], number);
    const working = columns.tokens_per_second.map((speed, i) => (columns.batch_tokens[i] > 0 ? speed : null));
    single('speed', 'tokens per second', working, number);
    single('process', 'resident', columns.rss_bytes, bytes);
    single('available', 'available', columns.available_bytes, bytes);
  }

  tellRun();
  listEvents();
  draw();
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
    document.getElementById('events').textContent = '';
    listEvents();
    draw();
  });
  let width = document.getElementById('memory').clientWidth;
  addEventListener('resize', () => {
    const now = document.getElementById('memory').clientWidth;
    if (now !== width) {
      width = now;
      for (const chart of charts) chart.setSize({width, height: chart.height});
    }
  });
})();
