// A table that owns its rows: reset once, then patched by the server. Everything a person does with it (search, filter,
// sort, select) happens here, without a round trip.
const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
const LIMIT = 600, LONG = 100;

export default {
  props: {
    columns: Array, label: String, searchable: Boolean, filters: Array, verbs: Array,
    empty: Object, sort: String, descending: Boolean, armed: Boolean, chosen: String, remote: Boolean, searchId: String,
  },
  template: `
  <div class="card table-card">
    <div v-if="searchable && (rows.size || !loaded || query)" class="tools">
      <input class="input search" type="search" :aria-label="'Search ' + label" placeholder="Search" :data-testid="searchId || null" v-model="query">
      <div v-if="filters.length" class="filters" role="group" :aria-label="'Filter ' + label">
        <button v-for="f in shownFilters" :key="f.value" type="button" :aria-pressed="String(filter === f.value)" @click="filter = f.value">
          {{ f.label }} {{ f.count }}</button>
      </div>
      <span class="count" :class="{ 'with-filters': filters.length }" aria-live="polite">{{ countText }}</span>
    </div>
    <div v-if="verbs.length && (selected.size || (armed && rows.size))" class="bulk" role="group" aria-label="Actions on the selected">
      <span aria-live="polite">{{ selected.size ? selected.size + ' selected' : 'Select machines first' }}</span>
      <button v-for="v in verbs" :key="v.verb" type="button" class="button small" :class="{ danger: v.danger }"
        :data-testid="'vm-action-' + v.verb" :disabled="!able(v.verb).length"
        @click="$emit('act', { verb: v.verb, names: able(v.verb) })">{{ v.label }} {{ able(v.verb).length || '' }}</button>
      <button v-if="selected.size" type="button" class="button small" @click="clearSelection">Clear</button>
    </div>
    <table class="live" role="table" :class="{ picking: verbs.length, long: shown.length > long }" :aria-label="label" :aria-busy="String(!loaded)">
      <thead v-if="rows.size || !loaded" role="rowgroup"><tr role="row">
        <th v-if="verbs.length" class="check" role="columnheader"><input type="checkbox" aria-label="Select all that are shown"
          :checked="allSelected" :indeterminate="selected.size > 0 && !allSelected" @change="selectAll($event.target.checked)"></th>
        <th v-for="(c, i) in columns" :key="c.key" :class="placed[i].slice(1)" role="columnheader" :aria-sort="sortKey === c.key ? (down ? 'descending' : 'ascending') : null" scope="col">
          <button v-if="c.sortable" type="button" @click="sortBy(c.key)">{{ c.label }}<span aria-hidden="true">{{ sortKey === c.key ? (down ? '↓' : '↑') : '' }}</span></button>
          <template v-else>{{ c.label }}</template>
        </th>
      </tr></thead>
      <tbody v-if="!loaded" class="skeleton" role="rowgroup" aria-hidden="true">
        <tr v-for="n in 6" :key="n" role="row"><td v-if="verbs.length" class="check" role="cell"></td><td v-for="(c, i) in columns" :key="c.key" role="cell" :class="placed[i]"><span :style="{ width: 40 + (n * 17 % 45) + '%' }"></span></td></tr>
      </tbody>
      <tbody v-else role="rowgroup">
        <tr v-for="row in shown" :key="row.id" role="row" v-memo="[row, selected.has(row.id), flashes[row.id], row.ticks ? now : 0]"
          :class="[flashes[row.id] ? (flashes[row.id] % 2 ? 'flash-a' : 'flash-b') : '', { selected: selected.has(row.id) }]" :data-testid="row.testid" :data-status="row.status">
          <td v-if="verbs.length" class="check" role="cell"><input type="checkbox" :aria-label="'Select ' + row.name" :checked="selected.has(row.id)" @click="pick(row.id, $event)"></td>
          <td v-for="(c, i) in columns" :key="c.key" role="cell" :class="placed[i]" :data-label="c.label">
            <template v-if="c.kind === 'link'">
              <a v-if="row[c.key].href" :href="row[c.key].href">{{ row[c.key].text }}</a><template v-else>{{ row[c.key].text }}</template>
              <span v-if="row[c.key].sub" class="cell-sub">{{ row[c.key].sub }}</span></template>
            <template v-else-if="c.kind === 'chip'">
              <span class="chips"><span class="chip" :class="row[c.key].tone">{{ row[c.key].text }}</span>
              <span v-for="n in row[c.key].notes || []" :key="n.text" class="chip note-chip" :class="n.tone" :title="n.title">{{ n.text }}</span></span>
              <span v-if="row[c.key].sub" class="cell-sub reason" :title="row[c.key].sub">{{ row[c.key].sub }}</span></template>
            <template v-else-if="c.kind === 'person'">
              <span v-if="row[c.key]" class="person"><span class="avatar" aria-hidden="true">{{ row[c.key][0] }}</span><span :title="row[c.key]">{{ row[c.key] }}</span></span>
              <span v-else class="muted">unclaimed</span></template>
            <template v-else-if="c.kind === 'bar'">
              <span v-if="row[c.key] == null" class="muted">–</span>
              <span v-else class="meter"><span class="track" aria-hidden="true"><span class="fill" :class="{ hot: row[c.key] >= 90 }" :style="{ width: row[c.key] + '%' }"></span></span>{{ Math.round(row[c.key]) }} %</span></template>
            <template v-else-if="c.kind === 'progress'">
              <span class="meter"><span class="track" aria-hidden="true"><span class="fill" :class="row[c.key].tone" :style="{ width: row[c.key].percent + '%' }"></span></span>{{ row[c.key].text }}</span></template>
            <template v-else-if="c.kind === 'ago'"><time v-if="row[c.key]" :datetime="row[c.key]" :title="words.full(row[c.key])">{{ words.ago(row[c.key], now) }}</time><span v-else class="muted">–</span></template>
            <template v-else-if="c.kind === 'when'"><time :datetime="row[c.key]" :title="words.full(row[c.key])">{{ words.clock(row[c.key]) }}</time></template>
            <template v-else><span :class="{ muted: !row[c.key] }">{{ row[c.key] || '–' }}</span></template>
          </td>
        </tr>
      </tbody>
    </table>
    <div v-if="loaded && !rows.size && !query" class="empty"><span class="title">{{ empty.title }}</span><span>{{ empty.text }}</span>
      <a v-if="empty.href" class="button" :href="empty.href">{{ empty.action }}</a></div>
    <div v-else-if="loaded && !found.length" class="empty"><span class="title">Nothing matches</span><span>Try other words{{ filters.length ? ' or another filter' : '' }}.</span>
      <button type="button" class="button" @click="query = ''; filter = ''">Show all</button></div>
    <div v-if="found.length > limit" class="more"><button type="button" class="button" @click="limit += 600">Show more ({{ found.length - limit }})</button></div>
  </div>`,
  data: () => ({
    rows: new Map(), seq: 0, loaded: false, query: "", filter: "", sortKey: "", down: false, selected: new Set(),
    flashes: {}, now: window.lablink.now(), words: window.lablink, limit: LIMIT, long: LONG, last: null,
  }),
  created() {
    this.sortKey = this.sort;
    this.down = this.descending;
    this.filter = this.chosen;
  },
  mounted() {
    this.timer = setInterval(() => (this.now = window.lablink.now()), 2000);
  },
  unmounted() {
    clearInterval(this.timer);
    clearTimeout(this.asking);
  },
  watch: {
    query(words) {
      if (!this.remote) return;
      clearTimeout(this.asking);
      this.asking = setTimeout(() => this.$emit("search", words), 200);
    },
  },
  computed: {
    // Where each column stands, for the style sheet.
    placed() {
      return this.columns.map((c, i) => [
        "at-" + (c.phone || (c.wide ? "nowhere" : i === 0 ? "title" : c.kind === "chip" ? "side" : c.kind === "person" ? "line" : "note")),
        "of-" + c.kind, "wide-" + (c.wide || 0), { first: i === 0, wrap: c.wrap },
      ]);
    },
    found() {
      const words = this.remote ? [] : this.query.toLowerCase().split(/\s+/).filter(Boolean);
      const found = [...this.rows.values()].filter((row) => this.fits(row, this.filter) && words.every((word) => row.words.includes(word)));
      const key = this.sortKey, sign = this.down ? -1 : 1;
      return found.sort((a, b) => sign * compare(a.sort[key], b.sort[key]) || compare(a.id, b.id));
    },
    shown() {
      return this.found.slice(0, this.limit);
    },
    shownFilters() {
      const rows = [...this.rows.values()];
      return this.filters
        .map((f) => ({ ...f, count: rows.filter((row) => this.fits(row, f.value)).length }))
        .filter((f) => f.count || !f.value || f.value === this.filter);
    },
    allSelected() {
      return this.found.length > 0 && this.found.every((row) => this.selected.has(row.id));
    },
    countText() {
      if (!this.loaded) return "Loading …";
      return this.found.length === this.rows.size ? `${this.rows.size} in all` : `${this.found.length} of ${this.rows.size}`;
    },
  },
  methods: {
    reset(rows) {
      this.rows = new Map(rows.map((row) => [row.id, Object.freeze(row)]));
      this.seq = 0;
      this.selected = new Set([...this.selected].filter((id) => this.rows.has(id)));
      this.loaded = true;
    },
    patch(upserts, removals, seq) {
      if (!this.loaded || seq !== this.seq + 1) return this.$emit("resync");
      this.seq = seq;
      for (const row of upserts) {
        const before = this.rows.get(row.id);
        // Figures that wander with every heartbeat are not news.
        if (!before || before.gist !== row.gist) this.flashes[row.id] = (this.flashes[row.id] || 0) + 1;
        this.rows.set(row.id, Object.freeze(row));
      }
      for (const id of removals) {
        this.rows.delete(id);
        this.selected.delete(id);
      }
    },
    fits: (row, filter) => !filter || row.group === filter || row.status === filter,
    sortBy(key) {
      this.down = this.sortKey === key ? !this.down : false;
      this.sortKey = key;
    },
    selectAll(on) {
      this.selected = new Set(on ? this.found.map((row) => row.id) : []);
    },
    pick(id, event) {
      const next = new Set(this.selected), on = event.target.checked;
      const ids = this.shown.map((row) => row.id);
      const [from, to] = event.shiftKey && this.last !== null ? [ids.indexOf(this.last), ids.indexOf(id)].sort((a, b) => a - b) : [-1, -1];
      for (const each of from >= 0 ? ids.slice(from, to + 1) : [id]) on ? next.add(each) : next.delete(each);
      this.selected = next;
      this.last = id;
    },
    able(verb) {
      return [...this.selected].map((id) => this.rows.get(id)).filter((row) => row && row.actions.includes(verb)).map((row) => row.name);
    },
    clearSelection() {
      this.selected = new Set();
    },
  },
};

function compare(a, b) {
  if (a === b) return 0;
  if (a === null || a === undefined) return 1;
  if (b === null || b === undefined) return -1;
  return typeof a === "number" && typeof b === "number" ? a - b : collator.compare(String(a), String(b));
}
