// A table that owns its rows: reset once, then patched by the server. Everything a person does with it (search, filter,
// sort, select) happens here, without a round trip.
const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
const LIMIT = 600;

export default {
  props: {
    columns: Array, label: String, searchable: Boolean, filters: Array, verbs: Array,
    empty: Object, sort: String, descending: Boolean, armed: Boolean,
  },
  template: `
  <div class="card">
    <div v-if="searchable" class="tools">
      <input class="input search" type="search" :aria-label="'Search ' + label" placeholder="Search" v-model="query">
      <div v-if="filters.length" class="filters" role="group" :aria-label="'Filter ' + label">
        <button v-for="f in shownFilters" :key="f.value" type="button" :aria-pressed="String(filter === f.value)" @click="filter = f.value">
          {{ f.label }} {{ f.count }}</button>
      </div>
      <span class="count" aria-live="polite">{{ countText }}</span>
    </div>
    <div v-if="verbs.length && (selected.size || armed)" class="bulk" role="group" aria-label="Actions on the selected">
      <span>{{ selected.size ? selected.size + ' selected' : 'Select machines first' }}</span>
      <button v-for="v in verbs" :key="v.verb" type="button" class="button small" :class="{ danger: v.danger }"
        :data-testid="'vm-action-' + v.verb" :disabled="!able(v.verb).length"
        @click="$emit('act', { verb: v.verb, names: able(v.verb) })">{{ v.label }} {{ able(v.verb).length || '' }}</button>
      <button v-if="selected.size" type="button" class="button small" @click="selected = new Set()">Clear</button>
    </div>
    <table class="live" :class="{ 'has-bulk': verbs.length && (selected.size || armed) }" :aria-label="label" :aria-busy="String(!loaded)">
      <thead v-if="rows.size || !loaded"><tr>
        <th v-if="verbs.length" class="check"><input type="checkbox" aria-label="Select all that are shown"
          :checked="allSelected" @change="selectAll($event.target.checked)"></th>
        <th v-for="c in columns" :key="c.key" :class="{ wide: c.wide }" :aria-sort="sortKey === c.key ? (down ? 'descending' : 'ascending') : null" scope="col">
          <button v-if="c.sortable" type="button" @click="sortBy(c.key)">{{ c.label }}<span aria-hidden="true">{{ sortKey === c.key ? (down ? '↓' : '↑') : '' }}</span></button>
          <template v-else>{{ c.label }}</template>
        </th>
      </tr></thead>
      <tbody v-if="!loaded" class="skeleton" aria-hidden="true">
        <tr v-for="n in 6" :key="n"><td v-if="verbs.length" class="check"></td><td v-for="c in columns" :key="c.key" :class="{ wide: c.wide }"><span :style="{ width: 40 + (n * 17 % 45) + '%' }"></span></td></tr>
      </tbody>
      <tbody v-else>
        <tr v-for="row in shown" :key="row.id" v-memo="[row, selected.has(row.id), flashes[row.id], row.ticks ? now : 0]"
          :class="flashes[row.id] ? (flashes[row.id] % 2 ? 'flash-a' : 'flash-b') : ''" :data-testid="row.testid" :data-status="row.status">
          <td v-if="verbs.length" class="check"><input type="checkbox" :aria-label="'Select ' + row.name" :checked="selected.has(row.id)" @click="pick(row.id, $event)"></td>
          <td v-for="(c, i) in columns" :key="c.key" :class="[{ wide: c.wide, first: i === 0, wrap: c.kind === 'text' && c.wrap, nowrap: !c.wrap }]">
            <template v-if="c.kind === 'link'">
              <a v-if="row[c.key].href" :href="row[c.key].href">{{ row[c.key].text }}</a><template v-else>{{ row[c.key].text }}</template>
              <span v-if="row[c.key].sub" class="cell-sub">{{ row[c.key].sub }}</span></template>
            <template v-else-if="c.kind === 'chip'">
              <span class="chip" :class="row[c.key].tone">{{ row[c.key].text }}</span>
              <span v-for="n in row[c.key].notes || []" :key="n.text" class="chip note-chip" :class="n.tone" :title="n.title">{{ n.text }}</span>
              <span v-if="row[c.key].sub" class="cell-sub wrap">{{ row[c.key].sub }}</span></template>
            <template v-else-if="c.kind === 'person'">
              <span v-if="row[c.key]" class="person"><span class="avatar" aria-hidden="true">{{ row[c.key][0] }}</span><span :title="row[c.key]">{{ row[c.key] }}</span></span>
              <span v-else class="muted">unclaimed</span></template>
            <template v-else-if="c.kind === 'bar'">
              <span v-if="row[c.key] == null" class="muted">–</span>
              <span v-else class="meter"><span class="track" aria-hidden="true"><span class="fill" :class="{ hot: row[c.key] >= 90 }" :style="{ width: row[c.key] + '%' }"></span></span>{{ Math.round(row[c.key]) }} %</span></template>
            <template v-else-if="c.kind === 'ago'"><time v-if="row[c.key]" :datetime="row[c.key]" :title="full(row[c.key])">{{ ago(row[c.key]) }}</time><span v-else class="muted">–</span></template>
            <template v-else-if="c.kind === 'when'"><time :datetime="row[c.key]" :title="full(row[c.key])">{{ clock(row[c.key]) }}</time></template>
            <template v-else><span :class="{ muted: !row[c.key] }">{{ row[c.key] || '–' }}</span></template>
          </td>
        </tr>
      </tbody>
    </table>
    <div v-if="loaded && !rows.size" class="empty"><span class="title">{{ empty.title }}</span><span>{{ empty.text }}</span>
      <a v-if="empty.href" class="button" :href="empty.href">{{ empty.action }}</a></div>
    <div v-else-if="loaded && !found.length" class="empty"><span class="title">Nothing matches</span><span>Try other words or another filter.</span>
      <button type="button" class="button" @click="query = ''; filter = ''">Show all</button></div>
    <div v-if="found.length > limit" class="more"><button type="button" class="button" @click="limit += 600">Show more ({{ found.length - limit }})</button></div>
  </div>`,
  data: () => ({
    rows: new Map(), seq: 0, loaded: false, query: "", filter: "", sortKey: "", down: false, selected: new Set(),
    flashes: {}, now: Date.now(), skew: 0, limit: LIMIT, last: null,
  }),
  created() {
    this.sortKey = this.sort;
    this.down = this.descending;
  },
  mounted() {
    this.timer = setInterval(() => (this.now = Date.now()), 2000);
  },
  unmounted() {
    clearInterval(this.timer);
  },
  computed: {
    found() {
      const words = this.query.toLowerCase().split(/\s+/).filter(Boolean);
      const found = [...this.rows.values()].filter(
        (row) => (!this.filter || row.group === this.filter) && words.every((word) => row.words.includes(word)));
      const key = this.sortKey, sign = this.down ? -1 : 1;
      return found.sort((a, b) => sign * compare(a.sort[key], b.sort[key]) || compare(a.id, b.id));
    },
    shown() {
      return this.found.slice(0, this.limit);
    },
    shownFilters() {
      const counts = {};
      for (const row of this.rows.values()) counts[row.group] = (counts[row.group] || 0) + 1;
      return this.filters
        .map((f) => ({ ...f, count: f.value ? counts[f.value] || 0 : this.rows.size }))
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
    reset(rows, now) {
      this.rows = new Map(rows.map((row) => [row.id, Object.freeze(row)]));
      this.seq = 0;
      this.skew = Date.parse(now) - Date.now();
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
    ago(stamp) {
      const s = Math.max(0, Math.round((this.now + this.skew - Date.parse(stamp)) / 1000));
      if (s < 60) return `${s} s ago`;
      if (s < 3600) return `${Math.floor(s / 60)} min ago`;
      if (s < 86400) return `${Math.floor(s / 3600)} h ago`;
      return `${Math.floor(s / 86400)} d ago`;
    },
    clock(stamp) {
      const at = new Date(stamp), today = new Date().toDateString() === at.toDateString();
      return today ? at.toLocaleTimeString() : at.toLocaleString();
    },
    full: (stamp) => new Date(stamp).toLocaleString(),
  },
};

function compare(a, b) {
  if (a === b) return 0;
  if (a === null || a === undefined) return 1;
  if (b === null || b === undefined) return -1;
  return typeof a === "number" && typeof b === "number" ? a - b : collator.compare(String(a), String(b));
}
