// A small line chart: time on x, 0 to 100 on y, and marks where something happened. Colours come from the page's tokens.
const W = 600, H = 120, EDGE = 4;
// A longer silence is shown as one.
const GAP_MS = 11 * 60 * 1000;

export default {
  props: { label: String, unit: String, series: Array },
  template: `
  <figure class="chart">
    <figcaption class="legend"><strong>{{ label }}</strong><span v-for="s in series" :key="s.key"><i :class="s.tone"></i>{{ s.label }} {{ latest(s.key) }}</span></figcaption>
    <div class="plot">
      <svg :viewBox="'0 0 ' + ${W} + ' ' + ${H}" preserveAspectRatio="none" role="img" :aria-label="summary">
        <line v-for="y in [0, 50, 100]" :key="y" class="axis" x1="0" x2="${W}" :y1="at(y)" :y2="at(y)" vector-effect="non-scaling-stroke"/>
        <path v-for="s in series" :key="s.key" :class="s.tone" :d="path(s.key)" fill="none" stroke-width="1.8" stroke-linecap="round" stroke-linejoin="round" vector-effect="non-scaling-stroke"/>
      </svg>
      <span v-for="[place, words] in placed" :key="place" class="mark" aria-hidden="true" :style="{ left: 'calc((100% - 46px) * ' + place + ')' }" :title="words"></span>
      <span v-if="!points.length" class="none">{{ loaded ? "No measurements in this time" : "Loading …" }}</span>
      <div class="scale" aria-hidden="true"><span>100 {{ unit }}</span><span>50 {{ unit }}</span><span>0</span></div>
    </div>
    <div v-if="loaded" class="legend ends"><span>{{ ends[0] }}</span><span>{{ ends[1] }}</span></div>
  </figure>`,
  data: () => ({ points: [], marks: [], range: [0, 1], gap: GAP_MS, loaded: false }),
  computed: {
    ends() {
      const far = this.range[1] - this.range[0] > 12 * 3600 * 1000;
      const form = { ...(far ? { day: "numeric", month: "short" } : {}), hour: "2-digit", minute: "2-digit" };
      return this.range.map((t) => new Date(t).toLocaleString([], form));
    },
    // What happened at nearly the same time is one mark with several lines of words.
    placed() {
      const [from, to] = this.range, found = new Map();
      for (const m of this.marks) {
        const place = Math.round((200 * (Date.parse(m.at) - from)) / (to - from)) / 200;
        if (place < 0 || place > 1) continue;
        found.set(place, [`${window.lablink.full(m.at)}: ${m.words}`, ...(found.get(place) || [])]);
      }
      return [...found].map(([place, words]) => [place, words.join("\n")]);
    },
    summary() {
      const marked = this.marks.length ? `, ${this.marks.length} events marked` : "";
      return `${this.label}: ` + this.series.map((s) => `${s.label} ${this.latest(s.key)}`).join(", ") + marked;
    },
  },
  methods: {
    reset(points, marks, since, until, every) {
      this.points = Object.freeze(points);
      this.marks = Object.freeze(marks);
      this.range = [Date.parse(since), Date.parse(until)];
      this.gap = Math.max(GAP_MS, 2500 * every);
      this.loaded = true;
    },
    at: (y) => H - EDGE - (Math.min(y, 100) / 100) * (H - 2 * EDGE),
    path(key) {
      const [from, to] = this.range;
      let last = null, d = "";
      for (const p of this.points) {
        if (p[key] == null) { last = null; continue; }
        const time = Date.parse(p.at), isApart = last === null || time - last > this.gap;
        const place = `${((Math.max(0, time - from) / (to - from)) * W).toFixed(1)},${this.at(p[key]).toFixed(1)}`;
        // A point on its own is drawn too: a line of no length with round ends.
        d += isApart ? `M${place}h.1` : `L${place}`;
        last = time;
      }
      return d;
    },
    latest(key) {
      const known = this.points.filter((p) => p[key] != null);
      return known.length ? `${Math.round(known[known.length - 1][key])} ${this.unit}` : "–";
    },
  },
};
