'use strict';
// Everything that is shown comes out of the data as text nodes and attributes; nothing is ever parsed as HTML.
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const byName = (list) => new Map(list.map((one) => [one.name, one]));
  const tags = byName(data.tags), streams = byName(data.streams), views = byName(data.views);
  const folders = new Map(data.folders.map((folder) => [folder.path, folder]));
  const SVG = 'http://www.w3.org/2000/svg';

  // --- building elements -------------------------------------------------------------------------------------------
  const put = (element, attributes, children) => {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? '' : value);
    }
    for (const child of [children].flat(Infinity)) {
      if (child !== null && child !== undefined && child !== false && child !== '') {
        element.append(child instanceof Node ? child : document.createTextNode(String(child)));
      }
    }
    return element;
  };
  const el = (name, attributes, ...children) => put(document.createElement(name), attributes, children);
  const svg = (name, attributes, ...children) => put(document.createElementNS(SVG, name), attributes, children);
  const address = (kind, name) => '#' + kind + '/' + encodeURIComponent(name);
  const link = (kind, name, ...shown) => el('a', { href: address(kind, name) }, shown.length ? shown : name);
  // What a query names: a stream, a view, or tags.NAME.
  const place = (read) => read.startsWith('tags.') ? ['tag', read.slice(5)] : [views.has(read) ? 'view' : 'stream', read];
  const commas = (parts) => parts.flatMap((part, at) => at ? [', ', part] : [part]);
  const many = (list, noun) => `${list.length} ${noun}${list.length === 1 ? '' : 's'}`;
  const part = (title, ...content) => [el('h2', { class: 'part' }, title), ...content];
  const facts = (pairs) => el('dl', { class: 'facts' }, pairs
    .filter(([, value]) => value !== null && value !== undefined && value !== '' && [value].flat().length)
    .map(([name, value]) => [el('dt', {}, name), el('dd', {}, value)]));
  const table = (heads, rows) => el('div', { class: 'wide', tabindex: '0' }, el('table', {},
    el('thead', {}, el('tr', {}, heads.map((head) => el('th', { scope: 'col' }, head)))),
    el('tbody', {}, rows)));

  // --- SQL ---------------------------------------------------------------------------------------------------------
  const WORDS = new Set(('all and any as asc between by case cast cross current_date current_timestamp day desc distinct else end ' +
    'except exists filter first from full group having hour in inner intersect interval is join last lateral left like limit ' +
    'minute month not now null nulls offset on or order outer over partition right second select table then union unnest using ' +
    'values when where with year').split(' '));
  const SQL = /(\/\*[\s\S]*?(?:\*\/|$)|--[^\n]*)|('(?:[^']|'')*'?)|("(?:[^"]|"")*"?)|(\b\d+(?:\.\d+)?\b)|([A-Za-z_][A-Za-z0-9_]*)/g;
  const code = (text) => {
    const pre = el('pre', { tabindex: '0' });
    let from = 0;
    for (const found of text.matchAll(SQL)) {
      const word = found[5];
      const isCall = word && /^\s*\(/.test(text.slice(found.index + word.length, found.index + word.length + 3));
      const kind = found[1] ? 'c' : found[2] ? 's' : found[4] ? 'n' : word && WORDS.has(word.toLowerCase()) ? 'k' : isCall ? 'f' : '';
      if (!kind) continue;
      pre.append(text.slice(from, found.index), el('span', { class: kind }, found[0]));
      from = found.index + found[0].length;
    }
    pre.append(text.slice(from));
    return pre;
  };

  // --- lineage: cards of columns from left to right, and a line for each column that another is made of -------------
  const ROW = 22, HEAD = 26, GAP = 18, BETWEEN = 110;
  const short = (text, most) => text.length > most ? text.slice(0, most - 1) + '…' : text;
  const graph = (layers, edges) => {
    const ports = new Map(), parts = [], lines = [];
    let x = 1, height = 0;
    for (const cards of layers) {
      const texts = cards.flatMap((card) => [card.title, ...card.rows]);
      const width = Math.min(34, Math.max(10, ...texts.map((text) => text.length))) * 8 + 24;
      let y = 1;
      for (const card of cards) {
        const tall = HEAD + card.rows.length * ROW + 4;
        ports.set(card.id, [x, x + width, y + HEAD / 2]);
        parts.push(svg('rect', { x, y, width, height: tall, rx: 6 }), svg('rect', { class: 'head', x, y, width, height: HEAD, rx: 6 }),
          svg('a', { href: card.href }, svg('title', {}, card.title),
            svg('text', { class: 'title', x: x + 10, y: y + 17 }, short(card.title, 34))));
        card.rows.forEach((row, at) => {
          const middle = y + HEAD + at * ROW + ROW / 2;
          ports.set(card.id + '.' + row, [x, x + width, middle]);
          parts.push(svg('text', { class: 'row', 'data-port': card.id + '.' + row, x: x + 10, y: middle + 5 }, svg('title', {}, row), short(row, 34)));
        });
        y += tall + GAP;
      }
      height = Math.max(height, y);
      x += width + BETWEEN;
    }
    for (const { from, to, weak } of edges) {
      const a = ports.get(from), b = ports.get(to);
      if (!a || !b) continue;
      const half = (a[1] + b[0]) / 2;
      lines.push(svg('path', { class: weak ? 'weak' : null, 'data-from': from, 'data-to': to,
        d: `M${a[1]},${a[2]} C${half},${a[2]} ${half},${b[2]} ${b[0]},${b[2]}` }));
    }
    const width = x - BETWEEN + 2;
    const drawing = svg('svg', { width, height, viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': 'lineage by column' }, lines, parts);
    const light = (port) => {
      const lit = lines.filter((line) => port && (line.dataset.from === port || line.dataset.to === port));
      lines.forEach((line) => line.classList.toggle('lit', lit.includes(line)));
      const ends = new Set(lit.flatMap((line) => [line.dataset.from, line.dataset.to]));
      drawing.querySelectorAll('text.row').forEach((text) => text.classList.toggle('lit', ends.has(text.dataset.port)));
    };
    drawing.addEventListener('pointerover', (event) => light(event.target.closest('text.row')?.dataset.port));
    drawing.addEventListener('pointerleave', () => light(null));
    return el('div', { class: 'graph', tabindex: '0' }, drawing);
  };
  const readersOf = (name) => data.tags.filter((tag) => tag.reads.includes(name));
  const viewsOf = (name) => data.views.filter((view) => view.reads.includes(name));
  // `stream.column`; streams have no dots in their names, and columns may.
  const cut = (origin) => { const at = origin.indexOf('.'); return [origin.slice(0, at), origin.slice(at + 1)]; };
  const tagGraph = (tag) => {
    const used = new Map();
    for (const origin of [...tag.columns.flatMap((column) => column.made_of), ...tag.decided_by]) {
      const [stream, column] = cut(origin);
      used.set(stream, (used.get(stream) || new Set()).add(column));
    }
    const sources = [...used].map(([stream, columns]) =>
      ({ id: 's:' + stream, title: stream, href: address('stream', stream), rows: [...columns].sort() }));
    const own = { id: 't', title: tag.name, href: address('tag', tag.name), rows: tag.columns.map((column) => column.name) };
    const readers = readersOf('tags.' + tag.name).map((reader) =>
      ({ id: 'r:' + reader.name, title: reader.name, href: address('tag', reader.name), rows: [] }));
    const edges = [
      ...tag.columns.flatMap((column) => column.made_of.map((origin) => ({ from: 's:' + origin, to: 't.' + column.name }))),
      ...tag.decided_by.map((origin) => ({ from: 's:' + origin, to: 't', weak: true })),
      ...readers.map((reader) => ({ from: 't', to: reader.id })),
    ];
    return graph([sources, [own], readers].filter((layer) => layer.length), edges);
  };

  // --- pages -------------------------------------------------------------------------------------------------------
  const tagPage = (tag) => {
    const labels = (column) => Object.entries(column.labels).map(([value, shown]) => `${value} = ${shown}`).join(', ');
    const entity = data.entities.find((one) => one.name === tag.entity);
    const freshness = tag.freshness;
    return [
      el('h1', {}, tag.title || tag.name),
      el('p', { class: 'name' }, tag.name, ' ', el('span', { class: 'badge' }, tag.status)),
      tag.description && el('p', { class: 'lead' }, tag.description),
      tag.problems.map((problem) => el('p', { class: 'problem' }, problem)),
      facts([
        ['owner', tag.owner], ['describes', entity && entity.title ? `${tag.entity} (${entity.title})` : tag.entity],
        ['method', tag.method], ['reads', commas(tag.reads.map((read) => link(...place(read), read)))],
        ['read by', commas(readersOf('tags.' + tag.name).map((reader) => link('tag', reader.name)))],
        ['true up to', freshness && `${freshness.true_at}, ${freshness.behind} before this page was made`], ['rows', freshness && freshness.rows.toLocaleString('en')],
        ['complete from', freshness && freshness.complete_from], ['file', el('code', {}, tag.file)],
      ]),
      tag.columns.length ? part('Columns', table(['column', 'type', 'title', 'unit', 'default', 'labels', 'made of'], tag.columns.map((column) =>
        el('tr', {}, el('td', { class: 'code' }, column.name, column.is_key && [' ', el('span', { class: 'badge' }, 'key')]),
          el('td', { class: 'code' }, column.sql_type), el('td', {}, column.title), el('td', {}, column.unit), el('td', {}, column.default),
          el('td', {}, labels(column)), el('td', { class: 'code' }, commas(column.made_of.map((origin) => link('stream', cut(origin)[0], origin)))))))) : null,
      tag.columns.length ? part('Lineage', tagGraph(tag), tag.decided_by.length ? el('p', { class: 'note' },
        'Dashed: columns that only decide which rows there are.') : null) : null,
      tag.sample && tag.sample.length ? part('Sample', table(tag.columns.map((column) => column.name), tag.sample.map((row) =>
        el('tr', {}, row.map((value) => el('td', { class: value === null ? 'null' : 'code' }, value === null ? 'NULL' : value)))))) : null,
      part('SQL', code(tag.sql)),
    ];
  };
  const streamPage = (stream) => {
    const users = (column) => data.tags.filter((tag) => [...tag.columns.flatMap((one) => one.made_of), ...tag.decided_by].includes(`${stream.name}.${column}`));
    return [
      el('h1', {}, stream.title || stream.name),
      el('p', { class: 'name' }, stream.name, ' ', el('span', { class: 'badge' }, stream.kind)),
      facts([
        ['comes from', `${stream.connection}: ${stream.topic}`], ['key', stream.key.join(', ')],
        ['event time', stream.time && `${stream.time}, up to ${stream.lateness} late`],
        ['read by', commas([...viewsOf(stream.name).map((view) => link('view', view.name)), ...readersOf(stream.name).map((tag) => link('tag', tag.name))])],
        ['file', el('code', {}, stream.file)],
      ]),
      part('Columns', table(['column', 'type', 'may be NULL', 'in the record', 'in tags'], stream.columns.map((column) =>
        el('tr', {}, el('td', { class: 'code' }, column.name), el('td', { class: 'code' }, column.sql_type), el('td', {}, column.nullable ? 'yes' : 'no'),
          el('td', { class: 'code' }, column.path), el('td', {}, commas(users(column.name).map((tag) => link('tag', tag.name)))))))),
    ];
  };
  const viewPage = (view) => [
    el('h1', {}, view.title || view.name),
    el('p', { class: 'name' }, view.name, ' ', el('span', { class: 'badge' }, 'view')),
    facts([['reads', commas(view.reads.map((read) => link(...place(read), read)))],
      ['read by', commas([...viewsOf(view.name).map((one) => link('view', one.name)), ...readersOf(view.name).map((tag) => link('tag', tag.name))])],
      ['file', el('code', {}, view.file)]]),
    part('SQL', code(view.sql)),
  ];
  const card = (tag) => el('li', {}, el('a', { href: address('tag', tag.name) }, el('b', {}, tag.title || tag.name),
    el('small', {}, tag.name), tag.description && el('div', { class: 'note' }, tag.description)));
  const overview = () => [
    el('h1', {}, data.name),
    el('p', { class: 'lead' }, `${many(data.tags, 'tag')} over ${many(data.streams, 'stream')} and ${many(data.views, 'view')}.`),
    facts([['describes', data.entities.map((entity) => entity.title ? `${entity.name} (${entity.title})` : entity.name).join(', ')],
      ['time zone', data.timezone], ['made', data.made]]),
    el('p', { class: 'note' }, data.store + '.'),
    part('Tags', el('ul', { class: 'cards' }, ordered(data.tags).map(card))),
  ];
  const searchPage = (wanted) => {
    const words = wanted.toLowerCase().split(/\s+/).filter(Boolean);
    const weight = (tag) => {
      const name = `${tag.name} ${tag.title || ''}`.toLowerCase();
      const more = [tag.description, tag.owner, tag.entity, tag.folder.join(' '), ...tag.columns.flatMap((column) => [column.name, column.title]), ...tag.reads, tag.sql].join(' ').toLowerCase();
      if (!words.every((word) => name.includes(word) || more.includes(word))) return 0;
      return 1 + words.filter((word) => name.includes(word)).length;
    };
    const found = data.tags.map((tag) => [weight(tag), tag]).filter(([value]) => value).sort(([a, x], [b, y]) => b - a || x.name.localeCompare(y.name));
    const has = (one) => words.every((word) => `${one.name} ${one.title || ''}`.toLowerCase().includes(word));
    const others = [...data.streams.filter(has).map((stream) => ['stream', stream]), ...data.views.filter(has).map((view) => ['view', view])];
    return [el('h1', {}, 'Search'), el('p', { class: 'note', role: 'status' }, `${found.length} of ${data.tags.length} tags have "${wanted}".`),
      el('ul', { class: 'cards' }, found.map(([, tag]) => card(tag))),
      others.length ? part('Streams and views', el('ul', {}, others.map(([kind, one]) => el('li', {}, link(kind, one.name))))) : null];
  };

  // --- the tree ----------------------------------------------------------------------------------------------------
  const rank = (path) => { const folder = folders.get(path.join('/')); return folder && folder.order !== null ? folder.order : Infinity; };
  const compare = (a, b) => {
    for (let depth = 0; depth < Math.max(a.folder.length, b.folder.length); depth++) {
      if (a.folder[depth] === b.folder[depth]) continue;
      if (a.folder[depth] === undefined) return -1;
      if (b.folder[depth] === undefined) return 1;
      const by = rank(a.folder.slice(0, depth + 1)) - rank(b.folder.slice(0, depth + 1));
      return by && !Number.isNaN(by) ? by : a.folder[depth].localeCompare(b.folder[depth]);
    }
    return a.name.localeCompare(b.name);
  };
  const ordered = (list) => [...list].sort(compare);
  const branch = (list, depth) => {
    const items = [];
    for (let at = 0; at < list.length;) {
      const name = list[at].folder[depth];
      if (name === undefined) {
        items.push(el('li', {}, link('tag', list[at].name, list[at].title || list[at].name)));
        at++;
        continue;
      }
      let end = at;
      while (end < list.length && list[end].folder[depth] === name) end++;
      const folder = folders.get(list[at].folder.slice(0, depth + 1).join('/'));
      items.push(el('li', {}, el('div', { class: 'branch', title: folder && folder.owner ? 'owner: ' + folder.owner : null }, folder && folder.title ? folder.title : name),
        branch(list.slice(at, end), depth + 1)));
      at = end;
    }
    return el('ul', {}, items);
  };
  const plain = (kind, list) => el('ul', {}, list.map((one) => el('li', {}, link(kind, one.name))));

  // --- where one is ------------------------------------------------------------------------------------------------
  const head = document.getElementById('head'), tree = document.getElementById('tree'), main = document.getElementById('main');
  const search = el('input', { type: 'search', placeholder: 'search tags, columns, owners, SQL', 'aria-label': 'search', autocomplete: 'off', spellcheck: 'false' });
  head.append(el('a', { class: 'home', href: '#' }, data.name), search);
  for (const entity of data.entities) {
    const own = ordered(data.tags.filter((tag) => tag.entity === entity.name));
    if (own.length) tree.append(el('h2', {}, entity.title || entity.name), branch(own, 0));
  }
  if (data.streams.length) tree.append(el('h2', {}, 'Streams'), plain('stream', data.streams));
  if (data.views.length) tree.append(el('h2', {}, 'Views'), plain('view', data.views));

  const show = () => {
    const [kind, ...rest] = location.hash.slice(1).split('/');
    let name = rest.join('/');
    try { name = decodeURIComponent(name); } catch { /* It is shown as it is. */ }
    const pages = { tag: [tags, tagPage], stream: [streams, streamPage], view: [views, viewPage] };
    const known = Object.hasOwn(pages, kind) ? pages[kind] : null;
    let content;
    if (kind === 'search') content = searchPage(name);
    else if (known && known[0].has(name)) content = known[1](known[0].get(name));
    else if (kind === 'main') return;
    else content = kind ? [el('h1', {}, 'Not here'), el('p', {}, `The catalogue has no ${kind} "${name}".`)] : overview();
    main.replaceChildren();
    put(main, {}, content);
    document.title = kind && name ? `${name} · ${data.name}` : data.name;
    tree.querySelectorAll('a').forEach((one) => {
      if (one.getAttribute('href') === location.hash) one.setAttribute('aria-current', 'page');
      else one.removeAttribute('aria-current');
    });
    if (kind !== 'search') { search.value = ''; scrollTo(0, 0); }
  };
  search.addEventListener('input', () => {
    history.replaceState(null, '', search.value.trim() ? address('search', search.value.trim()) : '#');
    show();
  });
  addEventListener('keydown', (event) => {
    if (event.key === '/' && !/input|textarea/i.test(event.target.tagName)) { event.preventDefault(); search.focus(); }
  });
  addEventListener('hashchange', show);
  show();
})();
