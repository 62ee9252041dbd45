// All machines on one screen: a cell each, coloured by one measure. The figure stands in the cell, and a sign where
// something is wrong: nothing is told by colour alone. One stop for the Tab key; arrows go from cell to cell.
const SIGNS = { bad: "!", warn: "▲" };

export default {
  props: { measures: Array },
  template: `
  <div class="card pad fleet" :class="{ dense: cells.size > 200 }" :aria-busy="String(!loaded)">
    <div class="bar">
      <div class="field"><label for="fleet-measure">Coloured by</label>
        <select id="fleet-measure" class="input" data-testid="fleet-measure" v-model="chosen">
          <option v-for="m in measures" :key="m.key" :value="m.key">{{ m.label }}</option></select></div>
      <div class="scale"><span v-for="(words, i) in steps" :key="words"><i :class="'heat-' + i"></i>{{ words }}</span>
        <span><i class="heat-none"></i>unknown</span><span>▲ something to look at</span><span>! broken or silent</span></div>
    </div>
    <div class="about" data-testid="fleet-about">{{ about || summary }}</div>
    <div v-if="loaded && !cells.size" class="empty"><span class="title">No machines yet</span><span>Launch some: they appear here as they come up.</span><a class="button" href="/admin/create">Launch machines</a></div>
    <section v-for="[pool, list] in groups" :key="pool" :aria-label="'Pool ' + pool">
      <h2>{{ pool }} <span class="sub">{{ list.length }}</span></h2>
      <div class="cells" @keydown="move">
        <a v-for="c in list" :key="c.id" v-memo="[c, chosen, c.id === stop]" class="cell" :class="[heat(c), c.tone]" :href="c.href" :tabindex="c.id === stop ? 0 : -1"
          :data-testid="'cell-' + c.name" :data-status="c.status" :aria-label="say(c)" @focus="look(c)" @mouseenter="about = say(c)" @mouseleave="about = ''" @blur="about = ''">{{ figure(c) }}<span v-if="c.tone" class="sign" aria-hidden="true">{{ signs[c.tone] }}</span></a>
      </div>
    </section>
  </div>`,
  data: () => ({ cells: new Map(), seq: 0, loaded: false, chosen: "", about: "", last: null, signs: SIGNS }),
  created() {
    this.chosen = this.measures[0].key;
  },
  computed: {
    measure() {
      return this.measures.find((m) => m.key === this.chosen);
    },
    steps() {
      const { bars, unit } = this.measure;
      return [`under ${bars[0]}`, ...bars.map((bar, i) => (i + 1 < bars.length ? `${bar}–${bars[i + 1]}` : `${bar} ${unit} and more`))];
    },
    groups() {
      const found = new Map();
      for (const c of [...this.cells.values()].sort((a, b) => (a.order < b.order ? -1 : 1))) {
        if (!found.has(c.pool)) found.set(c.pool, []);
        found.get(c.pool).push(c);
      }
      return [...found];
    },
    stop() {
      if (this.cells.has(this.last)) return this.last;
      return this.groups.length ? this.groups[0][1][0].id : null;
    },
    summary() {
      if (!this.loaded) return "Loading …";
      const wrong = [...this.cells.values()].filter((c) => c.tone).length;
      return `${this.cells.size} machines, ${wrong} with something to look at`;
    },
  },
  methods: {
    reset(cells) {
      this.cells = new Map(cells.map((c) => [c.id, Object.freeze(c)]));
      this.seq = 0;
      // Without GPUs the first measures say nothing.
      if (!this.loaded) this.chosen = (this.measures.find((m) => cells.some((c) => c.values[m.key] != null)) || this.measures[0]).key;
      this.loaded = true;
    },
    patch(upserts, removals, seq) {
      if (!this.loaded || seq !== this.seq + 1) return this.$emit("resync");
      this.seq = seq;
      for (const c of upserts) this.cells.set(c.id, Object.freeze(c));
      for (const id of removals) this.cells.delete(id);
    },
    heat(c) {
      const value = c.values[this.chosen];
      return value == null ? "heat-none" : "heat-" + this.measure.bars.filter((bar) => value >= bar).length;
    },
    figure(c) {
      const value = c.values[this.chosen];
      return value == null ? "–" : Math.round(value);
    },
    say(c) {
      const value = c.values[this.chosen];
      return `${c.name}: ${c.words}, ${this.measure.label} ${value == null ? "unknown" : Math.round(value) + " " + this.measure.unit}`;
    },
    look(c) {
      this.last = c.id;
      this.about = this.say(c);
    },
    move(event) {
      const all = [...this.$el.querySelectorAll(".cell")], at = all.indexOf(document.activeElement);
      const to = target(event.key, all, at);
      if (at < 0 || !to) return;
      event.preventDefault();
      to.focus();
    },
  },
};

// Up and down go to the nearest cell of the next line, across pools.
function target(key, all, at) {
  if (key === "Home") return all[0];
  if (key === "End") return all[all.length - 1];
  if (key === "ArrowRight") return all[at + 1];
  if (key === "ArrowLeft") return all[at - 1];
  if (key !== "ArrowUp" && key !== "ArrowDown") return null;
  const here = all[at].getBoundingClientRect(), sign = key === "ArrowDown" ? 1 : -1;
  let best = null, least = Infinity;
  for (const each of all) {
    const box = each.getBoundingClientRect(), down = sign * (box.top - here.top);
    const far = down * 1000 + Math.abs(box.left - here.left);
    if (down > 1 && far < least) [best, least] = [each, far];
  }
  return best;
}
